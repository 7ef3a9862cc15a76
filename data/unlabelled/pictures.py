"""Pictures of folders and of data sets: found, told apart by their content, and looked at."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.boxes import Boxes
from mocha_pipe.data.errors import DatasetError, MochaError
from mocha_pipe.data.images import IMAGE_SUFFIXES, image_digest, inspect_image, message_of, read_image
from mocha_pipe.data.readers.listing import walk_images
from mocha_pipe.data.source import open_source, splits_of
from mocha_pipe.data.types import ImageFile, Problem, error

_LEARNT_FROM = ("train", "val")
_NONE: Boxes = np.zeros((0, 4))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """A picture, known by its content, wherever it lies and whatever it is called."""

    file: ImageFile
    digest: str
    """Hex of blake2b-16 over the file's bytes."""
    split: str | None
    """train or val, in a data set that has both."""
    xyxy: Boxes  # (n, 4)
    """Ground-truth boxes in pixels; none in a folder of pictures."""
    classes: tuple[str, ...]
    """Their classes."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pictures:
    """What was found, every content once."""

    pictures: tuple[Picture, ...]
    """By digest, so that names and places do not matter."""
    class_names: tuple[str, ...]
    """Of the data sets."""
    duplicates: int
    """Files that hold the same bytes as another one."""
    problems: tuple[Problem, ...]
    """Files that cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What decoding a picture tells."""

    width: int
    """Pixels, upright."""
    height: int
    sound: bool
    """False where `yolo train` would rewrite the file."""


def find_pictures(places: Sequence[Path], *, progress: bool = False) -> Pictures:
    """Find pictures and read each file once, for its digest.

    Args:
        places: Folders, looked through with all their subfolders; pictures; and data sets, of which train and val are
            taken with their boxes. Where a picture is met twice, the one of a data set counts.
        progress: Show a bar.

    Raises:
        DatasetNotFoundError, DatasetError: A place is not there, holds no picture, or is no sound data set.
    """
    class_names: dict[str, None] = {}
    candidates: list[Picture] = []
    for place in sorted(places, key=lambda place: place.is_dir() or _is_picture(place)):
        if place.is_dir() or _is_picture(place):
            candidates += [_candidate(file) for file in _files_of(place)]
        else:
            names, found = _of_data_set(place, progress)
            class_names |= dict.fromkeys(names)
            candidates += found
    problems, distinct = [], dict[str, Picture]()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing and reading both leave the GIL
        read = pool.map(_read, candidates)
        for found_or_not in tqdm(read, "read pictures", len(candidates), unit="image", delay=2, disable=not progress):
            if isinstance(found_or_not, Problem):
                problems.append(found_or_not)
            else:
                distinct.setdefault(found_or_not.digest, found_or_not)
    return Pictures(
        pictures=tuple(distinct[digest] for digest in sorted(distinct)),
        class_names=tuple(class_names),
        duplicates=len(candidates) - len(problems) - len(distinct),
        problems=tuple(problems),
    )


def look_at(picture: Picture) -> Look | Problem:
    """Decode a picture; a problem where it cannot be learnt from."""
    file, sound = picture.file, True
    try:
        if isinstance(file, Path):
            size, problems = inspect_image(file)
            if size is None:
                return problems[0]
            sound = not problems
        height, width = read_image(file).shape[:2]
    except MochaError as refused:
        return error(file, message_of(refused, file), unreadable=True)
    return Look(width=width, height=height, sound=sound)


def _is_picture(place: Path) -> bool:
    return place.suffix.lower() in IMAGE_SUFFIXES


def _files_of(place: Path) -> list[Path]:
    files = sorted(walk_images(place)) if place.is_dir() else [place]
    if not files:
        raise DatasetError(
            f"{place}: must hold pictures (.jpg, .png, .webp and so on), found none; name a folder of pictures, or the "
            "data.yaml of a data set"
        )
    return files


def _candidate(
    file: ImageFile, split: str | None = None, xyxy: Boxes = _NONE, classes: tuple[str, ...] = ()
) -> Picture:
    """A picture whose file was not read yet."""
    return Picture(file=file, digest="", split=split, xyxy=xyxy, classes=classes)


def _of_data_set(data: Path, progress: bool) -> tuple[tuple[str, ...], list[Picture]]:
    """Class names, and the pictures of train and val, or of the only split."""
    has = splits_of(data)
    named = [split for split in has if split in _LEARNT_FROM] or [has[0]]
    class_names: dict[str, None] = {}
    found = []
    for split in named:
        source = open_source(data, split, keep_unreadable=True, progress=progress)
        class_names |= dict.fromkeys(source.class_names)
        found += [
            _candidate(
                record.path,
                split if len(named) > 1 else None,
                record.xyxy,
                tuple(source.class_names[class_id] for class_id in record.class_ids.tolist()),
            )
            for record in source.records
        ]
    return tuple(class_names), found


def _read(picture: Picture) -> Picture | Problem:
    """The picture with its digest."""
    try:
        digest = image_digest(picture.file)
    except MochaError as refused:
        return error(picture.file, message_of(refused, picture.file))
    return replace(picture, digest=digest)
