"""The measurements of large tables and of two workers at toy size."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bench.cache import million
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, ShardPlan, done_shards
from mocha_pipe.teacher_cache.store.reader import ShardRows


def test_a_large_table_has_its_figures(
    tmp_path: Path, in_this_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, work: Callable[..., Any], folder: Path, size: str, *arguments: object) -> tuple[int, ...]:
        regions, _, peak = in_this_process(name, work, folder, size, *arguments)
        assert peak > 2**20
        return regions, *((10 << 20, 110 << 20) if size == "small" else (50 << 20, 170 << 20))

    ticks = (tick**2 for tick in count())  # what is timed later takes longer
    monkeypatch.setattr(million, "in_a_process", build)
    monkeypatch.setattr(million, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(million, "ROUNDS", 1)
    figures = million.measure(tmp_path, images=1200, rows_per_shard=64)
    assert {name: (figure.value, figure.target, figure.better) for name, figure in figures.items()} == {
        "open_1e6_s": (5, 1.0, "lower"),
        "resume_scan_1e6_s": (9, 10.0, "lower"),
        "memory_1e6_vs_1e5": (1.2, 1.3, "lower"),
    }
    assert "peak 170 MiB, table 50 MiB" in figures["memory_1e6_vs_1e5"].note
    assert list(tmp_path.iterdir()) == []


def test_a_mostly_built_cache_lacks_every_tenth_shard(tmp_path: Path) -> None:
    table = million.write_table(tmp_path / "table", 1200)
    million.mostly_built(tmp_path / "cache", table)
    shards = range(-(-len(table) // 256))
    for name in TEACHER_ARRAYS:
        folder = tmp_path / "cache" / name
        assert done_shards(folder) == {shard for shard in shards if shard % 10 != 9}
        full = (folder / "c.0.0").stat()
        assert full.st_size == 256 * ShardRows(folder, ShardPlan(len(table), 256)).dim * 2 + 8 * 4 + 8 * 16 + 4
        assert full.st_blocks == 0, "the file takes no room"
