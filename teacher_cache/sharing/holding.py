"""Holding: what a place holds of a cache, read from its listings and two small files.

The names that files of a cache can have are written out here, and nothing else ever travels: other files in the folder
stay there, and no name from outside leads out of the folder.
"""

import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import bytes_digest
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.data.regions import IMAGES_FILE, REGIONS_FILE, RegionTable
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheMismatchError
from mocha_pipe.teacher_cache.sharing.archived import as_cache
from mocha_pipe.teacher_cache.sharing.place import Place
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME, RegionCache, parse_attributes
from mocha_pipe.teacher_cache.store.differences import table_differences
from mocha_pipe.teacher_cache.store.layout import ShardPlan, shard_bytes
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER

DESCRIPTION = "zarr.json"
TARGETS_DESCRIPTION = f"targets/{DESCRIPTION}"
COMPLETE_NAME = "complete.json"
TABLE = (IMAGES_FILE, REGIONS_FILE)


def shard_name(array: str, shard: int) -> str:
    """Name of a shard's file within a cache."""
    return f"{array}/c.{shard}.0"


def list_name(shard: int) -> str:
    """Name of the list of what was set aside in a shard."""
    return f"{QUARANTINE_FOLDER}/shard-{shard}.json"


class Holding:
    """The state of a cache at a place, when it was read. After a change it is read again."""

    def __init__(self, place: Place) -> None:
        """Use `at`."""
        description = place.read(DESCRIPTION)
        self.place = as_cache(place, description)
        self.description = description if self.place is place else self.place.read(DESCRIPTION)
        place = self.place
        attributes = parse_attributes(self.description, place.url)
        self.spec = TeacherSpec.from_json(attributes["teacher"])
        self.arrays = (*self.spec.arrays, "targets")
        """The arrays of this cache, whether they are there yet or not."""
        self.identity = (DESCRIPTION, *TABLE, *(f"{array}/{DESCRIPTION}" for array in self.spec.arrays))
        """The files that it has from its first moment."""
        self.table_digest: str = attributes["table_digest"]
        self.table_files: dict[str, str] = attributes["table_files"]
        self.plan = ShardPlan(attributes["rows"], attributes["rows_per_shard"])
        listed = place.entries()[0]
        for folder in (*self.arrays, QUARANTINE_FOLDER):
            listed |= {f"{folder}/{name}": size for name, size in place.entries(folder)[0].items()}
        self.files = {name: listed[name] for name in self._known_names() if name in listed}
        """Size in bytes of each file of the cache that is there, by name."""
        self.dims = self.spec.arrays
        """Width of each array; `targets` is among them from its first file on."""
        self.targets_description = b""
        self._projection_of_targets: str | None = None
        if TARGETS_DESCRIPTION in self.files:
            self._read_targets_description()

    @classmethod
    def at(cls, place: Place) -> "Holding | None":
        """What is at a place; None where there is no cache.

        Raises:
            CacheFormatError: something else is there under a cache's name, or a cache of another version.
            CacheCorruptError: its description is damaged.
            TransferError: the place cannot be reached.
        """
        try:
            return cls(place)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def has_shard(self, array: str, shard: int) -> bool:
        """Whether a shard's file is there in its full size."""
        start, stop = self.plan.span(shard)
        size = shard_bytes(ShardPlan(stop - start, self.plan.rows_per_shard), self.dims[array])
        return self.files.get(shard_name(array, shard)) == size

    def has_teacher_shard(self, shard: int) -> bool:
        """Whether a shard is done: in every array that the teacher gives."""
        return all(self.has_shard(array, shard) for array in self.spec.arrays)

    @property
    def bytes(self) -> int:
        """What it takes where it lies."""
        return self.place.stored(self.files)

    def num_done(self, array: str) -> int:
        """Shards of an array that are there."""
        return sum(self.has_shard(array, shard) for shard in range(len(self.plan))) if array in self.dims else 0

    @property
    def has_all_targets(self) -> bool:
        """Whether a student can be distilled from it."""
        return self.num_done("targets") == len(self.plan)

    @property
    def is_complete(self) -> bool:
        """Whether everything is there that a build makes."""
        names = {*self.identity, TARGETS_DESCRIPTION, PROJECTION_NAME}
        return names <= self.files.keys() and all(self.num_done(array) == len(self.plan) for array in self.arrays)

    @cached_property
    def projection_digest(self) -> str | None:
        """Digest of the projection that its targets belong to, or would; None where there is none yet."""
        if self._projection_of_targets is None and PROJECTION_NAME in self.files:
            return bytes_digest(self.place.read(PROJECTION_NAME))
        return self._projection_of_targets

    @cached_property
    def has_current_targets(self) -> bool:
        """Whether there are targets, and of the projection beside them. That of other places is checked on arrival."""
        if TARGETS_DESCRIPTION not in self.files or self.place.path is None:
            return TARGETS_DESCRIPTION in self.files
        return RegionCache.open(self.place.path).has_current_targets()

    def require_fit(self, source: "Holding", remedy: str, *, with_targets: bool) -> None:
        """Refuse another teacher's embeddings, other regions and shards of another size.

        With the targets, also refuse those of another projection, and a shard in which other regions were set aside.

        Args:
            source: the cache whose files are to travel here.
            remedy: what the user can do, for the message.
            with_targets: whether the targets travel.

        Raises:
            CacheMismatchError: files of the source do not belong here.
        """
        found = self.spec.differences(source.spec)
        if self.table_digest != source.table_digest:
            found += _table_differences(self.place, source.place)
        if self.plan.rows_per_shard != source.plan.rows_per_shard:
            found.append(f"shards hold {self.plan.rows_per_shard} rows, expected {source.plan.rows_per_shard}")
        if found:
            raise CacheMismatchError(
                f"{self.place.url} holds another cache than {source.place.url}: {'; '.join(found)}; {remedy}"
            )
        if with_targets:
            self._require_same_targets(source, remedy)

    def _require_same_targets(self, source: "Holding", remedy: str) -> None:
        if self.projection_digest not in (None, source.projection_digest):
            raise CacheMismatchError(
                f"{self.place.url} has targets of another projection than {source.place.url} "
                f"({self.projection_digest}, expected {source.projection_digest}); {remedy}"
            )
        for shard in range(len(self.plan)):
            name = list_name(shard)
            if (name in self.files or name in source.files) and self._settled(shard) and source._settled(shard):
                lists = [side.place.read(name) if name in side.files else b"" for side in (self, source)]
                if lists[0] != lists[1]:
                    raise CacheMismatchError(
                        f"{self.place.url} sets aside other regions in shard {shard} than {source.place.url}: one of "
                        f"them tried again what had failed; {remedy}"
                    )

    def _settled(self, shard: int) -> bool:
        """Whether it is decided which regions of a shard were set aside."""
        return self.has_teacher_shard(shard) or ("targets" in self.dims and self.has_shard("targets", shard))

    def _known_names(self) -> Iterable[str]:
        yield from (*self.identity, TARGETS_DESCRIPTION, PROJECTION_NAME, COMPLETE_NAME)
        for shard in range(len(self.plan)):
            yield list_name(shard)
            yield from (shard_name(array, shard) for array in self.arrays)

    def _read_targets_description(self) -> None:
        self.targets_description = self.place.read(TARGETS_DESCRIPTION)
        try:
            content = parse_json(self.targets_description)
            self.dims["targets"] = int(content["shape"][1])
            self._projection_of_targets = str(content["attributes"]["projection_digest"])
        except (ValueError, LookupError, TypeError) as error:
            raise CacheCorruptError(
                f"{self.place.url}/{TARGETS_DESCRIPTION} is damaged; remove the folder `targets` there, then push the "
                "cache again from a sound copy"
            ) from error


def _table_differences(here: Place, there: Place) -> list[str]:
    """What differs between the regions of two places, in words."""
    with tempfile.TemporaryDirectory() as folder:
        tables = []
        for index, place in enumerate((here, there)):
            (Path(folder) / str(index)).mkdir()
            try:
                for name in TABLE:
                    place.fetch(name, Path(folder) / str(index) / name)
                tables.append(RegionTable.read(Path(folder) / str(index)))
            except MochaError:
                return ["it was made from other regions"]
        return table_differences(*tables) or ["it was made from other regions"]
