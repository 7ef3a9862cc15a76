"""The measurements of large tables and of two workers at toy size."""

from pathlib import Path

import pytest

from bench.cache import million, workers
from bench.inputs import BenchInputs
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, done_shards
from mocha_pipe.teacher_cache.store.reader import ShardRows


def test_a_large_table_has_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(million, "ROUNDS", 1)
    figures = million.measure(tmp_path, images=3000, rows_per_shard=128)
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "open_1e6_s": (1.0, "lower"),
        "resume_scan_1e6_s": (10.0, "lower"),
        "memory_1e6_vs_1e5": (1.3, "lower"),
    }
    assert 0 < figures["open_1e6_s"].value < figures["resume_scan_1e6_s"].value
    assert 0.8 < figures["memory_1e6_vs_1e5"].value < 1.5
    assert list(tmp_path.iterdir()) == []


def test_a_mostly_built_cache_lacks_every_tenth_shard(tmp_path: Path) -> None:
    table = million._write_table(tmp_path / "table", 1200)
    million._mostly_built(tmp_path / "cache", table)
    shards = range(-(-len(table) // 256))
    for name in TEACHER_ARRAYS:
        folder = tmp_path / "cache" / name
        assert done_shards(folder) == {shard for shard in shards if shard % 10 != 9}
        full = (folder / "c.0.0").stat()
        assert full.st_size == 256 * ShardRows(folder).dim * 2 + 8 * 4 + 8 * 16 + 4
        assert full.st_blocks == 0, "the file takes no room"


def test_two_workers_build_one_cache(inputs: BenchInputs, tmp_path: Path) -> None:
    figures = workers.measure(tmp_path, rounds=1, inputs=inputs)
    assert list(figures) == ["two_workers_vs_one"]
    figure = figures["two_workers_vs_one"]
    assert (figure.target, figure.better) == (1.8, "higher")
    assert 0.1 < figure.value < 10
    assert f"{len(inputs.table)} regions in shards of 64" in figure.note
    assert list(tmp_path.iterdir()) == []
