"""CachedTargets: the targets of all regions as the training loop reads them, mapped from the shard files.

Nothing is copied into memory: every loader worker, and every process of a distributed run, maps the same files, and the
system's page cache holds them once. `RegionCache.targets` verifies all checksums first, so that no read has to.
Legend: N regions, d width, n rows asked for.
"""

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.store.reader import ShardRows


class CachedTargets:
    """Whitened targets by row (a `data.types.RegionTargets`). Pickles as the name of its folder."""

    def __init__(self, reader: ShardRows, set_aside: NDArray[np.int64]) -> None:
        """Map every file now: a later build may replace them, and a run that has begun goes on with what it was given.

        Args:
            reader: of an array that is complete and verified.
            set_aside: rows that have no target, ascending.
        """
        self.dim = reader.dim
        self.set_aside = set_aside
        self._reader = reader
        for shard in range(len(reader.plan)):
            reader.mapped(shard)

    def __reduce__(self) -> tuple[type["CachedTargets"], tuple[ShardRows, NDArray[np.int64]]]:
        return CachedTargets, (self._reader, self.set_aside)

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self._reader)

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:  # (n,) -> (n, d)
        """Targets of the given rows, in their order; NaN for a row that was set aside.

        Raises:
            IndexError: a row is outside the table.
        """
        return self._reader.lookup(rows).astype(np.float32)
