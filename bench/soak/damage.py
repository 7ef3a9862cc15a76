"""Checks a cache while its builds are killed: no row may be lost, duplicated, torn or computed twice."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.soak.killing import World, committed
from bench.synthetic import Look, region_name
from mocha_pipe.teacher_cache.building.feed import CropFeed
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.store.cache import ARRAYS, RegionCache
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, done_shards, shard_path
from mocha_pipe.teacher_cache.store.reader import ShardRows


@dataclass(slots=True)
class Damage:
    """Rows with something wrong; all of these must stay zero."""

    lost: int = 0
    """Rows of shards that were there and are gone, or that a finished cache lacks."""
    duplicated: int = 0
    """Rows that hold the numbers of another region."""
    torn: int = 0
    """Rows of a file with its final name that hold anything else than an undisturbed build wrote."""
    recomputed_committed: int = 0
    """Rows of committed shards that were embedded or written again, or that two builds embedded side by side."""
    destroyed: int = 0
    """KiB of files that a transfer changed where it only had to read, or to refuse."""


def regions_by_name(world: World) -> dict[str, int]:
    """The row of each region by its name in a teacher's log; the first row, where several regions are equal."""
    table = world.table
    rows: dict[str, int] = {}
    with CropFeed(world.source, table, world.spec) as feed:
        for window in feed.windows(np.arange(len(table)), 256):
            for crop in window:
                if crop.pixels is not None:
                    name = region_name(crop.pixels, table.class_name(crop.row))
                    rows.setdefault(name, crop.row)
    return rows


@dataclass(slots=True, eq=False)
class Watch:
    """Watches one cache from its first build to its last, by comparison with the cache of an undisturbed build."""

    world: World
    folder: Path
    reference: Path
    damage: Damage
    _files: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Inode and time of the files of each committed shard that was seen."""
    _seen: dict[int, int] = field(default_factory=dict)
    """When each committed shard was seen first, on the clock that processes share."""

    def look(self) -> None:
        """Check what is committed now. What was seen before must be there unchanged, and every row be right."""
        if not self.folder.exists():
            return
        RegionCache.open(self.folder, expect_spec=self.world.spec, expect_table=self.world.table)
        done = committed(self.folder)
        now = time.monotonic_ns()  # after the listing: what it shows was embedded before
        for shard in self._files.keys() - done:
            self.damage.lost += self._rows(shard)
        files = {shard: [_identity(shard_path(self.folder / name, shard)) for name in TEACHER_ARRAYS] for shard in done}
        for shard, seen in self._files.items():
            self.damage.recomputed_committed += self._rows(shard) if files.get(shard, seen) != seen else 0
        self._files = files
        self._seen = dict.fromkeys(done, now) | self._seen
        for name in ARRAYS:
            for shard in sorted(done_shards(self.folder / name)):
                self._compare(name, shard)

    def _compare(self, name: str, shard: int) -> None:
        """Compare one shard's file with that of the undisturbed build, row by row."""
        if shard_path(self.folder / name, shard).read_bytes() == shard_path(self.reference / name, shard).read_bytes():
            return
        start, stop = self.world.plan.span(shard)
        try:
            found = ShardRows(self.folder / name, self.world.plan).block(start, stop)
        except CacheCorruptError:
            self.damage.torn += stop - start
            return
        expected = ShardRows(self.reference / name, self.world.plan).block(0, self.world.plan.rows)
        wrong = [row for row in range(start, stop) if found[row - start].tobytes() != expected[row].tobytes()]
        if wrong:
            known = {row.tobytes() for row in expected}
            doubled = sum(found[row - start].tobytes() in known for row in wrong)
            self.damage.duplicated += doubled
            self.damage.torn += len(wrong) - doubled

    def finish(self, looks: list[Look], regions: Mapping[str, int], died: Mapping[int, int]) -> None:
        """Check a cache whose last build ended by itself.

        Args:
            looks: what the teachers of all its builds logged.
            regions: from `regions_by_name`.
            died: when each killed process died; it lacks processes that ended by themselves.
        """
        self.look()
        ours, theirs = _content(self.folder), _content(self.reference)
        for name in theirs.keys() - ours.keys():
            self.damage.lost += self._rows_of(name)
        for name in ours.keys() & theirs.keys():
            if ours[name] != theirs[name] and not name.rpartition("/")[2].startswith("c."):  # shards: see `look`
                self.damage.torn += self._rows_of(name)
        self._check_log(looks, regions, died)

    def _check_log(self, looks: list[Look], regions: Mapping[str, int], died: Mapping[int, int]) -> None:
        """No process may embed a region that is committed, or that another live process embedded."""
        last: dict[int, Look] = {}
        for look in looks:
            row = regions[look.region]
            before = last.get(row)
            is_late = look.time_ns > self._seen[row // self.world.plan.rows_per_shard]
            is_twice = before is not None and died.get(before.process, look.time_ns) >= look.time_ns
            self.damage.recomputed_committed += is_late or is_twice
            last[row] = look
        embedded_never = set(regions.values()) - last.keys()
        self.damage.lost += len(embedded_never)

    def _rows(self, shard: int) -> int:
        start, stop = self.world.plan.span(shard)
        return stop - start

    def _rows_of(self, name: str) -> int:
        """How many rows a file is about: those of its shard, or all."""
        parts = name.rpartition("/")[2].split(".")
        return self._rows(int(parts[1])) if parts[0] == "c" else self.world.plan.rows


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _content(folder: Path) -> dict[str, bytes]:
    """Content of every file of a cache by name, without the partial files that killed builds left."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".partial" not in str(path.relative_to(folder))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
