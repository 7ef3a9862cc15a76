"""ArchivedCache: a compact archive anywhere, seen as the folder of the cache that it holds. Only for reading."""

import re
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from mocha_pipe.data.errors import first_line, quoted
from mocha_pipe.teacher_cache.archive.form import ArchiveForm
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.store.layout import ShardPlan, encode_shard, shard_bytes

_DECODING = threading.BoundedSemaphore(2)
"""Shards that are in memory at once, however many files travel."""


_SHARD = re.compile(r"c\.(0|[1-9][0-9]{0,8})\.0")


def as_cache(place: Place, description: bytes) -> Place:
    """A place that has this description: itself, or the cache in it where it is an archive.

    Raises:
        CacheFormatError, CacheCorruptError: it is an archive that cannot be read.
    """
    form = ArchiveForm.parse(description, place.url)
    return ArchivedCache(place, form) if form else place


class ArchivedCache(Place):
    """Files of the cache in an archive, by the names and in the sizes that they have in a cache."""

    def __init__(self, archive: Place, form: ArchiveForm) -> None:
        """Read nothing yet."""
        self.url, self.protocol, self.root, self.batch = archive.url, archive.protocol, archive.root, archive.batch
        self.path = None  # no folder of a cache, even on this machine
        self.filled_by = "mocha-pipe cache compact" + (" --lossy" if form.is_lossy else "")
        self._archive, self._form = archive, form
        self._stored: dict[str, int] = {}

    def entries(self, folder: str = "") -> tuple[dict[str, int], list[str]]:
        """See `Place`. A shard counts as there in its full size when its file in the archive is there."""
        sizes, folders = self._archive.entries(folder)
        self._stored |= {f"{folder}/{name}".lstrip("/"): size for name, size in sizes.items()}
        for name in sizes:
            if (shard := self._shard(f"{folder}/{name}")) is not None:
                start, stop = self._form.plan.span(shard)
                plan = ShardPlan(stop - start, self._form.plan.rows_per_shard)
                sizes[name] = shard_bytes(plan, self._form.widths[folder])
            elif (text := self._form.descriptions.get(f"{folder}/{name}".lstrip("/"))) is not None:
                sizes[name] = len(text.encode())
        return sizes, folders

    def stored(self, sizes: Mapping[str, int]) -> int:
        """See `Place`: what the archive's files take, those of the steps left out, which are few."""
        return sum(self._stored[name] for name in sizes)

    def find(self, folder: str) -> dict[str, int]:
        """See `Place`. A cache has no folders in the folders of its arrays."""
        return self.entries(folder)[0]

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """See `Place`.

        Raises:
            CacheCorruptError: the archive's file is damaged.
        """
        return self._content(name)[start:stop]

    def _content(self, name: str) -> bytes:
        if name in self._form.descriptions:
            return self._form.descriptions[name].encode()
        if (shard := self._shard(name)) is None:
            return self._archive.read(name)
        array = name.partition("/")[0]
        with _DECODING:
            try:
                contents = {stored: self._archive.read(stored) for stored in self._form.names(array, shard)}
                values = self._form.decode(array, shard, contents)
            except (FileNotFoundError, ValueError) as error:
                remedy = (
                    f"remove it there and compact again from a sound copy: `{self.filled_by} FOLDER {quoted(self.url)}`"
                )
                raise CacheCorruptError.of(f"{self.url}/{name}", first_line(error), remedy) from error
            return encode_shard(values, self._form.plan.rows_per_shard)

    def fetch(self, name: str, to: Path) -> None:
        """See `Place`."""
        if name in self._form.descriptions or self._shard(name) is not None:
            to.write_bytes(self.read(name))
        else:
            self._archive.fetch(name, to)

    def send(self, files: Mapping[str, Path], stale: Sequence[str], there: Collection[str]) -> NoReturn:  # noqa: ARG002
        """See `Place`; always refused.

        Raises:
            CacheFormatError: files of a cache do not belong into an archive.
        """
        raise CacheFormatError(
            f"{self.url} is a compact archive that lacks {next(iter(files))}; go on with it from the cache that it was "
            f"made of: `{self.filled_by} FOLDER {quoted(self.url)}`, or push to another place"
        )

    def _shard(self, name: str) -> int | None:
        """The shard that a file of the cache holds, by its name."""
        array, _, last = name.rpartition("/")
        match = _SHARD.fullmatch(last)
        is_shard = match and array in self._form.widths and int(match[1]) < len(self._form.plan)
        return int(match[1]) if match and is_shard else None
