"""The measurement of two workers at toy size, with real processes."""

from functools import partial
from pathlib import Path

import pytest

from bench.cache import workers
from bench.inputs import BenchInputs
from bench.synthetic import CheapTeacher, synthetic_spec


def test_two_workers_build_one_cache(inputs: BenchInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 6.0, 10.0, 12.0])
    monkeypatch.setattr(workers, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(workers, "PRELOADED", [workers.__name__])
    teacher = partial(CheapTeacher, synthetic_spec(hidden_dim=128, visual_dim=128))
    figures = workers.measure(tmp_path, rounds=1, inputs=inputs, load_teacher=teacher)
    assert list(figures) == ["two_workers_vs_one"]
    figure = figures["two_workers_vs_one"]
    assert (figure.value, figure.target, figure.better) == (3.0, 1.8, "higher")
    assert "on one cache, 6.0 / 2.0, targets included" in figure.note
    assert f"{len(inputs.table)} regions in shards of 64" in figure.note
    assert list(tmp_path.iterdir()) == []
