"""ShardRows: rows of one cached array, read straight from the shard files.

zarr takes 20 to 50 ms to read the rows of a training step, mapped shard files give them in 0.1 ms.
Where another program wrote the array in a layout of its own, zarr reads it.
Legend: N rows, D width, S rows per shard, n rows asked for.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from mocha_pipe.data.errors import first_line
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError, CacheIncompleteError, build_command
from mocha_pipe.teacher_cache.store.layout import (
    CHUNK_ROWS,
    MOST,
    ShardPlan,
    dimension_names,
    done_shards,
    shard_path,
)
from mocha_pipe.teacher_cache.store.shard_file import ShardFile

Read = TypeVar("Read")


class ShardRows:
    """Rows of one array of a cache, as float16. Safe to use from threads, after a fork, and through pickle."""

    def __init__(self, folder: Path) -> None:
        """Read the array's metadata; shards are opened when they are first asked for.

        Raises:
            CacheFormatError: the folder is not a two-dimensional float16 Zarr v3 array.
        """
        self.folder = folder
        metadata = read_metadata(folder)
        rows, dim = metadata["shape"]
        self.dim: int = dim
        self.plan = ShardPlan(rows, metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
        try:
            self.is_plain = _is_plain(metadata, dim)
        except (ValueError, LookupError, TypeError, AttributeError):  # codecs that are none
            self.is_plain = False
        """Whether the array is in our own layout, so that files can be read without zarr."""
        self._mapped: dict[int, NDArray[np.float16] | None] = {}

    def __len__(self) -> int:
        """N, the number of rows."""
        return self.plan.rows

    def __reduce__(self) -> tuple[type["ShardRows"], tuple[Path]]:
        return ShardRows, (self.folder,)

    def missing(self) -> tuple[int, ...]:
        """Shards without a file; always empty for a layout that is not ours, whose gaps show when they are read."""
        return tuple(sorted({*range(len(self.plan))} - done_shards(self.folder))) if self.is_plain else ()

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
        for first, last in _runs(rows, CHUNK_ROWS if self.is_plain else self.plan.rows_per_shard):
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
        if not self.is_plain:
            return None
        try:
            return read(ShardFile(shard_path(self.folder, shard), self.plan, shard, self.dim))
        except FileNotFoundError:
            raise self._not_there(shard) from None

    def _through_zarr(self, start: int, stop: int) -> NDArray[np.float16]:
        """Rows start to stop by zarr's own reader, which returns NaN where there is nothing."""
        first, last = self.plan.span(start // self.plan.rows_per_shard)
        try:
            array = zarr.open_array(self.folder, mode="r")
            values = np.asarray(array[start:stop], np.float16)
            # In another layout no file tells whether a shard is there. A shard without any number counts as absent;
            # single rows of NaN are regions that were set aside.
            is_absent = np.isnan(values).all() and not self.is_plain and np.isnan(array[first:last]).all()
        except Exception as error:  # on a damaged description zarr lets through whatever its parsing meets
            raise CacheCorruptError(
                f"array {self.folder} is damaged: {first_line(error)}; restore its files, or name another folder "
                "with --cache"
            ) from error
        if is_absent:
            raise self._not_there(start // self.plan.rows_per_shard)
        return values

    def _not_there(self, shard: int) -> CacheIncompleteError:
        first, stop = self.plan.span(shard)
        return CacheIncompleteError(
            f"shard {shard} of '{self.folder.name}' (rows {first} to {stop - 1}) is not in the cache "
            f"{self.folder.parent}; compute it with `{build_command(self.folder.parent)}`"
        )


def is_described(folder: Path, plan: ShardPlan, dim: int | None = None) -> bool:
    """Whether an array's `zarr.json` is as layout.py writes it for these rows, these shards and, if given, this D."""
    try:
        zarr.open_array(folder, mode="r", zarr_format=3)  # refuses a field that it does not know
        document = parse_json((folder / "zarr.json").read_bytes())
        reader = ShardRows(folder)
    except Exception:  # on a damaged description zarr lets through whatever its parsing meets
        return False
    is_ours = reader.is_plain and reader.plan == plan and document.get("fill_value") == "NaN"
    # Caches of before had one name for the widths of all arrays.
    is_ours = is_ours and document.get("dimension_names") in (["row", "feature"], [*dimension_names(folder.name)])
    return is_ours and dim in (None, reader.dim)


def _runs(rows: NDArray[np.int64], chunk_rows: int) -> Iterator[tuple[int, int]]:
    """Spans of `rows` that ascend by one and stay in one chunk: what a single read can fetch."""
    if len(rows) == 0:
        return
    breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % chunk_rows == 0)) + 1
    bounds = [0, *breaks.tolist(), len(rows)]
    yield from pairwise(bounds)


def read_metadata(folder: Path) -> dict[str, Any]:
    """What an array's `zarr.json` says.

    Raises:
        CacheFormatError: the folder is not a two-dimensional float16 Zarr v3 array.
    """
    try:
        metadata: dict[str, Any] = parse_json((folder / "zarr.json").read_bytes())
        is_ours = metadata["zarr_format"] == 3 and metadata["data_type"] == "float16" and len(metadata["shape"]) == 2
        sizes = (*metadata["shape"], *metadata["chunk_grid"]["configuration"]["chunk_shape"])
        is_ours = is_ours and len(sizes) == 4 and all(type(size) is int and size > 0 for size in sizes)
        is_ours = is_ours and max(sizes[1:]) <= MOST and sizes[0] <= MOST * sizes[2]
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise CacheFormatError(
            f"an array of a teacher cache is a two-dimensional float16 Zarr v3 array; {folder} holds something else; "
            "name another folder with --cache"
        )
    return metadata


def _is_plain(metadata: dict[str, Any], dim: int) -> bool:
    """Whether an array is written the way layout.py writes it."""
    checked = [("bytes", {"endian": "little"}), ("crc32c", {})]
    [(name, sharding), *more] = [_codec(entry) for entry in metadata["codecs"]]
    return (
        not more
        and name == "sharding_indexed"
        and _codec(metadata["chunk_key_encoding"]) == ("default", {"separator": "."})
        and metadata["chunk_grid"]["configuration"]["chunk_shape"][1] == dim
        and sharding["chunk_shape"] == [CHUNK_ROWS, dim]
        and [_codec(entry) for entry in sharding["codecs"]] == checked
        and [_codec(entry) for entry in sharding["index_codecs"]] == checked
        and sharding.get("index_location", "end") == "end"
    )


def _codec(entry: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and configuration of a Zarr extension, which may be written as its name alone."""
    return (entry, {}) if isinstance(entry, str) else (entry["name"], entry.get("configuration", {}))
