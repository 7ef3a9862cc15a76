"""What a cache must look like while its builds are killed: nothing lost, doubled, torn or computed twice."""

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
    """What must stay zero, in rows of an array."""

    lost: int = 0
    """Of shards that were there and are gone, or that a finished cache lacks."""
    duplicated: int = 0
    """That hold the numbers of another region."""
    torn: int = 0
    """That hold anything else than an undisturbed build wrote, in a file that shows under its name."""
    recomputed_committed: int = 0
    """Of committed shards that were embedded or written again, or that two builds embedded side by side."""


def regions_by_name(world: World) -> dict[str, int]:
    """For each name in a teacher's log the first row of that region."""
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
    """One cache from its first build to its last, compared with an undisturbed one whenever a build was killed."""

    world: World
    folder: Path
    reference: Path
    damage: Damage
    _files: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Of each committed shard that was seen, the identity of its files."""
    _seen: dict[int, int] = field(default_factory=dict)
    """When it was seen first."""

    def look(self) -> None:
        """See what is committed now: nothing that was seen before may have gone or changed, and all must be right."""
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
        """One file that shows under its name, row by row with the undisturbed build's."""
        if shard_path(self.folder / name, shard).read_bytes() == shard_path(self.reference / name, shard).read_bytes():
            return
        start, stop = self.world.plan.span(shard)
        try:
            found = ShardRows(self.folder / name).block(start, stop)
        except CacheCorruptError:
            self.damage.torn += stop - start
            return
        expected = ShardRows(self.reference / name).block(0, self.world.plan.rows)
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
            regions: what they call a region, and its first row.
            died: when processes were killed; of a process that ended by itself nothing.
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
        """Nobody embeds a region that is committed, or that somebody else is at."""
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
        """Rows that hang on a file: those of its shard, or all."""
        parts = name.rpartition("/")[2].split(".")
        return self._rows(int(parts[1])) if parts[0] == "c" else self.world.plan.rows


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a cache by name; what a killed build left under a hidden name is none of it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".partial" not in str(path.relative_to(folder))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
