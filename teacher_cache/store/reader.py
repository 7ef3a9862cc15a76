"""ShardRows: rows of one cached array, read straight from the shard files.

zarr's own reading takes 20 to 50 ms for the rows of a training step, positioned reads of the same files 0.1 to 0.25 ms.
Without compression, chunk c of a shard lies at c * (C * D * 2 + 4); that is checked against the shard's index the first
time a shard is touched. Where it does not hold, because another program wrote the array, zarr reads it.
Legend: N rows, D width, S rows per shard, C rows per chunk, n rows asked for.
"""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError, CacheIncompleteError, build_command
from mocha_pipe.teacher_cache.store.layout import CHUNK_ROWS, ShardPlan, done_shards, shard_path
from mocha_pipe.teacher_cache.store.shard_file import CHECKSUM, ITEM, check_chunks, damaged_file, has_plain_index

OPEN_FILES = 256  # per array; three arrays stay below the usual limit of 1024 descriptors


@dataclass(slots=True)
class _OpenFiles:
    """What one process holds; a forked child gets a lock of its own, as it may inherit one that nobody frees."""

    process: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    descriptors: OrderedDict[int, int] = field(default_factory=OrderedDict)
    plain: dict[int, bool] = field(default_factory=dict)


class ShardRows:
    """Rows of one array of a cache, as float16. Safe to use from threads, after a fork, and through pickle."""

    def __init__(self, folder: Path) -> None:
        """Read the array's metadata; shards are opened when they are first asked for.

        Raises:
            CacheFormatError: the folder is not a two-dimensional float16 Zarr v3 array.
        """
        self.folder = folder
        metadata = _read_metadata(folder)
        rows, dim = metadata["shape"]
        self.dim: int = dim
        self.plan = ShardPlan(rows, metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._chunk_rows = _chunk_rows(metadata, self.dim)
        self._open = _OpenFiles()

    def __len__(self) -> int:
        """N, the number of rows."""
        return self.plan.rows

    def __reduce__(self) -> tuple[type["ShardRows"], tuple[Path]]:
        return ShardRows, (self.folder,)

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def close(self) -> None:
        """Give the file descriptors back; the next read opens what it needs."""
        descriptors = self._open.descriptors
        self._open = _OpenFiles()
        for descriptor in descriptors.values():
            os.close(descriptor)

    def missing(self) -> tuple[int, ...]:
        """Shards without a file; always empty for a layout that is not ours, whose gaps show when they are read."""
        return () if self._chunk_rows is None else self.plan.missing(done_shards(self.folder))

    @property
    def is_plain(self) -> bool:
        """Whether the array is in our own layout, so that files can be read without zarr."""
        return self._chunk_rows == CHUNK_ROWS

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
        files = self._files()
        with files.lock:
            for first, last in _runs(rows, self._chunk_rows or self.plan.rows_per_shard):
                self._read_run(files, int(rows[first]), values_nD[first:last])
        return values_nD

    def check(self, shard: int) -> None:
        """Verify every checksum of a shard; of a layout that is not ours, what zarr verifies when it reads.

        Raises:
            CacheIncompleteError: it has not been computed.
            CacheCorruptError: its file is damaged.
        """
        self._verified_shard(shard)

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

    def _read_run(self, files: _OpenFiles, row: int, out_nD: NDArray[np.float16]) -> None:
        """Fill `out_nD` with the rows from `row` on, all of one chunk."""
        shard, row_in_shard = divmod(row, self.plan.rows_per_shard)
        descriptor = self._descriptor(files, shard) if self._chunk_rows else None
        if descriptor is None:
            out_nD[:] = self._through_zarr(row, row + len(out_nD))
            return
        assert self._chunk_rows is not None
        chunk, row_in_chunk = divmod(row_in_shard, self._chunk_rows)
        position = chunk * self._chunk_bytes + row_in_chunk * self.dim * ITEM
        if os.preadv(descriptor, [out_nD.data.cast("B")], position) != out_nD.nbytes:
            raise damaged_file(shard_path(self.folder, shard), "it became shorter while it was read")

    def _verified_shard(self, shard: int) -> NDArray[np.float16]:
        start, stop = self.plan.span(shard)
        files = self._files()
        with files.lock:
            descriptor = self._descriptor(files, shard) if self._chunk_rows else None
            if descriptor is None:
                return self._through_zarr(start, stop)
            assert self._chunk_rows is not None
            num_chunks = -(-(stop - start) // self._chunk_rows)
            chunks = np.empty((num_chunks, self._chunk_bytes), np.uint8)
            num_read = os.preadv(descriptor, [chunks.data.cast("B")], 0)
        if num_read != chunks.nbytes:
            raise damaged_file(shard_path(self.folder, shard), "it became shorter while it was read")
        check_chunks(chunks, shard_path(self.folder, shard))
        rows = np.ascontiguousarray(chunks[:, :-CHECKSUM]).view(np.float16)
        return rows.reshape(-1, self.dim)[: stop - start]

    @property
    def _chunk_bytes(self) -> int:
        assert self._chunk_rows is not None
        return self._chunk_rows * self.dim * ITEM + CHECKSUM

    def _files(self) -> _OpenFiles:
        if self._open.process != os.getpid():  # positioned reads share inherited descriptors without harm
            self._open = _OpenFiles(descriptors=self._open.descriptors, plain=self._open.plain)
        return self._open

    def _descriptor(self, files: _OpenFiles, shard: int) -> int | None:
        """An open descriptor of a shard file, checked; None when zarr has to read this shard."""
        if files.plain.get(shard) is False:
            return None
        if shard in files.descriptors:
            files.descriptors.move_to_end(shard)
            return files.descriptors[shard]
        try:
            descriptor = os.open(shard_path(self.folder, shard), os.O_RDONLY)
        except FileNotFoundError:
            raise self._not_there(shard) from None
        try:
            if shard not in files.plain:
                files.plain[shard] = self._is_plain(descriptor, shard)
        finally:
            if not files.plain.get(shard):
                os.close(descriptor)
        if not files.plain[shard]:
            return None
        files.descriptors[shard] = descriptor
        if len(files.descriptors) > OPEN_FILES:
            os.close(files.descriptors.popitem(last=False)[1])
        return descriptor

    def _is_plain(self, descriptor: int, shard: int) -> bool:
        assert self._chunk_rows is not None
        return has_plain_index(
            descriptor, shard_path(self.folder, shard), self.plan, shard, self._chunk_bytes, self._chunk_rows
        )

    def _through_zarr(self, start: int, stop: int) -> NDArray[np.float16]:
        """Rows start to stop by zarr's own reader, which returns NaN where there is nothing."""
        first, last = self.plan.span(start // self.plan.rows_per_shard)
        try:
            array = zarr.open_array(self.folder, mode="r")
            values = np.asarray(array[start:stop], np.float16)
            # Of another layout no file tells whether a shard is there; rows that were set aside hold NaN too.
            is_absent = np.isnan(values).all() and self._chunk_rows is None and np.isnan(array[first:last]).all()
        except ValueError as error:
            raise CacheCorruptError(
                f"array {self.folder} is damaged: {error}; restore its files, or name another folder with --cache"
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
    """Whether an array's `zarr.json` is as layout.py writes it for these rows and shards.

    Args:
        folder: of the array.
        plan: its rows and shards.
        dim: D; None takes what the description says.
    """
    try:
        zarr.open_array(folder, mode="r", zarr_format=3)  # refuses a field that it does not know
        document = json.loads((folder / "zarr.json").read_bytes())
        reader = ShardRows(folder)
    except Exception:  # on a damaged description zarr lets through whatever its parsing meets
        return False
    details = (document.get("fill_value"), document.get("dimension_names"))
    is_ours = reader.is_plain and reader.plan == plan and details == ("NaN", ["row", "feature"])
    return is_ours and dim in (None, reader.dim)


def _runs(rows: NDArray[np.int64], chunk_rows: int) -> Iterator[tuple[int, int]]:
    """Spans of `rows` that ascend by one and stay in one chunk: what a single read can fetch."""
    if len(rows) == 0:
        return
    breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % chunk_rows == 0)) + 1
    bounds = [0, *breaks.tolist(), len(rows)]
    yield from pairwise(bounds)


def _read_metadata(folder: Path) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads((folder / "zarr.json").read_bytes())
        is_ours = metadata["zarr_format"] == 3 and metadata["data_type"] == "float16" and len(metadata["shape"]) == 2
        is_ours = is_ours and len(metadata["chunk_grid"]["configuration"]["chunk_shape"]) == 2
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise CacheFormatError(
            f"an array of a teacher cache is a two-dimensional float16 Zarr v3 array; {folder} holds something else; "
            "name another folder with --cache"
        )
    return metadata


def _chunk_rows(metadata: dict[str, Any], dim: int) -> int | None:
    """C when the array is written the way layout.py writes it, else None."""
    checked = [("bytes", {"endian": "little"}), ("crc32c", {})]
    [(name, sharding), *more] = [_codec(entry) for entry in metadata["codecs"]]
    is_ours = (
        not more
        and name == "sharding_indexed"
        and _codec(metadata["chunk_key_encoding"]) == ("default", {"separator": "."})
        and metadata["chunk_grid"]["configuration"]["chunk_shape"][1] == dim
        and sharding["chunk_shape"][1] == dim
        and [_codec(entry) for entry in sharding["codecs"]] == checked
        and [_codec(entry) for entry in sharding["index_codecs"]] == checked
        and sharding.get("index_location", "end") == "end"
    )
    return int(sharding["chunk_shape"][0]) if is_ours else None


def _codec(entry: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and configuration of a Zarr extension, which may be written as its name alone."""
    return (entry, {}) if isinstance(entry, str) else (entry["name"], entry.get("configuration", {}))
