"""Reads COCO detection json: `images`, `annotations` with bbox x y w h in pixels, `categories`.

Categories become class ids in ascending order of their ids, without gaps. Crowd boxes (`iscrowd`) are skipped.
"""

import functools
import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from tqdm import tqdm

from mocha_pipe.data.boxes import Boxes, clip_boxes, seem_corners, xywh_to_xyxy
from mocha_pipe.data.errors import DatasetError, MochaError
from mocha_pipe.data.files import name_inside
from mocha_pipe.data.images import inspect_image
from mocha_pipe.data.parsing import shown
from mocha_pipe.data.readers.coco_boxes import Box, Xywh, read_boxes
from mocha_pipe.data.readers.coco_entries import (
    CocoContent,
    load_content,
    read_categories,
    read_images,
    whole_number,
)
from mocha_pipe.data.readers.coco_pictures import find_pictures, spelt_on_disk
from mocha_pipe.data.types import DetectionSource, ImageRecord, Problem, error, warning

_MOST_PIXELS = 1_000_000  # of a side that a json states


def read_coco(file: Path, split: str, *, progress: bool = False) -> DetectionSource:
    """Read a COCO json: image headers and boxes, no pixels. Where its images are looked for: `find_pictures`.

    Args:
        file: The json.
        split: Name given to the split.
        progress: Show a bar when reading takes longer than two seconds.

    Raises:
        DatasetNotFoundError: No image is there.
        DatasetError: It is no COCO json, or has no image.
    """
    content = load_content(file)
    class_of, names, warnings = read_categories(file, content)
    problems = [*warnings]
    images, refused, found = read_images(file, content.images)
    problems += found
    boxes, found = read_boxes(file, content.annotations, images, class_of, refused)
    problems += found
    if not images:
        raise DatasetError(f"{file}: split '{split}' is empty, {_why_empty(content, problems)}")
    folder, name_of, found = find_pictures(file, {number: image["file_name"] for number, image in images.items()})
    problems += found
    records, missing, read, shares = [], [], {*name_of.values()}, list[NDArray[np.float64]]()
    by_name = sorted((name, number) for number, name in name_of.items())
    for written, number in tqdm(by_name, f"read {split}", unit="image", delay=2, disable=not progress):
        name = spelt_on_disk(folder, written, read)
        read.add(name)
        path = folder / name
        if name_inside(path, folder) is None:
            leaves = f"file_name {shown(name)} leaves the image folder {folder} by a link"
            problems.append(error(file, f"{leaves}; copy the image"))
        elif not os.path.isfile(path):  # noqa: PTH113  (a name may be too long to ask for)
            missing.append(name)
        else:
            record, found = _read_image(path, name, images[number], boxes[number])
            records += [record] if record else []
            if record:
                shares += [np.divide(box.xywh, (record.width, record.height) * 2) for box in boxes[number]]
            problems += found
    if missing:
        count = f"{len(missing)} of {len(images)} images are missing"
        problems.append(error(file, f"{count}, the first is {shown(missing[0])}, looked in {folder}; put them there"))
    problems += _corners(file, np.array(shares, np.float64).reshape(-1, 4))
    return DetectionSource(
        root=folder,
        split=split,
        class_names=names,
        records=tuple(records),
        problems=tuple(problems),
    )


def names_of(file: Path) -> tuple[str, ...]:
    """The categories of a json, by name in the order of their ids; none where it cannot be read."""
    try:
        about = file.stat()
        return _names_of_version(file, about.st_size, about.st_mtime_ns)
    except (OSError, MochaError):
        return ()


@functools.lru_cache(maxsize=16)
def _names_of_version(file: Path, size: int, modified: int) -> tuple[str, ...]:  # noqa: ARG001
    return read_categories(file, load_content(file)).names


def _why_empty(content: CocoContent, problems: list[Problem]) -> str:
    """Why no entry of 'images' is usable, by the first of them."""
    if not content.images:
        return "'images' lists none; add images"
    reasons = [f"{found.where.rpartition(' ')[2]}: {found.message}" for found in problems if ": images[" in found.where]
    more = f" (and {len(reasons) - 2} more)" if len(reasons) > 2 else ""
    return f"none of {len(content.images)} entries of 'images' can be used: {', '.join(reasons[:2])}{more}"


def _read_image(
    path: Path, name: str, entry: Mapping[str, Any], boxes: list[Box]
) -> tuple[ImageRecord | None, list[Problem]]:
    """The record where the image can be read, and the problems of the image and its boxes."""
    size, problems = inspect_image(path)
    if not size and not problems[0].unreadable:
        return None, problems
    stated = [_side(entry.get(key)) for key in ("width", "height")]
    if size and any(said not in (None, side) for said, side in zip(stated, size, strict=True)):
        return None, [*problems, error(path, _other_size(path, size, entry))]
    width, height = size or _assumed_size(stated, boxes)
    kept: list[tuple[Box, NDArray[np.float64]]] = []
    seen: dict[tuple[int, Xywh], list[Box]] = defaultdict(list)
    clipped = clip_boxes(xywh_to_xyxy([box.xywh for box in boxes]), width, height)
    repeated = 0
    for box, xyxy in zip(boxes, clipped, strict=True):
        if (xyxy[2:] <= xyxy[:2]).any():
            outside = f"bbox {list(box.xywh)} lies outside the image of {width} x {height}"
            problems.append(error(box.where, f"{outside}; mend or remove the annotation"))
        elif any(box.outline == other.outline for other in seen[box.class_id, box.xywh]):
            repeated += 1
        else:
            seen[box.class_id, box.xywh].append(box)
            kept.append((box, xyxy))
    if repeated:
        problems.append(warning(path, f"{repeated} duplicate annotation{'s' if repeated > 1 else ''} dropped"))
    record = ImageRecord(
        path=path,
        name=name,
        width=width,
        height=height,
        xyxy=np.array([xyxy for _, xyxy in kept], dtype=np.float64).reshape(-1, 4),
        class_ids=np.array([box.class_id for box, _ in kept], dtype=np.int64),
        readable=size is not None,
    )
    return record, problems


def _corners(file: Path, shares: Boxes) -> list[Problem]:
    """A warning of a json whose boxes were written as x1 y1 x2 y2; x, y, width and height are shares of the image."""
    if not seem_corners(shares[:, :2], shares[:, 2:], shares[:, :2] + shares[:, 2:]):
        return []
    read = (
        f"in all {len(shares)} the last two numbers exceed the first two, and as width and height some leave the image"
    )
    told = f"each bbox seems to be corners x1 y1 x2 y2: {read}; COCO has x y width height, export it again"
    return [warning(file, told)]


def _side(value: object) -> object:
    """Width or height as a number, None where it is not stated: also null, 0 and NaN, as exporters write them."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    number = whole_number(value)
    return value if number is None else number or None


def _other_size(path: Path, size: tuple[int, int], entry: Mapping[str, Any]) -> str:
    """What is wrong where an image has another size than its entry states."""
    width, height = size
    written = f"{_written(entry.get('width'))} x {_written(entry.get('height'))}"
    found = f"the image is {width} x {height} (upright), but the json says {written}"
    if width != height and [_side(entry.get("width")), _side(entry.get("height"))] == [height, width]:
        with Image.open(path) as image:
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                return (
                    f"{found}, which is the picture as stored, before its EXIF orientation; turn the files themselves "
                    "(exiftran -ai or jhead -autorot) and label them again, or export with upright sizes"
                )
        return f"{found}: width and height are swapped; mend the json"
    return f"{found}; mend the json or put the right image there"


def _written(value: object) -> str:
    return value if isinstance(value, str) and value.isalnum() else shown(value)


def _assumed_size(stated: list[object], boxes: list[Box]) -> tuple[int, int]:
    """Size of an image that cannot be decoded: as the json states it, else the smallest that holds its boxes."""
    width, height = stated
    if isinstance(width, int) and isinstance(height, int) and all(0 < side <= _MOST_PIXELS for side in (width, height)):
        return width, height
    right, bottom = (max((box.xywh[axis] + box.xywh[axis + 2] for box in boxes), default=1) for axis in (0, 1))
    return min(max(1, math.ceil(right)), _MOST_PIXELS), min(max(1, math.ceil(bottom)), _MOST_PIXELS)
