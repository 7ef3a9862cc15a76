"""How an object of the miniature world looks: shape masks, patterns and sticker on a local unit square, light and view.

Local coordinates: u to the right and v down, both within [-1, 1] on the upright object.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.miniature.objects import COLOURS, UNSEEN_COLOURS, PersonalObject

Plane = NDArray[np.floating[Any]]  # (H, W)
Mask = NDArray[np.bool_]  # (H, W)

_RGB = {**COLOURS, **UNSEEN_COLOURS}
_SUPERSAMPLING = 2
_STICKER_RADIUS = 0.26
_STICKER_CENTRES = {"mug": (-0.2, 0.35), "bottle": (0.0, 0.45), "ring": (0.0, 0.74), "cross": (0.0, 0.62)}


@dataclass(frozen=True, slots=True)
class View:
    """How one object stands in one scene."""

    size: float
    """Half the side of its local unit square, in pixels."""
    angle: float
    """Rotation in radians."""
    squeeze: float
    """Height over width: a change of viewpoint."""
    shear: float
    """Sideways lean per unit of height."""
    brightness: float


def shape_mask(shape: str, u: Plane, v: Plane) -> Mask:
    """Which points belong to the shape."""
    radius = np.hypot(u, v)
    if shape == "ball":
        return radius < 0.95
    if shape == "book":
        return (np.abs(u) < 0.72) & (np.abs(v) < 0.95)
    if shape == "kite":
        return np.abs(u) + 0.8 * np.abs(v) < 0.8
    if shape == "mug":
        handle = np.hypot(u - 0.5, v)
        grip: Mask = (handle > 0.26) & (handle < 0.48) & (u > 0.4)
        cup: Mask = (np.abs(u + 0.2) < 0.65) & (np.abs(v) < 0.85)
        return cup | grip
    if shape == "bottle":
        return ((np.abs(u) < 0.46) & (v > -0.2) & (v < 1)) | ((np.abs(u) < 0.2) & (v > -1) & (v <= -0.2))
    if shape == "star":
        spike: Plane = np.abs((np.arctan2(u, -v) * 5 / (2 * np.pi)) % 1 - 0.5) * 2  # 1 on a spike, 0 between two
        reach: Plane = 0.42 + 0.58 * spike**1.3
        return radius < reach
    if shape == "cross":
        return ((np.abs(u) < 0.38) & (np.abs(v) < 0.95)) | ((np.abs(v) < 0.38) & (np.abs(u) < 0.95))
    assert shape == "ring", shape
    return (radius > 0.5) & (radius < 0.98)


def pattern_mask(pattern: str, u: Plane, v: Plane) -> Mask:
    """Which points carry the second colour."""
    period = 0.62
    if pattern == "striped":
        return (u / period) % 1 < 0.5
    if pattern == "banded":
        return (v / period) % 1 < 0.5
    if pattern == "dotted":
        dots: Mask = np.hypot((u / period) % 1 - 0.5, (v / period) % 1 - 0.5) < 0.33
        return dots
    if pattern == "checked":
        return ((u / period) % 1 < 0.5) ^ ((v / period) % 1 < 0.5)
    if pattern == "split":
        return u + v < 0
    if pattern == "plain":
        return np.zeros(u.shape, dtype=np.bool_)
    return _unseen_pattern_mask(pattern, u, v)


def _unseen_pattern_mask(pattern: str, u: Plane, v: Plane) -> Mask:
    period = 0.62
    if pattern == "diagonal":
        return ((u + v) / period) % 1 < 0.5
    if pattern == "ringed":
        rings: Mask = (np.hypot(u, v) / period) % 1 < 0.5
        return rings
    if pattern == "quartered":
        return (u > 0) ^ (v > 0)
    if pattern == "waved":
        waves: Mask = ((v + 0.15 * np.sin(6 * u)) / period) % 1 < 0.5
        return waves
    assert pattern == "crossed", pattern
    return (np.abs(u) < 0.2) | (np.abs(v) < 0.2)


def local_coordinates(view: View, centre: tuple[float, float], left: int, top: int, side: int) -> tuple[Plane, Plane]:
    """Local (u, v) of every supersampled point of the square patch at (left, top); each (side * 2, side * 2)."""
    steps = (np.arange(side * _SUPERSAMPLING, dtype=np.float32) + 0.5) / _SUPERSAMPLING
    x, y = np.meshgrid(left + steps - centre[0], top + steps - centre[1])
    cosine, sine = np.cos(view.angle), np.sin(view.angle)
    v = (-sine * x + cosine * y) / (view.size * view.squeeze)
    u = (cosine * x + sine * y) / view.size - view.shear * v
    return u.astype(np.float32), v.astype(np.float32)


def draw_object(
    canvas: NDArray[np.float32], thing: PersonalObject, view: View, centre: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Paint an object onto the canvas in place.

    Args:
        canvas: (H, W, 3) RGB in 0..255.
        thing: What to paint.
        view: How it stands.
        centre: x, y in pixels.

    Returns:
        Its tight box, xyxy in pixels.
    """
    side = int(np.ceil(view.size * 2.9))
    left, top = int(centre[0] - side / 2), int(centre[1] - side / 2)
    u, v = local_coordinates(view, centre, left, top, side)
    body = shape_mask(thing.shape, u, v)
    colour = np.empty((*u.shape, 3), dtype=np.float32)
    colour[:] = _RGB[thing.main]
    colour[pattern_mask(thing.pattern, u, v)] = _RGB[thing.second]
    if thing.sticker:
        at_u, at_v = _STICKER_CENTRES.get(thing.shape, (0.0, 0.0))
        distance = np.maximum(np.abs(u - at_u), np.abs(v - at_v))
        colour[distance < _STICKER_RADIUS] = (128, 128, 128)  # a rim, so that it shows on its own colour too
        colour[distance < _STICKER_RADIUS * 0.8] = _RGB[thing.sticker]
    colour *= (view.brightness * (1 - 0.12 * u - 0.12 * v))[..., None]  # light falls from the upper left
    alpha = _halve(body.astype(np.float32)[..., None])
    paint = _halve(colour * body[..., None])
    rows, columns = np.nonzero(alpha[..., 0] > 0.5)
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - alpha[inside]) + paint[inside]
    x0, y0, x1, y1 = left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1
    return float(x0), float(y0), float(x1), float(y1)


def _halve(image: NDArray[np.float32]) -> NDArray[np.float32]:  # (2H, 2W, C) -> (H, W, C)
    height, width, channels = image.shape
    blocks = image.reshape(height // _SUPERSAMPLING, _SUPERSAMPLING, width // _SUPERSAMPLING, _SUPERSAMPLING, channels)
    return np.asarray(blocks.mean((1, 3), dtype=np.float32))
