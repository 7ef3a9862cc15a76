"""Annotations of a COCO json: boxes x y width height in pixels, taken from the outline where none is written."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mocha_pipe.data.parsing import shown
from mocha_pipe.data.readers.coco_entries import read_id, whole_number
from mocha_pipe.data.types import Problem, error, warning

Xywh = tuple[float, float, float, float]
_FALSE, _TRUE = {"", "0", "0.0", "false", "no", "none", "null", "nan"}, {"1", "1.0", "true", "yes"}
_NO_SIDE = 1e-3  # pixels; float32, in which boxes are kept, hardly tells less from none
_MOST_BITS = 40  # of a run in a mask


class Box(NamedTuple):
    """One annotation."""

    where: str
    class_id: int
    xywh: Xywh
    outline: object = None
    """Its segmentation as written, None without one. Two outlines of one class and box are two things."""


def read_boxes(
    file: Path,
    annotations: list[Any],
    images: Mapping[int, object],
    class_of: Mapping[int, int],
    refused: Collection[int],
) -> tuple[dict[int, list[Box]], list[Problem]]:
    """Boxes by image id in the order of the file, without crowds, and annotations that are wrong.

    Of images that are `refused`, which has been said, annotations are passed over.
    """
    boxes: dict[int, list[Box]] = defaultdict(list)
    problems = []
    crowds = 0
    for index, entry in enumerate(annotations):
        where = f"{file}: annotations[{index}]"
        if not isinstance(entry, dict):
            problems.append(error(where, f"an annotation is a map, found {shown(entry)}; remove it"))
            continue
        image = read_id(entry, "image_id", images, "images")
        if isinstance(image, str) and whole_number(entry.get("image_id")) in refused:
            continue
        category = read_id(entry, "category_id", class_of, "categories")
        is_crowd = _is_crowd(entry.get("iscrowd"))
        if isinstance(image, str):
            problems.append(error(where, f"{image}; remove the annotation"))
        elif isinstance(category, str):
            problems.append(error(where, f"{category}; mend the id"))
        elif is_crowd is None:
            problems.append(error(where, f"iscrowd must be 0 or 1, found {shown(entry['iscrowd'])}; mend it"))
        elif is_crowd:
            crowds += 1
        elif isinstance(xywh := _box_of(entry), str):
            problems.append(error(where, xywh))
        elif min(xywh[2:]) < _NO_SIDE:  # COCO 2017 itself has a few
            problems.append(warning(where, f"bbox {list(xywh)} has no area; dropped"))
        else:
            boxes[image].append(Box(where, class_of[category], xywh, entry.get("segmentation") or None))
    if crowds:
        them = f"{crowds} crowd{'s' if crowds > 1 else ''} (iscrowd 1)"
        problems.append(warning(file, f"{them} skipped, as a crowd's box is that of no single thing"))
    return boxes, problems


def _is_crowd(value: object) -> bool | None:
    """Whether a box is a crowd's; None where the value does not say."""
    said = "" if value is None else str(value).strip().lower() if isinstance(value, str | int | float) else "?"
    return False if said in _FALSE else True if said in _TRUE else None


def _box_of(entry: Mapping[str, Any]) -> Xywh | str:
    """The box of an annotation, or what is wrong with it."""
    bbox, outline = entry.get("bbox"), entry.get("segmentation")
    if not bbox and outline:
        found = _box_of_mask(outline) if isinstance(outline, dict) else _box_of_polygons(outline)
        return found or "has no bbox, and a segmentation that is no polygon and no mask; mend or remove the annotation"
    if isinstance(bbox, list) and len(bbox) == 4 and _are_finite(bbox):
        x, y, width, height = map(float, bbox)
        if min(width, height) >= 0:
            return x, y, width, height
    rule = "bbox must be four finite numbers x y width height, the last two 0 or more"
    return f"{rule}, found {shown(bbox)}; mend it"


def _are_finite(values: list[Any]) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e15 for value in values)


def _box_of_polygons(polygons: object) -> Xywh | None:
    """The box around polygons x1 y1 x2 y2 ..., or around one that is written without the outer list."""
    if not isinstance(polygons, list):
        return None
    numbers: list[Any] = []
    for polygon in polygons if isinstance(polygons[0], list) else [polygons]:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        numbers += polygon
    if not _are_finite(numbers):
        return None
    (left, top), (right, bottom) = np.reshape(numbers, (-1, 2)).min(axis=0), np.reshape(numbers, (-1, 2)).max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def _box_of_mask(mask: Mapping[str, Any]) -> Xywh | None:
    """The box around a run-length encoded mask: runs of background and thing in turn, down the columns."""
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not _are_finite(size) or not isinstance(counts, list | str):
        return None
    height = int(size[0])
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not all(type(run) is int and 0 <= run < 1 << _MOST_BITS for run in runs):
        return None
    if sum(runs) != height * int(size[1]) or sum(runs) > 1 << _MOST_BITS:
        return None
    ends = np.cumsum(runs, dtype=np.int64)
    start, stop = ends[:-1:2], ends[1::2]  # of the thing's runs, in pixels down the columns
    start, stop = start[stop > start], stop[stop > start]
    if not len(start):
        return 0.0, 0.0, 0.0, 0.0
    first, last = start // height, (stop - 1) // height
    one_column = first == last
    top = np.where(one_column, start % height, 0).min()
    bottom = np.where(one_column, (stop - 1) % height + 1, height).max()
    return float(first[0]), float(top), float(last[-1] + 1 - first[0]), float(bottom - top)


def _unpacked(counts: str) -> list[int]:
    """Runs of a compressed mask (pycocotools' `rleFrString`): 5 bits a letter, from the third run on as differences."""
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > _MOST_BITS:
            return [-1]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
