"""The measurement of few-shot learning at toy size: names and targets, and that it has one thread."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.personal import classify


def test_classify_has_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def process(_name: str, work: Callable[[int], object], rounds: int) -> object:
        threads.extend(os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))
        return work(rounds)

    monkeypatch.setattr(classify, "in_a_process", process)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    clock = iter(range(100))
    monkeypatch.setattr("bench.timing.thread_time", lambda: next(clock) ** 2)
    figures = classify.measure(tmp_path, rounds=3)
    assert threads == ["1", "1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "2"
    # Calls start at 0, 2, 4, ... on this clock, and the n-th of them lasts 4 n + 1 seconds.
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "classify_ms": (2.0, "lower"),
        "classify_one_class_ms": (None, "lower"),
        "fit_ms": (10.0, "lower"),
        "profile_kb": (100.0, "lower"),
    }
    size = figures.pop("profile_kb")
    assert {name: figure.value for name, figure in figures.items()} == {
        "classify_ms": 5000, "classify_one_class_ms": 17000, "fit_ms": 29000
    }  # fmt: skip
    assert "300 boxes against 200 prototypes, 512 wide" in figures["classify_ms"].note
    assert "5 shots x 40 objects" in figures["fit_ms"].note
    assert 10 * 512 * 4 / 1000 < size.value < 100, "ten float32 prototypes and little beside"
    assert list(tmp_path.iterdir()) == []
