"""RegionCache: an existing cache, opened only when it holds what the caller expects."""

import hashlib
import json
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.regions import RegionTable
from teacher_cache.errors import (
    CacheCorruptError,
    CacheFormatError,
    CacheIncompleteError,
    CacheMismatchError,
    CacheNotFoundError,
    build_command,
)
from teacher_cache.layout import FORMAT_NAME, FORMAT_VERSION, TEACHER_ARRAYS, ShardPlan
from teacher_cache.projection import Projection
from teacher_cache.reader import ShardRows
from teacher_cache.spec import TeacherSpec

PROJECTION_NAME = "projection.safetensors"
ARRAYS = (*TEACHER_ARRAYS, "targets")


class CachedTargets:
    """Whitened targets of all regions in memory (a `data.types.RegionTargets`)."""

    def __init__(self, values: NDArray[np.float16]) -> None:  # (N, d)
        """Take the array over; it becomes read-only, so that worker processes share its pages."""
        values.setflags(write=False)
        self.values = values
        self.dim = values.shape[1]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.values)

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:  # (n,) -> (n, dim)
        """Targets of the given rows, in their order.

        Raises:
            IndexError: a row is outside the table.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            outside = int(rows[(rows < 0) | (rows >= len(self))][0])
            raise IndexError(f"rows of the targets run from 0 to {len(self) - 1}; asked for {outside}")
        return self.values[rows].astype(np.float32)


class RegionCache:
    """One cache folder. Reading its parts raises where they are missing or damaged; nothing is filled in."""

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        """Use `open`."""
        self.path = path
        self.spec = TeacherSpec.from_json(attributes["teacher"])
        self.table_digest: str = attributes["table_digest"]
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
            CacheCorruptError: it lacks the description of an array.
            CacheMismatchError: teacher or regions are not the expected ones.
        """
        cache = cls(path, _read_attributes(path))
        for name in TEACHER_ARRAYS:
            if not cache.has(name):
                raise CacheCorruptError(
                    f"{path / name / 'zarr.json'} is missing; restore it, or name another folder with --cache"
                )
        differences = [] if expect_spec is None else cache.spec.differences(expect_spec)
        if expect_table is not None and expect_table.digest != cache.table_digest:
            differences += _table_differences(cache.table, expect_table)
        if differences:
            raise CacheMismatchError(
                f"cache {path} was made from something else: {'; '.join(differences)}; name another folder with --cache"
            )
        return cache

    @cached_property
    def table(self) -> RegionTable:
        """The regions, one per row.

        Raises:
            CacheCorruptError: its files are not the ones that the cache was made with.
        """
        table = RegionTable.read(self.path)
        if table.digest != self.table_digest:
            raise CacheCorruptError(
                f"the region table in {self.path} is not the one that the cache was made with (digest {table.digest}, "
                f"expected {self.table_digest}); restore images.parquet and regions.parquet, "
                "or name another folder with --cache"
            )
        return table

    def has(self, name: str) -> bool:
        """Whether an array was created, with or without shards."""
        return (self.path / name / "zarr.json").is_file()

    def rows(self, name: str) -> ShardRows:
        """Reader of the rows of `hidden`, `visual` or `targets`; keep it, as it remembers what it has checked.

        Raises:
            CacheIncompleteError: the array has not been created.
        """
        assert name in ARRAYS
        if not self.has(name):
            raise CacheIncompleteError(
                f"cache {self.path} has no array '{name}' yet; compute it with `{build_command(self.path)}`"
            )
        return ShardRows(self.path / name)

    def missing_teacher_shards(self) -> tuple[int, ...]:
        """Shards that lack in `hidden` or in `visual`: the teacher's work that is left."""
        lacking = {shard for name in TEACHER_ARRAYS for shard in self.rows(name).missing()}
        return tuple(sorted(lacking))

    def projection(self) -> Projection:
        """The map from teacher embeddings to targets.

        Raises:
            CacheIncompleteError: it has not been computed.
            CacheCorruptError: its file is damaged.
        """
        if not (self.path / PROJECTION_NAME).is_file():
            raise CacheIncompleteError(
                f"cache {self.path} has no {PROJECTION_NAME} yet; compute it with `{build_command(self.path)}`"
            )
        return Projection.load(self.path / PROJECTION_NAME)

    def has_current_targets(self) -> bool:
        """Whether the array `targets` exists and belongs to the projection beside it; shards may be missing."""
        projection = self.path / PROJECTION_NAME
        if not (projection.is_file() and self.has("targets")):
            return False
        attributes = json.loads((self.path / "targets" / "zarr.json").read_bytes()).get("attributes", {})
        return bool(attributes.get("projection_digest") == file_digest(projection))

    @property
    def is_complete(self) -> bool:
        """Whether every shard of every array is there and the targets belong to the projection."""
        return not self.missing_teacher_shards() and self.has_current_targets() and not self.rows("targets").missing()

    def targets(self) -> CachedTargets:
        """All targets, every checksum verified, in memory (2 N d bytes).

        Raises:
            CacheIncompleteError: they have not been computed, or not all.
            CacheCorruptError: a file is damaged.
        """
        if not self.has_current_targets():
            raise CacheIncompleteError(
                f"cache {self.path} has no targets of its present projection yet; "
                f"compute them with `{build_command(self.path)}`"
            )
        reader = self.rows("targets")
        values = np.empty((len(reader), reader.dim), np.float16)
        for shard in range(len(reader.plan)):
            start, stop = reader.plan.span(shard)
            values[start:stop] = reader.block(start, stop)
        return CachedTargets(values)

    def info(self) -> dict[str, Any]:
        """What the cache is and how far it has come, as json values."""
        projection = self.projection() if (self.path / PROJECTION_NAME).is_file() else None
        return {
            "path": str(self.path),
            "complete": self.is_complete,
            "rows": self.plan.rows,
            "rows_per_shard": self.plan.rows_per_shard,
            "arrays": {name: self._array_info(name) for name in ARRAYS if self.has(name)},
            "bytes": folder_bytes(self.path),
            "dim": projection.dim if projection else None,
            "explained_variance": projection.explained_variance if projection else None,
            "teacher": self.spec.to_json(),
            "teacher_digest": self.spec.digest(),
            "table_digest": self.table_digest,
            "format_version": self._attributes["format_version"],
            "versions": self._attributes["versions"],
        }

    def _array_info(self, name: str) -> dict[str, int]:
        reader = self.rows(name)
        return {
            "dim": reader.dim,
            "shards_done": len(reader.plan) - len(reader.missing()),
            "shards_total": len(reader.plan),
            "bytes": folder_bytes(self.path / name),
        }


def file_digest(path: Path) -> str:
    """Hex of blake2b-16 over a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _read_attributes(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CacheNotFoundError(f"there is no teacher cache at {path}; make it with `{build_command(path)}`")
    try:
        attributes: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())["attributes"]
        is_ours = attributes["format"] == FORMAT_NAME
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise CacheFormatError(f"{path} holds something else than a teacher cache; name another folder with --cache")
    if attributes["format_version"] != FORMAT_VERSION:
        raise CacheFormatError(
            f"this mocha-pipe reads caches of format version {FORMAT_VERSION}; {path} has version "
            f"{attributes['format_version']}; use the mocha-pipe that wrote it, or name another folder with --cache"
        )
    return attributes


def _table_differences(cached: RegionTable, expected: RegionTable) -> list[str]:
    found = []
    for class_id, (name, other) in enumerate(zip_longest(cached.class_names, expected.class_names)):
        if name != other:
            found.append(f"class {class_id}: cache has {_quoted(name)}, expected {_quoted(other)}")
            break
    keys, counts = np.unique(cached.keys, return_counts=True)
    other_keys, other_counts = np.unique(expected.keys, return_counts=True)
    _, mine, theirs = np.intersect1d(keys, other_keys, assume_unique=True, return_indices=True)
    num_differing = max(len(cached), len(expected)) - int(np.minimum(counts[mine], other_counts[theirs]).sum())
    if num_differing:
        found.append(f"table: {num_differing} regions differ (cache has {len(cached)}, expected {len(expected)})")
    elif not np.array_equal(cached.keys, expected.keys):
        found.append("table: the same regions in another order")
    return found


def _quoted(name: str | None) -> str:
    return "none" if name is None else repr(name)
