"""What is read off a device and off a profiler's trace."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.gpu.device import busy_seconds, device_name, give_back, peak_bytes, profiler, wait


def trace(folder: Path, *events: tuple[str, float, float]) -> Path:
    path = folder / "trace.json"
    named = [{"ph": "X", "cat": kind, "ts": start, "dur": duration} for kind, start, duration in events]
    path.write_text(json.dumps({"traceEvents": [{"ph": "M", "name": "process_name"}, *named]}))
    return path


def test_kernels_and_copies_that_overlap_count_once(tmp_path: Path) -> None:
    events = (("kernel", 10.0, 5.0), ("gpu_memcpy", 12.0, 1.0), ("kernel", 14.0, 3.0), ("gpu_memset", 30.0, 2.0))
    assert busy_seconds(trace(tmp_path, *events)) == pytest.approx(9e-6)


def test_work_of_the_cpu_and_marked_ranges_count_nothing(tmp_path: Path) -> None:
    others = (("cuda_runtime", 0.0, 50.0), ("cpu_op", 0.0, 50.0), ("gpu_user_annotation", 0.0, 50.0))
    assert busy_seconds(trace(tmp_path, *others, ("kernel", 1.0, 1.0))) == pytest.approx(1e-6)
    assert busy_seconds(trace(tmp_path, *others)) is None


def test_busy_time_is_that_of_a_count_microsecond_by_microsecond(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    spans = generator.integers(0, 1000, (60, 2)) % (1000, 40)
    busy = np.zeros(1100, bool)
    for start, length in spans:
        busy[start : start + length] = True
    events = [("kernel", float(start), float(length)) for start, length in spans]
    assert busy_seconds(trace(tmp_path, *events)) == pytest.approx(busy.sum() / 1e6)


def test_a_real_trace_of_the_cpu_shows_no_device(tmp_path: Path) -> None:
    with profiler(torch.device("cpu")) as profile:
        torch.ones(4, 4) @ torch.ones(4, 4)
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    assert "aten::matmul" in (tmp_path / "trace.json").read_text()
    assert busy_seconds(tmp_path / "trace.json") is None


def test_the_cpu_has_no_memory_to_watch_and_nothing_to_wait_for() -> None:
    cpu = torch.device("cpu")
    wait(cpu)
    give_back(cpu)
    assert (peak_bytes(cpu), device_name("cpu")) == (None, "cpu")
