"""Rows that another cache already holds: equal key and equal teacher mean equal embedding, so they are copied."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.errors import mend_advice
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.quarantine import require_listed

NOT_THERE = -1


class Donor:
    """A cache that rows are copied from; it may be incomplete."""

    def __init__(self, folder: Path, spec: TeacherSpec) -> None:
        """Open it and sort its keys.

        Raises:
            CacheNotFoundError, CacheFormatError, CacheCorruptError: there is no cache that can be read.
            CacheMismatchError: another teacher made it.
        """
        cache = RegionCache.open(folder, expect_spec=spec)
        self._readers = {name: cache.rows(name) for name in cache.spec.arrays}
        row_is_there = np.ones(len(cache.table), bool)
        for shard in cache.missing_teacher_shards():
            row_is_there[slice(*cache.plan.span(shard))] = False
        row_is_there[[region.row for region in cache.quarantine()]] = False
        rows = np.flatnonzero(row_is_there)
        order = np.argsort(cache.table.keys[rows], kind="stable")
        self._rows = rows[order]
        self._keys = cache.table.keys[self._rows]

    def find(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:  # (n,) S32 -> (n,)
        """Row of each key in this cache; `NOT_THERE` where it has none."""
        if not len(self._keys):
            return np.full(len(keys), NOT_THERE)
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[places] == keys, self._rows[places], NOT_THERE)

    def read(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float16]]:  # (n,) -> name: (n, D)
        """Rows of each of the teacher's arrays, their checksums verified.

        Raises:
            CacheCorruptError: a shard file is damaged, or has rows without numbers that no list names.
        """
        values = {name: reader.verified(rows) for name, reader in self._readers.items()}
        for name, found in values.items():
            folder = self._readers[name].folder
            require_listed(found, 0, (), f"array {folder}", mend_advice(folder.parent))
        return values
