"""The measurement of training at toy size: names and targets, and that the live teacher says what the cache says."""

from pathlib import Path

import numpy as np
import pytest

from bench.inputs import BenchInputs
from bench.training import steps as training
from mocha_pipe.teacher_cache.store.cache import RegionCache


def test_training_has_its_figures(inputs: BenchInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "WARM_UP", 0)
    figures = training.measure(tmp_path, rounds=1, steps=2, inputs=inputs)
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "distill_step_vs_plain": (1.08, "lower"),
        "distill_memory_vs_plain": (1.10, "lower"),
        "epoch_live_vs_cached": (1.0, "higher"),
        "break_even_epoch": (100.0, "lower"),
    }
    assert figures["distill_memory_vs_plain"].value > 0.5
    assert list(tmp_path.iterdir()) == []


def test_the_live_teacher_gives_the_targets_of_the_cache(inputs: BenchInputs, tmp_path: Path) -> None:
    training._build_cache(inputs, tmp_path / "cache")
    cache = RegionCache.open(tmp_path / "cache")
    rows = np.array([3, 0, 5, 6])
    live = training.LiveTargets(inputs, cache).lookup(rows)
    # float16 in the cache, and other neighbours in a batch
    np.testing.assert_allclose(live, cache.targets().lookup(rows), atol=0.05)
