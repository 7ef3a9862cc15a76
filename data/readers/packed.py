"""Reads tar shards of `mocha-pipe data pack`: a dataset.json, or some of its tars in brace notation, on a local disk.

Boxes and places of images come from the index; every image is read from its tar at its offset, in any order.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from braceexpand import braceexpand

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.shards.index import ShardIndex
from mocha_pipe.data.shards.layout import MANIFEST, Manifest, index_file, is_manifest, pattern_of
from mocha_pipe.data.shards.tars import TarMember
from mocha_pipe.data.types import DetectionSource, ImageRecord, error, warning


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedShards:
    """The tar shards of one folder, and which of them the user named.

    Raises:
        DatasetNotFoundError: A tar that was named is none of the shards.
        DatasetError: The named tars are of several splits.
    """

    asked: str
    """What the user wrote."""
    where: str
    """Folder of the shards as the user would name it: a path or a URL."""
    folder: Path
    """Folder of dataset.json and the indexes on this machine; of the tars too, unless they lie behind a URL."""
    tars: frozenset[str]
    """Names of the tars that were named; empty where the whole data set was."""
    manifest: Manifest

    def __post_init__(self) -> None:
        splits = self.manifest.splits
        split_of = {shard.file: name for name, split in splits.items() for shard in split.shards}
        have = ", ".join(f"{self.where}/{pattern_of(name, len(split.shards))}" for name, split in splits.items())
        if name := min(self.tars - split_of.keys(), default=None):
            tar = f"{self.where}/{name}"
            raise DatasetNotFoundError(f"{tar}: there is no such shard, {MANIFEST} lists {have or 'none'}; name these")
        if len(found := sorted({split_of[name] for name in self.tars})) > 1:
            raise DatasetError(f"{self.asked}: names shards of several splits ({', '.join(found)}); name those of one")

    def check_split(self, split: str) -> None:
        """Raises DatasetError where tars of another split were named than is to be trained on."""
        named = next((name for name in self.manifest.splits if self._named(name)), split)
        if named != split:
            raise DatasetError(
                f"{self.asked}: names shards of '{named}', and training reads '{split}'; name those, or set "
                f"train = '{named}' under [data] in a --config file"
            )

    def numbers(self, split: str) -> list[int]:
        """Numbers of the shards of a split to read: those named, or all where none of this split was.

        Raises:
            DatasetError: There is no such split.
        """
        found = self.manifest.split(split, f"{self.where}/{MANIFEST}")
        return self._named(split) or list(range(len(found.shards)))

    def _named(self, split: str) -> list[int]:
        return [n for n, shard in enumerate(self.manifest.splits[split].shards) if shard.file in self.tars]


def is_packed(data: Path) -> bool:
    """Whether `data` names tar shards rather than another layout."""
    return data.suffix.lower() == ".tar" or (data.suffix.lower() == ".json" and is_manifest(data))


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


def find_shards(data: Path) -> NamedShards:
    """The tar shards that `data` names.

    Raises:
        DatasetNotFoundError, DatasetError: No shards of `data pack` are there, or the tars are not of one split.
    """
    where, names = named_files(str(data))
    folder = Path(where)
    return NamedShards(
        asked=str(data),
        where=where or ".",
        folder=folder,
        tars=frozenset(names if data.suffix.lower() == ".tar" else ()),
        manifest=Manifest.read(folder, data),
    )


def splits_of_shards(data: Path) -> tuple[str, ...]:
    """The splits that were packed.

    Raises:
        DatasetNotFoundError, DatasetError: As `find_shards`, or there is none.
    """
    splits = find_shards(data).manifest.splits
    if not splits:
        raise DatasetError(f"{data}: no split was packed to its end; run the same `mocha-pipe data pack` again")
    return tuple(splits)


def read_packed(data: Path, split: str) -> DetectionSource:
    """Read one split from its index, without opening a tar.

    Raises:
        DatasetNotFoundError, DatasetError: As `find_shards`; or a tar is missing or has another size.
    """
    named = find_shards(data)
    numbers = named.numbers(split)
    _check_tars(named, split, numbers)
    digest = named.manifest.splits[split].index_digest
    return source_of_index(named, split, ShardIndex.read(named.folder / index_file(split), digest), numbers)


def source_of_index(named: NamedShards, split: str, index: ShardIndex, numbers: Sequence[int]) -> DetectionSource:
    """The records of some shards of a split, in the order of the index.

    Raises:
        DatasetError: The index names an image outside its folder.
    """
    root, shards = named.folder.resolve(), named.manifest.splits[split].shards
    tars = [root / shard.file for shard in shards]
    records = []
    problems = []
    for image in np.flatnonzero(np.isin(index.shards, numbers)).tolist():
        name = index.names[image]
        if posixpath.normpath(name) != name or name.startswith(("../", "/")):
            raise DatasetError(f"{named.folder / index_file(split)}: image name {name!r} leaves its folder; pack again")
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
            message = f"cannot be read as an image ({name}); replace or remove the file and pack again"
            problems.append(error(member, message, unreadable=True))
    if len(numbers) < len(shards):
        counted = f"{len(numbers)} of {len(shards)} shards of '{split}' are named, the others are left out"
        problems.append(warning(named.asked, f"{counted}; all: {named.where}/{pattern_of(split, len(shards))}"))
    return DetectionSource(
        root=root,
        split=split,
        class_names=named.manifest.class_names,
        records=tuple(records),
        problems=tuple(problems),
    )


def _check_tars(named: NamedShards, split: str, numbers: Sequence[int]) -> None:
    shards = named.manifest.splits[split].shards
    for number in numbers:
        tar, expected = named.folder / shards[number].file, shards[number].bytes
        try:
            size = tar.stat().st_size
        except FileNotFoundError:
            raise DatasetNotFoundError(
                f"{tar}: shard {number + 1} of {len(shards)} is not there; copy it there, or pack again"
            ) from None
        if size != expected:
            raise DatasetError(f"{tar}: has {size} bytes, {MANIFEST} says {expected}; copy it again, or pack again")
