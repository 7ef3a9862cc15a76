"""Reading a checkpoint's weights: safetensors only, every tensor accounted for, on a device that exists."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.checkpoint import Checkpoint
from mocha_pipe.teacher_cache.teachers.config import DtypeName

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The torch device of that name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        TeacherError: unknown name, or no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TeacherError(f"device must be auto or a torch device; found '{name}'; pass --device auto") from None
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = counts.get(device.type, 0)
    if (device.index or 0) >= count:
        raise TeacherError(
            f"device must exist on this machine; asked for '{name}', found {count} of type {device.type}; "
            "pass --device auto"
        )
    return device


def pick_dtype(name: DtypeName, device: torch.device, settings: Mapping[str, Any]) -> torch.dtype:
    """The torch number type; `auto` is the one that a checkpoint is kept in on CUDA, and float32 elsewhere.

    Args:
        name: as configured.
        device: where the model computes.
        settings: the checkpoint's config.json. Where it names no type that a teacher computes in, bfloat16 is taken.

    Raises:
        TeacherError: the device cannot compute in it.
    """
    if name == "auto" and device.type != "cuda":
        return torch.float32
    chosen = name if name != "auto" else _kept_in(settings)
    if chosen == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise TeacherError(f"this GPU cannot compute in bfloat16; found --dtype {name}; pass --dtype float16")
    return _DTYPES[chosen]


def _kept_in(settings: Mapping[str, Any]) -> str:
    """Name of the number type that a config.json gives its model, or the language model in it."""
    text = settings.get("text_config")
    for part in (settings, text if isinstance(text, dict) else {}):
        for key in ("dtype", "torch_dtype"):  # files by transformers 4 say torch_dtype
            if part.get(key) in _DTYPES:
                return str(part[key])
    return "bfloat16"


def load_weights(
    model_class: Any,
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
    flag: str,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """A frozen model of a transformers class with the checkpoint's weights, on the device.

    Args:
        model_class: the class.
        checkpoint: where the weights are.
        dtype: number type of the model.
        device: where the model goes.
        flag: the option that named the checkpoint, for messages.
        options: further arguments of the class's `from_pretrained`. The kind of attention is best left to the class:
            Gemma 2 and some towers refuse what others are fastest with.

    Raises:
        TeacherError: a weight file is damaged or missing, or some tensors of the model are in none of them.
    """
    try:
        model, loaded = model_class.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **(options or {}),
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise TeacherError(
            f"the weights of '{checkpoint.name}' must fit its config.json; they cannot be loaded "
            f"({first_line(error)}); fetch the files again or correct {flag}"
        ) from error
    # transformers fills missing tensors with random numbers and goes on.
    if missing := sorted(loaded["missing_keys"]):
        raise TeacherError(
            f"the weights of '{checkpoint.name}' must be complete; {len(missing)} tensors are missing, "
            f"the first is {missing[0]}; fetch the files again or correct {flag}"
        )
    return model.to(device).eval().requires_grad_(requires_grad=False)
