"""Label files of YOLO: one line per object, either class and box or class and polygon, as shares of the image.

What passes here passes in ultralytics' own check of a label file, and trains there on the same boxes. Only those
without area are dropped here; there an augmentation drops them.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import filterfalse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.types import Problem, error, warning

OVERSHOOT = 0.01
"""How far beyond 0..1 a value may lie, as in ultralytics; the box is then clipped to the image."""

_MOST = 1 + OVERSHOOT

_NOTHING = 1e-7
"""A share of an image that float32, in which boxes are kept, cannot tell from none."""

_COLUMNS = "5 numbers (class x_center y_center width height) or a polygon (class x1 y1 x2 y2 x3 y3 ...)"
_KNOWN_LINES = {1: " between blanks", 6: ", as where a prediction has its confidence at the end"}
_UNKNOWN = "unknown class id"
_SHOWN = 60  # characters of a word
_FIVE = struct.Struct("5f")
_Row = tuple[float, float, float, float, float]  # class, then centre and size


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labels:
    """Objects of one label file, and what is wrong with its lines."""

    class_ids: NDArray[np.int64]  # (n,)
    cxcywhn: NDArray[np.float64]  # (n, 4)
    """Centre and size as shares of the image."""
    problems: tuple[Problem, ...]
    one_too_high: tuple[Problem, ...] = ()
    """Those among them whose class id is the number of classes: all ids may count from 1."""


def read_labels(path: Path, num_classes: int, keypoint_numbers: int) -> Labels | None:
    """Parse a label file; None where there is none. A line with a problem gives no row; a repeated line is dropped.

    Args:
        path: The label file.
        num_classes: Class ids lie below this number.
        keypoint_numbers: Numbers that may follow each box, as in a pose data set; they are skipped.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as reason:
        why = reason.strerror if isinstance(reason, OSError) else reason
        return _labels([], [error(path, f"cannot be read as UTF-8 text ({why}); save it again")])
    split = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    return parse_labels(path, split, num_classes, keypoint_numbers)


def parse_labels(
    path: object, split: Sequence[tuple[int, list[str]]], num_classes: int, keypoint_numbers: int
) -> Labels:
    """The same for the numbered lines of a file that is open, each split into words; `path` is what problems name."""
    lines = [(number, words[:5] if len(words) == 5 + keypoint_numbers else words) for number, words in split]
    polygons = any(len(words) > 6 for _, words in lines)
    if polygons and any(len(words) == 5 for _, words in lines):
        return _labels([], [error(path, "mixes boxes and polygons, which `yolo train` drops; write one kind")])
    rows: dict[bytes, _Row] = {}
    problems, one_too_high, repeated, flat = [], [], [], []
    for number, words in lines:
        row = _parse(words, polygons, num_classes)
        if isinstance(row, str):
            problems.append(error(f"{path}:{number}", row))
            if row.startswith(_UNKNOWN) and float(words[0]) == num_classes:
                one_too_high.append(problems[-1])
        elif not _has_area(row):
            flat.append(number)
        else:  # ultralytics compares in float32; two polygons may have one box
            said = struct.pack(f"{len(words)}f", *map(float, words)) if polygons else _FIVE.pack(*row)
            if rows.setdefault(said, row) is not row:
                repeated.append(number)
    if flat:
        count = f"{len(flat)} box{' has' if len(flat) == 1 else 'es have'} no area inside the image"
        problems.append(warning(f"{path}:{flat[0]}", f"{count}; dropped"))
    if repeated:
        count = f"{len(repeated)} duplicate line{'s' if len(repeated) > 1 else ''} dropped"
        problems.append(warning(f"{path}:{repeated[0]}", f"{count}; delete repeated lines"))
    return _labels(list(rows.values()), problems, one_too_high)


def _labels(rows: list[_Row], problems: list[Problem], one_too_high: Sequence[Problem] = ()) -> Labels:
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return Labels(
        class_ids=table[:, 0].astype(np.int64),
        cxcywhn=table[:, 1:],
        problems=tuple(problems),
        one_too_high=tuple(one_too_high),
    )


def _has_area(row: _Row) -> bool:
    """Whether something of a box lies inside the image."""
    _, cx, cy, w, h = row
    wide, high = min(cx + w / 2, 1) - max(cx - w / 2, 0), min(cy + h / 2, 1) - max(cy - h / 2, 0)
    return wide > _NOTHING and high > _NOTHING


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _parse(words: Sequence[str], polygon: bool, num_classes: int) -> _Row | str:
    """The row of one line, or what is wrong with it."""
    if (len(words) < 7 or len(words) % 2 == 0) if polygon else len(words) != 5:
        found = f"found {len(words)} value{'s' * (len(words) != 1)}{_KNOWN_LINES.get(len(words), '')}"
        return f"a label line is {_COLUMNS}, {found}; mend or delete the line"
    try:
        class_id, *values = map(float, words)
    except ValueError:
        return f"a label line is numbers, found '{next(filterfalse(_is_number, words))[:_SHOWN]}'; mend the line"
    if not all(map(math.isfinite, values)):
        return f"coordinates must be finite, found {next(filterfalse(math.isfinite, values))}; mend or delete the line"
    if not (0 <= class_id < num_classes and class_id.is_integer()):
        known = f"the class names have ids 0 to {num_classes - 1}"
        return f"{_UNKNOWN} {words[0][:_SHOWN]}, {known}; mend the id or add the name"
    if polygon:  # the smallest box around its corners
        x1, y1, x2, y2 = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
        values = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    cx, cy, w, h = values
    if -OVERSHOOT <= cx <= _MOST and -OVERSHOOT <= cy <= _MOST and 0 <= w <= _MOST and 0 <= h <= _MOST:
        return class_id, cx, cy, w, h
    outside = [v for v in values if not -OVERSHOOT <= v <= _MOST] or [v for v in (w, h) if v < 0]
    return f"coordinates are shares of the image in 0..1, found {outside[0]:g}; divide pixels by its width and height"
