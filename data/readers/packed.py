"""Reads shards of `mocha-pipe data pack`: a dataset.json, or some of its tars in brace notation, on a local disk.

Boxes and places of images come from the index; every image is read from its tar at its offset, in any order.
"""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from braceexpand import braceexpand

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.readers.reading import SplitReading, warning
from mocha_pipe.data.shards.layout import (
    MANIFEST,
    Manifest,
    ShardIndex,
    Split,
    index_file,
    is_manifest,
    pattern_of,
    read_manifest,
)
from mocha_pipe.data.shards.tars import TarMember
from mocha_pipe.data.types import ImageRecord, Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where shards lie, and which of them were asked for."""

    asked: str
    """What the user named."""
    where: str
    """Folder of the shards, as the user would name it."""
    folder: Path
    """Where dataset.json, indexes and tars are on this machine, or would be."""
    names: frozenset[str]
    """Tars that were named; empty where the whole data set was."""
    manifest: Manifest

    @property
    def named_split(self) -> str | None:
        """The split whose tars were named."""
        return next((name for name, split in self.manifest.splits.items() if self._in(split)), None)

    def check_split(self, split: str) -> None:
        """Raises DatasetError where tars of another split were named than is to be trained on."""
        if self.named_split not in (None, split):
            raise DatasetError(
                f"{self.asked}: names shards of '{self.named_split}', and training reads '{split}'; name those, or set "
                f"train = '{self.named_split}' under [data] in a --config file"
            )

    def shards(self, split: str) -> list[int]:
        """Numbers of the shards to read of a split: those named, or all where they are of another one."""
        found = self.manifest.split(split, f"{self.where}/{MANIFEST}")
        return self._in(found) or list(range(len(found.shards)))

    def check(self, exists: Callable[[str], bool]) -> None:
        """Raises where a tar that was named is not a shard, or where they are of several splits."""
        splits = self.manifest.splits
        known = {shard.file: name for name, split in splits.items() for shard in split.shards}
        have = ", ".join(f"{self.where}/{pattern_of(name, len(split.shards))}" for name, split in splits.items())
        for name in sorted(self.names - known.keys()):
            tar = f"{self.where}/{name}"
            if exists(tar):
                raise DatasetError(
                    f"{tar}: is no shard of `mocha-pipe data pack`, {MANIFEST} does not list it; name "
                    f"{have or 'another'}"
                )
            raise DatasetNotFoundError(f"{tar}: there is no such shard, {MANIFEST} lists {have or 'none'}; name these")
        if len(found := sorted({known[name] for name in self.names})) > 1:
            raise DatasetError(f"{self.asked}: names shards of several splits ({', '.join(found)}); name those of one")

    def _in(self, split: Split) -> list[int]:
        return [number for number, shard in enumerate(split.shards) if shard.file in self.names]


def is_packed(data: Path) -> bool:
    """Whether `data` names shards rather than another layout."""
    return data.suffix.lower() == ".tar" or (data.suffix.lower() == ".json" and data.is_file() and is_manifest(data))


def named_files(asked: str) -> tuple[str, list[str]]:
    """The folder and the files in it that a path or URL in brace notation stands for.

    Raises:
        DatasetError: The braces are not in pairs, or the files are not in one folder.
    """
    try:
        texts = list(braceexpand(asked))
    except ValueError:
        raise DatasetError(
            f"{asked}: braces must be in pairs; write for example train-{{000000..000031}}.tar"
        ) from None
    folders = {posixpath.dirname(text) for text in texts}
    if len(folders) > 1:
        raise DatasetError(f"{asked}: shards of one packing lie in one folder, found {len(folders)}; name one of them")
    return folders.pop(), [posixpath.basename(text) for text in texts]


def read_place(data: Path) -> Place:
    """What `data` names.

    Raises:
        DatasetNotFoundError, DatasetError: No shards of `data pack` are there, or the tars are not of one split.
    """
    where, names = named_files(str(data))
    tars = frozenset(names) if data.suffix.lower() == ".tar" else frozenset[str]()
    folder = Path(where)
    place = Place(asked=str(data), where=where or ".", folder=folder, names=tars, manifest=read_manifest(folder, data))
    place.check(lambda tar: Path(tar).exists())
    return place


def splits_of_shards(data: Path) -> tuple[str, ...]:
    """The splits that were packed.

    Raises:
        DatasetNotFoundError, DatasetError: As `read_place`, or there is none.
    """
    manifest = read_place(data).manifest
    if not manifest.splits:
        raise DatasetError(f"{data}: no split was packed to its end; run the same `mocha-pipe data pack` again")
    return tuple(manifest.splits)


def read_packed(data: Path, split: str) -> SplitReading:
    """Read one split from its index, without opening a tar.

    Raises:
        DatasetNotFoundError, DatasetError: As `read_place`; or a tar is missing or has another size.
    """
    place = read_place(data)
    numbers = place.shards(split)
    _check_tars(place, split, numbers)
    entry = place.manifest.splits[split]
    index = ShardIndex.read(place.folder / index_file(split), entry.index_digest)
    return reading_of(place, split, index, numbers)


def reading_of(place: Place, split: str, index: ShardIndex, numbers: list[int]) -> SplitReading:
    """The records of some shards of a split, in their order."""
    root, shards = place.folder.resolve(), place.manifest.splits[split].shards
    tars = [root / shard.file for shard in shards]
    records = []
    problems = []
    for image in np.flatnonzero(np.isin(index.shards, numbers)).tolist():
        name = index.names[image]
        if posixpath.normpath(name) != name or name.startswith(("../", "/")):
            raise DatasetError(f"{place.folder / index_file(split)}: image name {name!r} leaves its folder; pack again")
        member = TarMember(
            tars[index.shards[image]], index.member(image), int(index.offsets[image]), int(index.num_bytes[image])
        )
        boxes = slice(*index.first_box[image : image + 2].tolist())
        records.append(
            ImageRecord(
                path=member,
                name=name,
                width=int(index.sizes[image, 0]),
                height=int(index.sizes[image, 1]),
                xyxy=index.xyxy[boxes],
                class_ids=index.class_ids[boxes].astype(np.int64),
                readable=bool(index.readable[image]),
            )
        )
        if not records[-1].readable:
            problems.append(_unreadable(member, name))
    if len(numbers) < len(shards):
        counted = f"{len(numbers)} of {len(shards)} shards of '{split}' are named, the others are left out"
        problems.append(warning(place.asked, f"{counted}; all: {place.where}/{pattern_of(split, len(shards))}"))
    return SplitReading(
        root=root,
        split=split,
        class_names=place.manifest.class_names,
        records=tuple(records),
        problems=tuple(problems),
    )


def _check_tars(place: Place, split: str, numbers: list[int]) -> None:
    shards = place.manifest.splits[split].shards
    for number in numbers:
        tar, expected = place.folder / shards[number].file, shards[number].bytes
        try:
            size = tar.stat().st_size
        except FileNotFoundError:
            raise DatasetNotFoundError(
                f"{tar}: shard {number + 1} of {len(shards)} is not there; copy it there, or pack again"
            ) from None
        if size != expected:
            how = "it was cut short" if size < expected else "it is another file"
            raise DatasetError(
                f"{tar}: has {size} bytes where {MANIFEST} says {expected}, {how}; copy it again, or pack again"
            )


def _unreadable(member: TarMember, name: str) -> Problem:
    return Problem(
        severity="error",
        where=str(member),
        message=f"cannot be read as an image ({name}); replace or remove the file and pack again",
        unreadable=True,
    )
