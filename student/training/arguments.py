"""What a user asks of a training, checked before it begins: the model to start from, and arguments of `yolo train`."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg
from ultralytics.nn.tasks import yaml_model_load
from ultralytics.utils.torch_utils import parse_device

from mocha_pipe.student.errors import StudentModelError, StudentModelNotFoundError, TrainArgumentError
from mocha_pipe.student.network.student_files import HEADS, load_detector, needs_detector

DEFAULT_TRAIN_ARGUMENTS: Mapping[str, Any] = {
    "optimizer": "AdamW",  # the automatic one may be MuSGD, made for convolutions
    "lr0": 1e-3,
    "warmup_bias_lr": 0.0,
    "hsv_h": 0.0,  # the targets saw the true colours
    "hsv_s": 0.0,
    "hsv_v": 0.0,
}
"""Where distillation differs from `yolo train`."""
DEEP_ARGUMENTS: Mapping[str, Any] = {"lr0": 3e-4, "cos_lr": True, "warmup_epochs": 0.3}
"""For features `deep`, which start from a map that large steps would spoil."""
FROZEN_ARGUMENTS: Mapping[str, Any] = {"mosaic": 0.0, "close_mosaic": 0, "scale": 0.2}
"""Where the detector stays as it is: what would cut a region is left out, because its target saw all of it."""

_COLOURS = ("hsv_h", "hsv_s", "hsv_v", "bgr")

_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "cache": (True, False, None, "ram", "disk"),  # anything else would keep nothing, and say nothing
    "optimizer": ("auto", "Adam", "Adamax", "AdamW", "MuSGD", "NAdam", "RAdam", "RMSprop", "SGD"),
}
_LEAST = {"workers": 0, "patience": 0, "seed": 0, "close_mosaic": 0, "warmup_epochs": 0, "nbs": 1, "max_det": 1}
_OURS = frozenset(
    {"model", "data", "task", "mode", "cfg", "project", "name", "exist_ok", "save_dir", "resume", "single_cls"}
    | {"compile", "distill_model", "split"}
)


def find_model(model: str) -> str:
    """The model to start from, as ultralytics takes it: an absolute path, or the name of a .yaml that it ships.

    Raises:
        StudentModelNotFoundError: no such file or name.
        StudentModelError: not a detector.
    """
    suffix = Path(model).suffix.lower()
    if suffix == ".pt":
        if not Path(model).is_file():
            raise StudentModelNotFoundError(
                f"{model}: no such file, and weights are not downloaded. Get it from "
                "https://github.com/ultralytics/assets/releases and pass its path with --student, "
                f"or pass --student {Path(model).stem}.yaml to start from random weights."
            )
        load_detector(Path(model))
        return str(Path(model).resolve())
    if suffix not in {".yaml", ".yml"} or "://" in model:
        raise StudentModelError(
            f"--student must be a local .pt file or a .yaml, found {model!r}; "
            "for example --student yolov8n.yaml, or --student path/to/yolov8n.pt."
        )
    try:
        described = yaml_model_load(model)
    except FileNotFoundError as error:
        raise StudentModelNotFoundError(
            f"{model}: no such file, and no model that ultralytics ships; for example --student yolov8n.yaml."
        ) from error
    try:
        head = str(described["head"][-1][2])
    except (KeyError, IndexError, TypeError):
        head = "none"
    if head not in HEADS:
        raise StudentModelError(f"{model}: {needs_detector(head)}; for example --student yolov8n.yaml.")
    return str(Path(model).resolve()) if Path(model).is_file() else model


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
        _check_value(name, train_arguments[name])
    try:
        get_cfg(overrides=dict(train_arguments))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TrainArgumentError(f"Training argument refused by ultralytics: {reason}") from error
    return dict(train_arguments)


def _check_value(name: str, value: Any) -> None:
    """Raises TrainArgumentError for a value that ultralytics lets pass and then trips over or passes over."""
    choices = _CHOICES.get(name)
    if choices and str(value).lower() not in [str(each).lower() for each in choices]:
        near = difflib.get_close_matches(str(value), [str(each) for each in choices], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(map(str, choices))
        raise TrainArgumentError(f"Training argument {name!r} must be one of {known}, found {value!r}{hint}")
    if name in _LEAST and isinstance(value, int | float) and value < _LEAST[name]:
        raise TrainArgumentError(f"Training argument {name!r} must be at least {_LEAST[name]}, found {value!r}.")


def colour_warning(arguments: Mapping[str, Any]) -> str | None:
    """What distillation says where training arguments change colours, which the cached targets saw; None otherwise."""
    changed = [f"{name}={arguments[name]}" for name in _COLOURS if arguments.get(name)]
    if not changed:
        return None
    return (
        f"{', '.join(changed)} changes the colours of what the cached targets describe, so that the student learns "
        "not to see them: by ultralytics' own hsv_h, hsv_s and hsv_v the target of the changed picture has a cosine of "
        "0.78 to the cached one (miniature teacher); leave it out to train on the true colours"
    )


def num_devices(arguments: Mapping[str, Any]) -> int:
    """How many devices the training arguments name.

    Raises:
        TrainArgumentError: there are several, and another argument is for one device only.
    """
    count = len(parse_device(arguments.get("device", "")).split(","))
    batch = arguments.get("batch", DEFAULT_CFG_DICT["batch"])
    if count > 1 and batch < 1:
        raise TrainArgumentError(
            f"Several devices need a batch of whole images, found batch={batch}; "
            "pass --batch, a multiple of the devices."
        )
    if count > 1 and arguments.get("rect"):
        raise TrainArgumentError("rect=True orders images for one device; leave it out, or name one device.")
    return count
