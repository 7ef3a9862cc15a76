"""The measurement of a step with a detector that stays as it is, at toy size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.inputs import BenchInputs
from bench.training import frozen, steps
from bench.training.frozen import Kind
from bench.training.steps import Run


def test_a_frozen_step_has_its_figures(
    inputs: BenchInputs,
    tmp_path: Path,
    tiny_detector: Path,
    in_this_process: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(kind: Kind, *work: Any) -> Run:
        run = in_this_process(kind, *work)
        assert len(run.step_seconds) == 1
        step, peak = {"plain": (4.0, 300), "frozen": (2.0, 150)}[kind]
        return Run(step_seconds=[step], peak_bytes=peak * 2**20)

    monkeypatch.setattr(frozen, "in_a_process", train)
    monkeypatch.setattr(steps, "WARM_UP", 0)
    for name, value in (("BATCH", 4), ("IMAGE_SIZE", 64)):
        monkeypatch.setattr(frozen, name, value)
    figures = frozen.measure(tmp_path, model=str(tiny_detector), rounds=1, steps=2, inputs=inputs)
    assert {name: (figure.value, figure.target, figure.better) for name, figure in figures.items()} == {
        "frozen_step_vs_plain": (0.5, 0.55, "lower"),
        "frozen_memory_vs_plain": (0.5, 0.6, "lower"),
    }
    assert "2000 ms / 4000 ms a step, loading included; features deep; tiny, 64 px" in (
        figures["frozen_step_vs_plain"].note
    )
    assert list(tmp_path.iterdir()) == []
