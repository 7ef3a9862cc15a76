"""Boxes that need no detector: the whole picture, and crops that follow from the picture's content and a seed."""

import hashlib
import math

import numpy as np

from mocha_pipe.data.boxes import Boxes

LEAST_AREA, MOST_AREA = 0.04, 0.64
"""Share of the picture that a crop covers; all orders of size are equally likely."""
MOST_STRETCH = 2.0
"""How much wider or higher than the picture's own shape a crop may be."""


def whole_picture(width: int, height: int) -> Boxes:  # (1, 4)
    """The picture itself as a box."""
    return np.array([[0, 0, width, height]], np.float64)


def seeded_crops(digest: str, width: int, height: int, *, count: int, seed: int) -> Boxes:  # (count, 4)
    """Crops of whole pixels inside a picture, of random size, shape and place.

    They follow from the arguments alone, on every machine and with every version of every library. The first crops of a
    larger count are those of a smaller one.

    Args:
        digest: Of the picture's bytes.
        width: Pixels.
        height: Pixels.
        count: How many; in a tiny picture some may be equal.
        seed: Another seed draws other crops.
    """
    boxes = np.zeros((count, 4))
    for number in range(count):
        area, shape, across, down = _shares(f"{digest} {seed} {number}")
        side = math.sqrt(LEAST_AREA * (MOST_AREA / LEAST_AREA) ** area)
        stretch = math.sqrt(MOST_STRETCH ** (2 * shape - 1))
        wide, high = _pixels(side * stretch, width), _pixels(side / stretch, height)
        left, top = math.floor(across * (width - wide + 1)), math.floor(down * (height - high + 1))
        boxes[number] = left, top, left + wide, top + high
    return boxes


def _pixels(share: float, side: int) -> int:
    return min(max(math.floor(share * side + 0.5), 1), side)


def _shares(text: str) -> tuple[float, ...]:
    """Four numbers in [0, 1), as good as random; a library's generator could draw others in its next version."""
    words = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=32).digest(), "<u8")
    return tuple((words >> np.uint64(11)).astype(np.float64) / 2.0**53)
