"""The measurement of few-shot episodes at toy size: its figure, and what it is measured on."""

from pathlib import Path

import numpy as np
import pytest

from bench.personal import episodes


def test_episodes_have_their_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 15.0])
    monkeypatch.setattr(episodes, "perf_counter", lambda: next(clock))
    ((name, figure),) = episodes.measure(tmp_path, episodes=2).items()
    assert (name, figure.value, figure.target, figure.better) == ("episodes_s", 5.0, 60.0, "lower")
    assert figure.note.startswith("2 episodes of 24 objects x 5 shots in 384 images, 4 methods, after the forward ")
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_is_as_large_as_the_miniature_one() -> None:
    benchmark = episodes.synthetic_benchmark()
    assert np.bincount(benchmark.coarse_of).tolist() == [3] * 8
    assert len(benchmark.source.records) == 384
    for record in benchmark.source.records:
        shown = benchmark.coarse_of[record.class_ids].tolist()
        assert len(set(record.class_ids.tolist())) == len(shown) in (2, 3)
        assert shown[0] == shown[1] != shown[-1] or len(shown) == 2


def test_some_objects_are_boxed_twice_under_two_classes() -> None:
    benchmark = episodes.synthetic_benchmark()
    found = episodes.synthetic_pass(benchmark, 8)
    assert (np.diff(found.detection_image) >= 0).all()
    true = np.concatenate([record.class_ids for record in benchmark.source.records])
    rows = np.sort(np.append(np.arange(len(true)), np.arange(0, len(true), 5)))
    right = found.detection_coarse == benchmark.coarse_of[true[rows]]
    assert right.sum() == len(true)
    assert len(right) == len(found.detection_embedding) == len(true) + len(true) // 5
