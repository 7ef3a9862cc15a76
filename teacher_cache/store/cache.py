"""RegionCache: an existing cache, opened only when it holds what the caller expects."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mocha_pipe.data.errors import DatasetError, first_line, quoted
from mocha_pipe.data.files import file_digest
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheFormatError,
    CacheIncompleteError,
    CacheMismatchError,
    build_command,
    mend_advice,
    relayout_advice,
)
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.array_layout import require_own_layout
from mocha_pipe.teacher_cache.store.attributes import read_attributes
from mocha_pipe.teacher_cache.store.differences import table_differences
from mocha_pipe.teacher_cache.store.disk import reading
from mocha_pipe.teacher_cache.store.layout import (
    TEACHER_ARRAYS,
    ShardPlan,
    has_shard,
    shard_path,
)
from mocha_pipe.teacher_cache.store.projection import Projection
from mocha_pipe.teacher_cache.store.quarantine import SetAside, read_set_aside, require_listed
from mocha_pipe.teacher_cache.store.reader import ShardRows
from mocha_pipe.teacher_cache.store.targets import CachedTargets

PROJECTION_NAME = "projection.safetensors"
ARRAYS = (*TEACHER_ARRAYS, "targets")


class RegionCache:
    """One cache folder. Reading its parts raises where they are missing or damaged; nothing is filled in."""

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        """Use `open`."""
        self.path = path
        self.spec = TeacherSpec.from_json(attributes["teacher"])
        self.teacher_digest: str = attributes["teacher_digest"]
        self.table_digest: str = attributes["table_digest"]
        self.table_files: dict[str, str] = attributes["table_files"]
        self.plan = ShardPlan(attributes["rows"], attributes["rows_per_shard"])
        self._attributes = attributes

    @classmethod
    def open(
        cls, path: Path, *, expect_spec: TeacherSpec | None = None, expect_table: RegionTable | None = None
    ) -> "RegionCache":
        """Open a cache, complete or not.

        Args:
            path: the cache's folder.
            expect_spec: the teacher that must have made it; None takes any.
            expect_table: the regions that it must hold; None takes any.

        Raises:
            CacheNotFoundError: there is nothing at `path`.
            CacheFormatError: what is there is no cache, or one of another version.
            CacheCorruptError: its description is damaged.
            CacheMismatchError: teacher or regions are not the expected ones.
        """
        cache = cls(path, read_attributes(path))
        differences = [] if expect_spec is None else cache.spec.differences(expect_spec)
        if expect_table is not None and expect_table.digest != cache.table_digest:
            differences += table_differences(cache.table, expect_table)
        if differences:
            raise CacheMismatchError(
                f"cache {path} was made from something else: {'; '.join(differences)}; name another folder with "
                f"--cache, and copy what is equal from this one with --reuse {quoted(path)}"
            )
        return cache

    @cached_property
    def table(self) -> RegionTable:
        """The regions, one per row.

        Raises:
            CacheCorruptError: its files are not the ones that the cache was made with.
            CacheIncompleteError: one of them is a link to what is not on this disk.
        """
        for path in (self.path / file for file in self.table_files):
            if os.path.lexists(path):
                with reading(path, self.path):
                    path.open("rb").close()
        try:
            table = RegionTable.read(self.path)
        except (DatasetError, OSError) as error:
            what = f"the region table in {self.path}"
            raise CacheCorruptError.of(what, first_line(error).partition("; ")[0], mend_advice(self.path)) from error
        if table.digest != self.table_digest:
            finding = f"it is of other regions (digest {table.digest}, expected {self.table_digest})"
            raise CacheCorruptError.of(f"the region table in {self.path}", finding, mend_advice(self.path))
        return table

    def has(self, name: str) -> bool:
        """Whether an array was created, with or without shards."""
        return os.path.lexists(self.path / name / "zarr.json")

    def rows(self, name: str) -> ShardRows:
        """Reader of the rows of `hidden`, `visual` or `targets`; keep it, as it remembers what it has checked.

        Raises:
            CacheIncompleteError: the array has not been created, or the teacher gives none.
            CacheCorruptError: its description is damaged or lost.
        """
        assert name in ARRAYS
        if name in TEACHER_ARRAYS and name not in self.spec.arrays:
            raise CacheIncompleteError(
                f"the teacher of cache {self.path} gives the array '{' and '.join(self.spec.arrays)}' alone; asked for "
                f"'{name}'; build another cache with a LLaVA: mocha-pipe cache build --teacher llava-hf/llava-1.5-7b-hf"
            )
        if name == "targets" and not self.has(name):
            raise self._lacks(f"array '{name}'")
        return ShardRows(self.path / name, self.plan)

    def missing_teacher_shards(self) -> tuple[int, ...]:
        """Shards that lack in an array of the teacher's: its work that is left."""
        lacking = {shard for name in self.spec.arrays for shard in self.rows(name).missing()}
        return tuple(sorted(lacking))

    def has_teacher_shard(self, shard: int) -> bool:
        """Whether a shard is done: present in every array that the teacher gives."""
        return all(has_shard(self.path / name, self.plan, shard, dim) for name, dim in self.spec.arrays.items())

    def require_own_layout(self) -> None:
        """Refuse to write where another program laid an array out anew.

        Raises:
            CacheFormatError: an array is in such a layout.
            CacheCorruptError: the description of one is damaged or lost.
        """
        for name in (*self.spec.arrays, "targets"):
            if name != "targets" or self.has(name):
                require_own_layout(str(self.path), name, self.rows(name).layout)

    def require_listed(self, name: str) -> None:
        """Refuse rows without numbers that no list names, as the first number of each row tells.

        Args:
            name: of an array.

        Raises:
            CacheCorruptError: there is such a row, or a list is damaged.
        """
        reader, set_aside = self.rows(name), {region.row for region in self.quarantine()}
        for shard in {*range(len(self.plan))} - {*reader.missing()}:
            start, stop = self.plan.span(shard)
            require_listed(
                reader.lookup(np.arange(start, stop))[:, :1],
                start,
                set_aside,
                shard_path(reader.folder, shard),
                mend_advice(self.path),
            )

    def projection(self) -> Projection:
        """The map from teacher embeddings to targets.

        Raises:
            CacheIncompleteError: it has not been computed.
            CacheCorruptError: its file is damaged.
        """
        if not (self.path / PROJECTION_NAME).is_file():
            raise self._lacks(PROJECTION_NAME)
        return Projection.load(self.path / PROJECTION_NAME)

    def quarantine(self) -> tuple[SetAside, ...]:
        """Regions that have no embedding, and why, by ascending row.

        Raises:
            CacheCorruptError: a list is damaged.
        """
        return read_set_aside(self.path)

    @property
    def projection_digest(self) -> str:
        """Digest of the projection that the targets were made with.

        Raises:
            CacheIncompleteError: there are no targets yet.
            CacheFormatError: their description is of something else.
        """
        if not self.has("targets"):
            raise self._lacks("targets of its present projection")
        return str(self.rows("targets").layout.attributes.get("projection_digest"))

    def has_current_targets(self) -> bool:
        """Whether the array `targets` exists and belongs to the projection beside it; shards may be missing.

        A copy that took the targets only has no projection, and no shard of the teacher's arrays either.
        """
        projection = self.path / PROJECTION_NAME
        if not self.has("targets"):
            return False
        if not projection.is_file():
            return len(self.missing_teacher_shards()) == len(self.plan)
        return self.projection_digest == file_digest(projection)

    @property
    def is_complete(self) -> bool:
        """Whether every shard of every array is there and the targets belong to the projection."""
        return not self.missing_teacher_shards() and self.has_current_targets() and not self.rows("targets").missing()

    def targets(self) -> CachedTargets:
        """All targets, every checksum verified, mapped from their files.

        Raises:
            CacheIncompleteError: they have not been computed, or not all.
            CacheCorruptError: a file is damaged.
            CacheFormatError: another program rewrote them in another layout.
        """
        if not self.has_current_targets():
            raise self._lacks("targets of its present projection")
        reader = self.rows("targets")
        if not reader.layout.is_ours:
            raise CacheFormatError(
                f"training maps targets in the layout that mocha-pipe writes; {reader.folder} is "
                f"{reader.layout.finding}; {relayout_advice(str(self.path))}, then use that"
            )
        set_aside = np.array([region.row for region in self.quarantine()], np.int64)
        for shard in range(len(reader.plan)):
            start, stop = reader.plan.span(shard)
            file, remedy = shard_path(reader.folder, shard), mend_advice(self.path)
            require_listed(reader.block(start, stop), start, set_aside.tolist(), file, remedy)
        return CachedTargets(reader, set_aside)

    def _lacks(self, what: str) -> CacheIncompleteError:
        # No teacher says what was rounded.
        command = (
            f"mocha-pipe cache pull ARCHIVE {quoted(self.path)}" if self.spec.rounding else build_command(self.path)
        )
        return CacheIncompleteError(f"cache {self.path} has no {what} yet; complete it with `{command}`")

    def require_lists(self) -> None:
        """Refuse a cache whose lists of what was set aside are damaged or lost; the rows are seldom looked at for it.

        Raises:
            CacheCorruptError: a list is damaged or lost, or the projection is damaged.
        """
        self._require_lists(self._projection_if_there(), len(self.quarantine()))

    def _require_lists(self, projection: Projection | None, set_aside: int) -> None:
        # The projection knows how many rows had numbers. Only where that is another one the rows have to be looked at.
        if self.has("targets") and (projection is None or projection.rows + set_aside != self.plan.rows):
            self.require_listed("targets")

    def _projection_if_there(self) -> Projection | None:
        return self.projection() if (self.path / PROJECTION_NAME).is_file() else None

    def info(self) -> dict[str, Any]:
        """What the cache is and how far it has come, as json values.

        Raises:
            CacheCorruptError: a description or a list is damaged, or a list is lost.
        """
        projection, set_aside = self._projection_if_there(), self.quarantine()
        self._require_lists(projection, len(set_aside))
        return {
            "path": str(self.path),
            "complete": self.is_complete,
            "rows": self.plan.rows,
            "rows_per_shard": self.plan.rows_per_shard,
            "arrays": {name: self._array_info(name) for name in (*self.spec.arrays, "targets") if self.has(name)},
            "bytes": folder_bytes(self.path),
            "dim": self.rows("targets").dim if self.has("targets") else None,
            "explained_variance": projection.explained_variance if projection else None,
            "set_aside": len(set_aside),
            "teacher": self.spec.to_json(),
            "teacher_digest": self.teacher_digest,
            "table_digest": self.table_digest,
            "format_version": self._attributes["format_version"],
            "versions": self._attributes["versions"],
        }

    def _array_info(self, name: str) -> dict[str, Any]:
        reader = self.rows(name)
        return {
            "dim": reader.dim,
            "shards_done": len(reader.plan) - len(reader.missing()),
            "shards_total": len(reader.plan),
            "bytes": folder_bytes(self.path / name),
            "layout": reader.layout.finding or "ours",
        }


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
