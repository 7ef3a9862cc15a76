"""CachedTargets: the targets of all regions as the training loop reads them, mapped from the shard files.

Nothing is copied into memory: every loader worker, and every process of a distributed run, maps the same files, and the
system's page cache holds them once. The checksums are verified when the cache hands the targets out, not per read.
Legend: N regions, d width, S rows per shard, C rows per chunk, n rows asked for.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.store.layout import CHUNK_ROWS, ShardPlan, shard_path
from mocha_pipe.teacher_cache.store.shard_file import CHECKSUM, ITEM


class CachedTargets:
    """Whitened targets by row (a `data.types.RegionTargets`). Pickles as the names of its files."""

    def __init__(self, folder: Path, plan: ShardPlan, dim: int, set_aside: NDArray[np.int64]) -> None:
        """Map the files of an array in our layout, complete and verified.

        Args:
            folder: of the array.
            plan: its rows and shards.
            dim: d.
            set_aside: rows that have no target, ascending.
        """
        self.dim = dim
        self.set_aside = set_aside
        self._folder, self._plan = folder, plan
        self._shards = [self._map(shard) for shard in range(len(plan))]

    def __reduce__(self) -> tuple[type["CachedTargets"], tuple[Path, ShardPlan, int, NDArray[np.int64]]]:
        return CachedTargets, (self._folder, self._plan, self.dim, self.set_aside)

    def __len__(self) -> int:
        """N, the number of rows."""
        return self._plan.rows

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:  # (n,) -> (n, dim)
        """Targets of the given rows, in their order; NaN for a row that was set aside.

        Raises:
            IndexError: a row is outside the table.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            outside = int(rows[(rows < 0) | (rows >= len(self))][0])
            raise IndexError(f"rows of the targets run from 0 to {len(self) - 1}; asked for {outside}")
        values_nd = np.empty((len(rows), self.dim), np.float32)
        shards, places = np.divmod(rows, self._plan.rows_per_shard)
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            values_nd[here] = self._shards[shard][np.divmod(places[here], CHUNK_ROWS)]
        return values_nd

    def _map(self, shard: int) -> NDArray[np.float16]:  # (chunks, C, d)
        """The rows of one file, past the checksums between its chunks."""
        start, stop = self._plan.span(shard)
        path = shard_path(self._folder, shard)
        # Not np.memmap: Python's mmap keeps a descriptor per file, and a large cache has more files than descriptors.
        content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).numpy()
        chunk_bytes = CHUNK_ROWS * self.dim * ITEM + CHECKSUM
        num_chunks = -(-(stop - start) // CHUNK_ROWS)
        rows = content[: num_chunks * chunk_bytes].view(np.float16)
        strides = (chunk_bytes, self.dim * ITEM, ITEM)
        return as_strided(rows, (num_chunks, CHUNK_ROWS, self.dim), strides, writeable=False)
