"""The measurement of few-shot learning at toy size: names and targets, and that it has one thread."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.personal import classify


def test_classify_has_its_figures(tmp_path: Path) -> None:
    figures = classify.measure(tmp_path, rounds=3)
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "classify_ms": (2.0, "lower"),
        "classify_one_class_ms": (None, "lower"),
        "fit_ms": (10.0, "lower"),
        "profile_kb": (100.0, "lower"),
    }
    assert 0 < figures["classify_ms"].value < figures["classify_one_class_ms"].value
    assert "300 boxes against 200 prototypes, 512 wide" in figures["classify_ms"].note
    assert "5 shots x 40 objects" in figures["fit_ms"].note
    assert 10 * 512 * 4 / 1000 < figures["profile_kb"].value < 100, "ten float32 prototypes and little beside"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_it_runs_with_one_thread_and_says_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.update(options, arguments=arguments)
        return subprocess.CompletedProcess(
            arguments, 0, stdout=json.dumps({"classify": 1.5, "classify_one_class": 9.0, "fit": 0.5})
        )

    monkeypatch.setattr(classify.subprocess, "run", run)
    figures = classify.measure(tmp_path, rounds=7)
    assert asked["arguments"] == [sys.executable, "-m", "bench.personal.classify", "7"]
    assert {asked["env"][name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"1"}
    assert asked["env"]["PATH"] == os.environ["PATH"]
    assert {name: figure.value for name, figure in figures.items()} == {
        "classify_ms": 1.5,
        "classify_one_class_ms": 9.0,
        "fit_ms": 0.5,
        "profile_kb": figures["profile_kb"].value,
    }
