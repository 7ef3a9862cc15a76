"""From a box to the square picture that the teacher looks at."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mocha_pipe.data.boxes import in_hundredths


def squash(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:  # (H, W, 3) -> (size, size, 3)
    """The whole picture on a square, aspect not kept, by Pillow's bicubic filter (antialiased when it shrinks)."""
    if image.shape[:2] == (size, size):
        return image
    return _squash(Image.fromarray(image), size)


def cut_crop(
    image: NDArray[np.uint8] | Image.Image, xyxy: Sequence[float] | NDArray[np.floating], margin: float, size: int
) -> NDArray[np.uint8]:  # (H, W, 3), (4,) -> (size, size, 3)
    """Cut a box out of an image and squash it to the teacher's square (paper: whole box, aspect not kept).

    The box is widened by `margin` times its width on the left and right, and `margin` times its height above and below,
    grown outward to whole pixels and clipped to the image. It is read to 1/100 px, the precision of a region's key, so
    that equal keys mean equal crops whatever rounding a box went through. At least one pixel is always cut.

    Args:
        image: (H, W, 3) uint8 RGB, or a picture of Pillow's in RGB, which is faster.
        xyxy: corners in pixels.
        margin: context on each side, as a share of the box's side.
        size: side of the result in pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    left, top, right, bottom = (in_hundredths(xyxy) / 100).tolist()
    margin_x, margin_y = margin * (right - left), margin * (bottom - top)
    x1, x2 = _whole_pixels(left - margin_x, right + margin_x, width)
    y1, y2 = _whole_pixels(top - margin_y, bottom + margin_y, height)
    if isinstance(image, Image.Image):
        return _squash(image.crop((x1, y1, x2, y2)), size)
    return squash(np.array(image[y1:y2, x1:x2]), size)


def _squash(picture: Image.Image, size: int) -> NDArray[np.uint8]:  # (size, size, 3)
    return np.array(picture.resize((size, size), Image.Resampling.BICUBIC))


def _whole_pixels(low: float, high: float, limit: int) -> tuple[int, int]:
    """Smallest whole-pixel interval around [low, high] inside 0..limit, one pixel wide at least."""
    # Floats: 16.15 - 0.1 * (17.65 - 16.15) is 15.999999999999998, which must not reach into pixel 15. Rounded as numpy
    # does it: round(edge, 6) seldom gives another number, and crops in caches were cut by this one.
    low, high = (round(edge * 1e6) / 1e6 for edge in (low, high))
    start = min(max(math.floor(low), 0), limit - 1)
    stop = max(min(math.ceil(high), limit), start + 1)
    return start, stop
