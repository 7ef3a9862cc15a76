"""The measurement of training at toy size: names and targets, and that the live teacher says what the cache says."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.inputs import BenchInputs
from bench.training import steps
from bench.training.steps import Kind, Run
from mocha_pipe.teacher_cache.store.cache import RegionCache


@pytest.fixture(scope="module")
def cache(inputs: BenchInputs, tmp_path_factory: pytest.TempPathFactory) -> RegionCache:
    folder = tmp_path_factory.mktemp("steps") / "cache"
    steps.build_bench_cache(inputs, folder)
    return RegionCache.open(folder)


def test_training_has_its_figures(
    inputs: BenchInputs,
    cache: RegionCache,
    tmp_path: Path,
    tiny_detector: Path,
    in_this_process: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(kind: Kind, *work: Any) -> Run:
        run = in_this_process(kind, *work)
        assert len(run.step_seconds) == 1
        assert run.peak_bytes > 2**20
        step, peak = {"plain": (2.0, 200), "cached": (3.0, 250), "live": (6.0, 300)}[kind]
        return Run(step_seconds=[step], peak_bytes=peak * 2**20)

    def seconds(work: Callable[[], object]) -> float:
        work()
        return 18.0

    monkeypatch.setattr(steps, "in_a_process", train)
    monkeypatch.setattr(steps, "seconds", seconds)
    monkeypatch.setattr(steps, "build_bench_cache", lambda _inputs, folder: shutil.copytree(cache.path, folder))
    for name, value in (("WARM_UP", 0), ("BATCH", 4), ("IMAGE_SIZE", 32)):
        monkeypatch.setattr(steps, name, value)
    figures = steps.measure(tmp_path, model=str(tiny_detector), rounds=1, steps=2, inputs=inputs)
    assert {name: (figure.value, figure.target, figure.better) for name, figure in figures.items()} == {
        "distill_step_vs_plain": (1.5, 1.08, "lower"),
        "distill_memory_vs_plain": (1.25, 1.10, "lower"),
        "epoch_live_vs_cached": (2.0, 1.0, "higher"),
        "break_even_epoch": (1.0, 100.0, "lower"),  # six steps an epoch, each of which saves 3 s
    }
    assert "3000 ms / 2000 ms a step, loading included; tiny, 32 px, batch 4" in figures["distill_step_vs_plain"].note
    assert list(tmp_path.iterdir()) == []


def test_the_live_teacher_gives_the_targets_of_the_cache(inputs: BenchInputs, cache: RegionCache) -> None:
    rows = np.array([3, 0, 5, 6])
    live = steps.LiveTargets(inputs, cache).lookup(rows)
    # float16 in the cache, and other neighbours in a batch
    np.testing.assert_allclose(live, cache.targets().lookup(rows), atol=0.05)
