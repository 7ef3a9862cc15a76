"""Holding: what a place holds of a cache, read from its listings and two small files.

The names that files of a cache can have are written out here, and nothing else ever travels: other files in the folder
stay there, and no name from outside leads out of the folder.
"""

import tempfile
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mocha_pipe.data.errors import MochaError, quoted
from mocha_pipe.data.files import bytes_digest
from mocha_pipe.data.regions import IMAGES_FILE, REGIONS_FILE, RegionTable
from mocha_pipe.teacher_cache.checking.verify import COMPLETE_NAME, read_list
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheIncompleteError, CacheMismatchError
from mocha_pipe.teacher_cache.sharing.archived import as_cache
from mocha_pipe.teacher_cache.sharing.cache_files import CacheFiles
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.array_layout import (
    DESCRIPTION,
    LAID_OUT_ANEW,
    V2_DESCRIPTIONS,
    ArrayLayout,
    foreign_array,
    judge_array,
    require_own_layout,
)
from mocha_pipe.teacher_cache.store.attributes import parse_attributes
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME, RegionCache
from mocha_pipe.teacher_cache.store.differences import table_differences
from mocha_pipe.teacher_cache.store.disk import reading
from mocha_pipe.teacher_cache.store.layout import ShardPlan, shard_name, shard_size
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER, SetAside, rows_in_words

TARGETS_DESCRIPTION = f"targets/{DESCRIPTION}"
TABLE = (IMAGES_FILE, REGIONS_FILE)


def list_name(shard: int) -> str:
    """Name of the list of what was set aside in a shard."""
    return f"{QUARANTINE_FOLDER}/shard-{shard}.json"


class Holding(CacheFiles):
    """The state of a cache at a place, when it was read. After a change it is read again.

    Arrays that another program laid out anew are shown, and read, as if they lay in the layout of mocha-pipe.
    """

    def __init__(self, place: Place, *, description: bytes | None = None, distrusted: Collection[str] = ()) -> None:
        """Use `at`."""
        listed, folders_listed = place.entries()
        if description is None:
            description = place.read(DESCRIPTION) if DESCRIPTION in listed or REGIONS_FILE not in listed else b""
        self.place = as_cache(place, description)
        if self.place is not place:
            place = self.place
            description = place.read(DESCRIPTION)
            listed, folders_listed = place.entries()
        self.description = description
        attributes = parse_attributes(description, place.url, has_table=REGIONS_FILE in listed)
        self.spec = TeacherSpec.from_json(attributes["teacher"])
        self.arrays = (*self.spec.arrays, "targets")
        """The arrays of this cache, whether they are there yet or not."""
        self.identity = (DESCRIPTION, *TABLE, *(f"{array}/{DESCRIPTION}" for array in self.spec.arrays))
        """The files that it has from its first moment."""
        self.table_digest: str = attributes["table_digest"]
        self.table_files: dict[str, str] = attributes["table_files"]
        self.plan = ShardPlan(attributes["rows"], attributes["rows_per_shard"])
        beside = {folder: place.entries(folder) for folder in (*self.arrays, QUARANTINE_FOLDER)}
        for folder, (files, folders) in beside.items():
            listed |= {f"{folder}/{name}": size for name, size in files.items()}
            folders_listed += [f"{folder}/{name}" for name in folders]
        names = [*self._known_names()]
        known = {name: listed[name] for name in names if name in listed}
        is_folder = {*folders_listed} - listed.keys()
        self.in_the_way = tuple(name for name in names if name in is_folder)
        """Names of files that a folder has."""
        self.replaceable = frozenset(known) | frozenset(distrusted) | frozenset(self.in_the_way)
        """Names that something has, sound or not."""
        self.files = {name: size for name, size in known.items() if name not in distrusted}
        """Size in bytes of each file of the cache that is there, by name."""
        self.layouts: dict[str, ArrayLayout] = {}
        """Of each array that has a description."""
        self.beyond_us: dict[str, str] = {}
        """How another program laid out an array that cannot be read as one of this cache, in words."""
        for array in self.arrays:
            files, folders = beside[array]
            if f"{array}/{DESCRIPTION}" in self.files:
                self.layouts[array] = self._judge(array, {**files, **dict.fromkeys(folders, 0)})
            elif found := [name for name in V2_DESCRIPTIONS if name in files]:
                self.beyond_us[array] = f"{LAID_OUT_ANEW}: Zarr v2 ({found[0]}), which mocha-pipe does not read"
        self.dims = {**self.spec.arrays}
        """Width of each array; `targets` is among them from its first file on."""
        if (layout := self.layouts.get("targets")) and layout.kind != "unreadable":
            self.dims["targets"] = layout.dim
        for array, layout in self.layouts.items():
            if layout.kind == "unreadable":
                del self.files[f"{array}/{DESCRIPTION}"]
            elif not layout.is_ours:
                self._show_as_ours(array, layout)

    @classmethod
    def at(cls, place: Place, distrusted: Collection[str] = ()) -> "Holding | None":
        """What is at a place; None where there is no cache.

        Args:
            place: where to look.
            distrusted: names of files that are known to be at fault: as if they were not there.

        Raises:
            CacheFormatError: something else is there under a cache's name, or a cache of another version.
            CacheCorruptError: its description is damaged.
            TransferError: the place cannot be reached.
        """
        try:
            return cls(place, distrusted=distrusted)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def set_aside(self, shard: int) -> tuple[SetAside, ...]:
        """The regions of a shard that were set aside.

        Raises:
            CacheCorruptError: the list is damaged.
        """
        name = list_name(shard)
        if name not in self.files:
            return ()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.parent.mkdir()
            path.write_bytes(self.place.read(name))
            try:
                return read_list(path, self.plan, shard)
            except CacheCorruptError as error:
                raise self.damaged(name, error.finding) from error

    def require_readable(self, arrays: Iterable[str]) -> None:
        """Refuse arrays whose description is damaged.

        Raises:
            CacheCorruptError: there is one.
        """
        for array in arrays:
            if array in self.layouts and self.layouts[array].kind == "unreadable":
                raise self.damaged(f"{array}/{DESCRIPTION}", self.layouts[array].finding)

    def keys_set_aside(self, shard: int) -> dict[int, str]:
        """Keys of the regions of a shard that were set aside, by their rows; what two lists are compared by.

        Raises:
            CacheCorruptError: the list is damaged.
        """
        return {found.row: found.key for found in self.set_aside(shard)}

    def require_own_layout(self) -> None:
        """Refuse to write where another program laid an array out anew.

        Raises:
            CacheFormatError: there is one.
        """
        for array, layout in self.layouts.items():
            require_own_layout(self.place.url, array, layout)
        for array, finding in self.beyond_us.items():
            where = f"{self.place.url}/{array}"
            # Out of the cache: arrays in there, of any name, are listed for other readers.
            move = f"mv {quoted(where)} {quoted(f'{self.place.url}-{array}')}"
            away = f"move it away with `{move}`" if self.place.path is not None else "remove it there"
            raise foreign_array(where, finding, f"{away} and run the same command again")

    def has_shard(self, array: str, shard: int) -> bool:
        """Whether a shard's file is there in its full size."""
        return self.files.get(shard_name(array, shard)) == shard_size(self.plan, shard, self.dims[array])

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

    def damage(self) -> list[str]:
        """What is at fault and what mends it, as far as listings, descriptions and the lists of regions show."""
        found = dict.fromkeys(self.in_the_way, "it is a folder")
        for array, layout in self.layouts.items():
            if layout.kind == "unreadable":
                found[f"{array}/{DESCRIPTION}"] = layout.finding
        for name in self.identity:
            if name not in self.files:
                found.setdefault(name, "it is missing")
        for shard in range(len(self.plan)):
            try:
                self.set_aside(shard)
            except CacheCorruptError as error:
                found[list_name(shard)] = error.finding
        if not found and not self.beyond_us and self.is_complete and self.place.path is not None:
            try:  # rows without numbers show that a list got lost
                RegionCache.open(self.place.path).require_lists()
            except (CacheCorruptError, CacheIncompleteError) as error:
                return [str(error)]
        foreign = [f"{array}: {finding}" for array, finding in self.beyond_us.items()]
        return [*(str(self.damaged(name, finding)) for name, finding in found.items()), *foreign]

    @cached_property
    def projection_digest(self) -> str | None:
        """Digest of the projection that its targets belong to, or would; None where there is none yet."""
        if (layout := self.layouts.get("targets")) and layout.kind != "unreadable":
            return str(layout.attributes.get("projection_digest"))
        if PROJECTION_NAME in self.files:
            return bytes_digest(self.place.read(PROJECTION_NAME))
        return None

    @cached_property
    def has_current_targets(self) -> bool:
        """Whether there are targets, and of the projection beside them. That of other places is checked on arrival."""
        if TARGETS_DESCRIPTION not in self.files or self.place.path is None:
            return TARGETS_DESCRIPTION in self.files
        with reading(self.place.path / PROJECTION_NAME, self.place.path):
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
            if (name in self.files or name in source.files) and self.is_settled(shard) and source.is_settled(shard):
                self._require_same_list(source, shard, remedy)

    def _require_same_list(self, source: "Holding", shard: int, remedy: str) -> None:
        mine, theirs = (side.keys_set_aside(shard) for side in (self, source))
        if mine == theirs:
            return
        for side, listed in ((source, theirs), (self, mine)):
            unlisted = side.empty_rows(shard) - listed.keys()
            if side is self and unlisted == theirs.keys() - mine.keys() and list_name(shard) not in self.files:
                return  # our list got lost, and comes back
            if unlisted:
                lost = "it is missing, and " if list_name(shard) not in side.files else ""
                words = rows_in_words(np.array(sorted(unlisted)))
                raise side.damaged(list_name(shard), f"{lost}{words} not finite and not set aside")
        raise CacheMismatchError(
            f"{self.place.url} sets aside other regions in shard {shard} than {source.place.url}: one of them tried "
            f"again what had failed; {remedy}"
        )

    def empty_rows(self, shard: int) -> set[int]:
        """Rows of a shard that is there without numbers."""
        array = next(array for array in reversed(self.arrays) if array in self.dims and self.has_shard(array, shard))
        name = shard_name(array, shard)
        with tempfile.TemporaryDirectory() as folder:
            self.fetch(name, Path(folder) / "shard")
            try:
                rows = self.shard_file(Path(folder) / "shard", name).check()
            except CacheCorruptError as error:
                raise self.damaged(name, error.finding) from error
        return {*(np.flatnonzero(~np.isfinite(rows).all(axis=1)) + self.plan.span(shard)[0]).tolist()}

    def is_settled(self, shard: int) -> bool:
        """Whether it is decided which regions of a shard were set aside."""
        return self.has_teacher_shard(shard) or ("targets" in self.dims and self.has_shard("targets", shard))

    def _known_names(self) -> Iterable[str]:
        yield from (*self.identity, TARGETS_DESCRIPTION, PROJECTION_NAME, COMPLETE_NAME)
        for shard in range(len(self.plan)):
            yield list_name(shard)
            yield from (shard_name(array, shard) for array in self.arrays)

    def _judge(self, array: str, beside: dict[str, int]) -> ArrayLayout:
        description = self.place.read(f"{array}/{DESCRIPTION}")
        layout = judge_array(description, lambda: beside, self.plan, self.spec.arrays.get(array))
        if array == "targets" and layout.dim and "projection_digest" not in layout.attributes:
            finding = "it does not name the projection of the targets"
            if layout.kind == "foreign":
                self.beyond_us[array] = f"{layout.finding}; {finding}"
            return replace(layout, kind="unreadable", finding=finding)
        return layout

    def _show_as_ours(self, array: str, layout: ArrayLayout) -> None:
        """List the shards of a foreign array by the names and sizes that they would have in our layout."""
        there, rows = self.place.find(array), set()
        for shard in range(len(self.plan)):
            self.files.pop(shard_name(array, shard), None)
            rows |= {found.row for found in self.set_aside(shard)}
        for shard in {*range(len(self.plan))} - {*layout.missing(there.__contains__, rows)}:
            self.files[shard_name(array, shard)] = shard_size(self.plan, shard, layout.dim)


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
