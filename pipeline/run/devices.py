"""The names of devices: what a user may call one, whether it is there, and what torch and ultralytics call it."""

import re

from mocha_pipe.pipeline.errors import ConfigError


def torch_device(name: str) -> str:
    """What torch calls a device; `auto` and the empty name are CUDA where there is one, else the CPU.

    Raises:
        ConfigError: that is no name of a device, or this machine has no such device.
    """
    if name == "cpu":
        return name  # spares a command on the CPU the import
    import torch

    if name in ("", "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    found = re.fullmatch(r"(mps)|(?:cuda|cuda:([0-9]+)|([0-9]+))", name)
    if not found:
        raise _no_device(name)
    kind = found[1] or "cuda"
    index = int(found[2] or found[3] or 0)
    count = int(torch.backends.mps.is_available()) if kind == "mps" else torch.cuda.device_count()
    if index >= count:
        raise ConfigError(f"this machine has {count} {kind} devices, asked for {name!r}: pass --device auto")
    return name if found[3] is None else f"cuda:{index}"


def trainer_device(names: str) -> str:
    """What ultralytics calls the device of a training, or several (`0,1`); empty lets it choose.

    Raises:
        ConfigError: as `torch_device`.
    """
    if names in ("", "auto"):
        return ""
    devices = [torch_device(name) for name in names.split(",")]
    if len(devices) > 1 and not all(device.startswith("cuda:") for device in devices):
        raise _no_device(names)
    return ",".join(device.removeprefix("cuda:") for device in devices)


def _no_device(name: str) -> ConfigError:
    return ConfigError(
        "a device is auto, cpu, mps, cuda, cuda:1 or 1, and a training may take several, such as 0,1; "
        f"found {name!r}: pass --device auto"
    )
