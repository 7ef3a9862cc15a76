"""What a transfer left at the other end is looked at once more, when all of it is there."""

import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mocha_pipe.teacher_cache.checking.verify import faulty_tables
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.sharing.cache_files import is_shard
from mocha_pipe.teacher_cache.sharing.holding import Holding
from mocha_pipe.teacher_cache.sharing.transfer import WORKERS

_END = 4096
"""Bytes at the end of a shard: its index and the checksum of its last chunk."""


def confirm_received(source: Holding, there: Holding, sums: Mapping[str, bytes]) -> None:
    """Verify what a transfer left in a local folder: its keys, and all rows that were sent.

    Args:
        source: where they came from.
        there: the folder, read after the transfer.
        sums: checksums of the chunks of each shard that was sent, by name.

    Raises:
        CacheCorruptError: the folder holds something else than was sent.
        CacheFormatError: another program laid an array out anew meanwhile.
    """
    assert there.place.path is not None
    there.require_own_layout()
    there.require_readable(there.arrays)
    for name in faulty_tables(there.place.path):
        raise there.damaged(name, "it is not the file that the cache was made with")
    for name, expected in sums.items():
        file = there.shard_file(there.place.path / name, name)
        file.check()
        if file.checksums() != expected:
            raise there.damaged(name, f"its rows are not those of {source.place.url}")


def confirm_sent(source: Holding, there: Holding, names: Iterable[str]) -> None:
    """Verify what a transfer left at a URL: the arrays' descriptions, and size and end of each shard that was sent.

    More than the end would be as much traffic again.

    Raises:
        CacheCorruptError: the place holds something else than was sent.
        CacheFormatError: another program laid an array out anew meanwhile.
    """
    there.require_own_layout()
    there.require_readable(there.arrays)

    def confirm(name: str) -> None:
        size = source.files[name]
        is_it = there.files.get(name) == size
        if not is_it or there.place.read(name, max(0, size - _END), size) != source.read(name)[-_END:]:
            _require_sound(there, name)

    with ThreadPoolExecutor(WORKERS, "confirm") as pool:
        list(pool.map(confirm, filter(is_shard, names)))


def _require_sound(there: Holding, name: str) -> None:
    """Another member may have sent a whole shard of theirs meanwhile; what is there must be sound."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        there.place.fetch(name, path)
        try:
            there.shard_file(path, name).check()
        except CacheCorruptError as error:
            raise there.damaged(name, error.finding) from error
