"""Arguments of `yolo train` that a user passes on."""

import difflib
from collections.abc import Mapping
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg

from mocha_pipe.student.errors import TrainArgumentError

DEFAULT_TRAIN_ARGUMENTS: Mapping[str, Any] = {"optimizer": "AdamW", "lr0": 1e-3, "warmup_bias_lr": 0.0}
"""Where distillation differs from `yolo train`, whose automatic choice may be MuSGD, made for convolutions."""

_OURS = frozenset(
    {"model", "data", "task", "mode", "cfg", "project", "name", "exist_ok", "save_dir", "resume", "single_cls"}
    | {"compile", "distill_model"}
)


def checked_arguments(train_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Training arguments that ultralytics will accept.

    Raises:
        TrainArgumentError: an argument is unknown, has a wrong value, or is set by the pipeline.
    """
    for name in train_arguments:
        if name in _OURS:
            raise TrainArgumentError(f"Training argument {name!r} is set by mocha-pipe; leave it out.")
        if name not in DEFAULT_CFG_DICT:
            near = difflib.get_close_matches(name, DEFAULT_CFG_DICT, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`yolo cfg` lists them."
            raise TrainArgumentError(f"Training argument {name!r} is not one of ultralytics'; {hint}")
    try:
        get_cfg(overrides=dict(train_arguments))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TrainArgumentError(f"Training argument refused by ultralytics: {reason}") from error
    return dict(train_arguments)
