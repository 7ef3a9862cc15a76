"""The measurements of reading, transfers and generate mode at toy size: their names, targets and what they compare."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.cache import generate, reading, sharing
from bench.inputs import BenchInputs


def test_reading_has_its_figures(
    inputs: BenchInputs, tmp_path: Path, tiny_detector: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three steps of 2 s, each of which waits 0.25 s for its targets; then three ways to read the same rows.
    took = iter([2.0, 2.0, 2.0, 0.1, 5.0, 1.0])
    ticks = count(0.0, 0.25)

    def seconds(work: Callable[[], object]) -> float:
        work()
        return next(took)

    monkeypatch.setattr(reading, "seconds", seconds)
    monkeypatch.setattr(reading, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(reading, "ROUNDS", 1)
    monkeypatch.setattr(reading, "READ_STEPS", 1)
    figures = reading.measure(tmp_path, model=str(tiny_detector), image_size=32, steps=1, images=20, inputs=inputs)
    assert {name: (figure.value, figure.target, figure.better) for name, figure in figures.items()} == {
        "target_fetch_overhead": (2 / 1.75, 1.01, "lower"),
        "random_read_vs_pth": (50, 40.0, "higher"),
    }
    assert "250000 us of 2000 ms; tiny, 32 px" in figures["target_fetch_overhead"].note
    assert "record per box 5000.00 ms, with stacked boxes 1000.00 ms, the cache 100.000 ms" in (
        figures["random_read_vs_pth"].note
    )
    assert list(tmp_path.iterdir()) == []


def test_both_ways_of_reading_must_say_the_same() -> None:
    with pytest.raises(AssertionError):
        reading._paired([lambda chosen: np.zeros(len(chosen)), lambda chosen: np.ones(len(chosen))], 3)


def test_a_pull_of_targets_leaves_the_rest_behind(tmp_path: Path) -> None:
    figures = sharing.measure(tmp_path, images=60)
    assert list(figures) == ["pull_targets_vs_full_bytes"]
    figure = figures["pull_targets_vs_full_bytes"]
    assert (figure.target, figure.better) == (1 / 9, "lower")
    assert 0.01 < figure.value < 1 / 9
    assert list(tmp_path.iterdir()) == []


def test_generate_compares_equal_answers(inputs: BenchInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "BATCH", 8)
    monkeypatch.setattr(generate, "MAX_NEW_TOKENS", 12)
    figures = generate.measure(tmp_path, rounds=1, batches=1, inputs=inputs)
    assert list(figures) == ["generate_batched_vs_loop"]
    figure = figures["generate_batched_vs_loop"]
    assert (figure.target, figure.better) == (8.0, "higher")
    assert figure.value > 0
    assert "equal answers of 12 tokens" in figure.note


@pytest.mark.parametrize("wrong", ["answer", "states"])
def test_generate_refuses_to_compare_different_answers(
    wrong: str, inputs: BenchInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = generate.describe_one

    def describe(*arguments: Any) -> tuple[list[int], torch.Tensor]:
        answer, states = original(*arguments)
        return ([*answer, 7], states) if wrong == "answer" else (answer, states * 1.01)

    monkeypatch.setattr(generate, "describe_one", describe)
    monkeypatch.setattr(generate, "BATCH", 8)
    with pytest.raises(AssertionError, match="in a batch" if wrong == "answer" else "its states differ"):
        generate.measure(tmp_path, rounds=1, batches=1, inputs=inputs)
