"""What measurements ask of a CUDA device; on the CPU there is nothing to wait for, and what only a GPU has is None."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

_WORK = {"kernel", "gpu_memcpy", "gpu_memset"}
"""Categories of a trace's events in which the device does something."""


def wait(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def give_back(device: torch.device) -> None:
    """Give back the memory that torch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_bytes(device: torch.device) -> int | None:
    """Most memory that this process's tensors ever took on the device at once."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def device_name(device: str) -> str:
    """A GPU's name as its maker has it; any other device's name as it is."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def profiler(device: torch.device) -> profile:
    """A profiler of what the device does and of nothing else; on the CPU one whose trace shows no work of a device."""
    return profile(activities=[ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU])


def busy_seconds(trace: Path) -> float | None:
    """Time in which at least one kernel or copy was running on the device; None where a trace shows none.

    Args:
        trace: what `export_chrome_trace` of a profiler wrote; its times are microseconds.
    """
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in events if event.get("cat") in _WORK]
    return _covered(spans) / 1e6 if spans else None


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of a union of spans."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered
