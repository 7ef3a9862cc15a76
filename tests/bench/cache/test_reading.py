"""The measurements of reading, transfers and generate mode at toy size: their names, targets and what they compare."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.cache import generate, reading, sharing
from bench.inputs import BenchInputs


def test_reading_has_its_figures(inputs: BenchInputs, tmp_path: Path) -> None:
    figures = reading.measure(tmp_path, steps=1, images=20, inputs=inputs)
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "target_fetch_overhead": (1.01, "lower"),
        "random_read_vs_pth": (40.0, "higher"),
    }
    assert 1 < figures["target_fetch_overhead"].value < 1.5
    assert figures["random_read_vs_pth"].value > 1
    assert "warm" in figures["random_read_vs_pth"].note
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
