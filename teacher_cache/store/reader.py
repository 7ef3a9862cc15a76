"""ShardRows: rows of one cached array, read straight from the shard files.

zarr takes 20 to 50 ms to read the rows of a training step, mapped shard files give them in 0.1 ms.
Where another program wrote the array in a layout of its own, zarr reads it.
Legend: N rows, D width, S rows per shard, n rows asked for.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheIncompleteError,
    build_command,
    mend_advice,
)
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION, read_layout
from mocha_pipe.teacher_cache.store.disk import reading
from mocha_pipe.teacher_cache.store.layout import CHUNK_ROWS, ShardPlan, shard_path, whole_shards
from mocha_pipe.teacher_cache.store.quarantine import read_set_aside
from mocha_pipe.teacher_cache.store.shard_file import ShardFile

Read = TypeVar("Read")


class ShardRows:
    """Rows of one array of a cache, as float16. Safe to use from threads, after a fork, and through pickle."""

    def __init__(self, folder: Path, plan: ShardPlan) -> None:
        """Read the array's description; shards are opened when they are first asked for.

        Args:
            folder: of the array.
            plan: rows and shards of the cache.

        Raises:
            CacheCorruptError: the array's description is damaged, missing, or of another array.
        """
        self.folder, self.plan = folder, plan
        self.layout = read_layout(folder, plan)
        if self.layout.kind == "unreadable":
            finding = self.layout.finding
            raise CacheCorruptError.of(folder / DESCRIPTION, finding, mend_advice(folder.parent))
        self.dim = self.layout.dim
        self._mapped: dict[int, NDArray[np.float16] | None] = {}

    def __len__(self) -> int:
        """N, the number of rows."""
        return self.plan.rows

    def __reduce__(self) -> tuple[type["ShardRows"], tuple[Path, ShardPlan]]:
        return ShardRows, (self.folder, self.plan)

    def missing(self) -> tuple[int, ...]:
        """Shards that lack a file in its full size.

        Raises:
            CacheIncompleteError: such a file is a link to what is not on this disk.
        """
        if not self.layout.is_ours:
            set_aside = [region.row for region in read_set_aside(self.folder.parent)]
            return self.layout.missing(lambda name: (self.folder / name).is_file(), set_aside)
        lacking = tuple(sorted({*range(len(self.plan))} - whole_shards(self.folder, self.plan, self.dim)))
        for shard in lacking:
            path = shard_path(self.folder, shard)
            if path.is_symlink():
                with reading(path, self.folder.parent):
                    path.stat()
        return lacking

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:  # (n,) -> (n, D)
        """Rows in the order asked for. Checks each shard's size and index once, not the rows' own checksums.

        Raises:
            IndexError: a row is outside the array.
            CacheIncompleteError: a shard has not been computed.
            CacheCorruptError: a shard file is damaged.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            outside = int(rows[(rows < 0) | (rows >= len(self))][0])
            raise IndexError(f"rows of '{self.folder.name}' run from 0 to {len(self) - 1}; asked for {outside}")
        values_nD = np.empty((len(rows), self.dim), np.float16)
        for first, last in _runs(rows, CHUNK_ROWS if self.layout.is_ours else self.plan.rows_per_shard):
            row, count = int(rows[first]), last - first
            shard, row_in_shard = divmod(row, self.plan.rows_per_shard)
            mapped = self.mapped(shard)
            if mapped is None:
                values_nD[first:last] = self._through_zarr(row, row + count)
            else:
                chunk, place = divmod(row_in_shard, CHUNK_ROWS)
                values_nD[first:last] = mapped[chunk, place : place + count]
        return values_nD

    def verified(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:  # (n,) -> (n, D)
        """Rows in the order asked for, with every checksum of their shards verified; one shard in memory at a time.

        Raises:
            CacheIncompleteError: a shard has not been computed.
            CacheCorruptError: a shard file is damaged.
        """
        values_nD = np.empty((len(rows), self.dim), np.float16)
        shards, rows_in_shard = np.divmod(rows, self.plan.rows_per_shard)
        for shard in np.unique(shards).tolist():
            is_here = shards == shard
            values_nD[is_here] = self._verified_shard(shard)[rows_in_shard[is_here]]
        return values_nD

    def block(self, start: int, stop: int) -> NDArray[np.float16]:  # (stop - start, D)
        """Consecutive rows with every checksum verified; fastest where they are whole shards.

        Raises:
            CacheIncompleteError: a shard has not been computed.
            CacheCorruptError: a shard file is damaged.
        """
        assert 0 <= start < stop <= len(self)
        size = self.plan.rows_per_shard
        parts = [self._verified_shard(shard) for shard in range(start // size, (stop - 1) // size + 1)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return whole[start % size : start % size + stop - start]

    def pieces(self, shard: int) -> Iterator[NDArray[np.float16]]:  # (..., D)
        """The rows of a shard in their order, as `ShardFile.pieces` gives them; in one piece where zarr reads them.

        Raises:
            CacheIncompleteError: it has not been computed.
            CacheCorruptError: its file is damaged.
        """
        pieces = self._from_file(shard, ShardFile.pieces)
        return iter([self._through_zarr(*self.plan.span(shard))]) if pieces is None else pieces

    def mapped(self, shard: int) -> NDArray[np.float16] | None:  # (chunks, C, D)
        """A shard's rows as `ShardFile.map` gives them, mapped once; None where zarr has to read them.

        Raises:
            CacheIncompleteError: it has not been computed.
            CacheCorruptError: its index is damaged.
        """
        if shard not in self._mapped:
            self._mapped[shard] = self._from_file(shard, ShardFile.map)
        return self._mapped[shard]

    def _verified_shard(self, shard: int) -> NDArray[np.float16]:
        rows = self._from_file(shard, ShardFile.read)
        return self._through_zarr(*self.plan.span(shard)) if rows is None else rows

    def _from_file(self, shard: int, read: Callable[[ShardFile], Read | None]) -> Read | None:
        if not self.layout.is_ours:
            return None
        try:
            return read(ShardFile(shard_path(self.folder, shard), self.plan, shard, self.dim))
        except CacheIncompleteError:  # a link to what is not on this disk
            raise
        except FileNotFoundError:
            raise self._not_there(shard) from None

    def _through_zarr(self, start: int, stop: int) -> NDArray[np.float16]:
        """Rows start to stop by zarr's own reader, which fills in numbers where a file is not there."""
        shard = start // self.plan.rows_per_shard
        if not self.layout.is_ours and shard in self._lacking:
            raise self._not_there(shard)
        try:
            return np.asarray(zarr.open_array(self.folder, mode="r")[start:stop], np.float16)
        except Exception as error:  # on a damaged file zarr lets through whatever its codecs meet
            remedy = "restore its files from a sound copy, or name another folder with --cache"
            raise CacheCorruptError.of(f"array {self.folder}", first_line(error), remedy) from error

    @cached_property
    def _lacking(self) -> frozenset[int]:
        return frozenset(self.missing())

    def _not_there(self, shard: int) -> CacheIncompleteError:
        first, stop = self.plan.span(shard)
        return CacheIncompleteError(
            f"shard {shard} of '{self.folder.name}' (rows {first} to {stop - 1}) is not in the cache "
            f"{self.folder.parent}; compute it with `{build_command(self.folder.parent)}`"
        )


def _runs(rows: NDArray[np.int64], chunk_rows: int) -> Iterator[tuple[int, int]]:
    """Spans of `rows` that ascend by one and stay in one chunk: what a single read can fetch."""
    if len(rows) == 0:
        return
    breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % chunk_rows == 0)) + 1
    bounds = [0, *breaks.tolist(), len(rows)]
    yield from pairwise(bounds)
