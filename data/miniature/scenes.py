"""Scenes of the miniature world: what is placed where, under which light, behind what, and through which lens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mocha_pipe.data.miniature.drawing import View, draw_object
from mocha_pipe.data.miniature.objects import PersonalObject

SCENE_SIZE = 160
"""Side of a scene in pixels."""

_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture and what it shows."""

    image: NDArray[np.uint8]  # (side, side, 3) RGB
    objects: tuple[PersonalObject, ...]
    """In the order of the boxes; an object that found no place is left out."""
    xyxy: NDArray[np.float64]  # (n, 4)
    """Tight boxes in pixels, of the whole object even where something covers part of it."""


def render_scene(rng: np.random.Generator, objects: Sequence[PersonalObject], side: int = SCENE_SIZE) -> Scene:
    """Place the objects so that they hardly overlap, cover some of them in part, then light and blur the picture."""
    canvas = _background(rng, side)
    placed: list[PersonalObject] = []
    boxes: list[_Box] = []
    for thing in objects:
        view = _random_view(rng)
        centre = _free_centre(rng, view, boxes, side)
        if centre is None:
            continue
        boxes.append(draw_object(canvas, thing, view, centre))
        placed.append(thing)
        if rng.random() < 0.35:
            _occlude(rng, canvas, boxes[-1])
    xyxy = np.array(boxes, dtype=np.float64).reshape(-1, 4).clip(0, side)
    return Scene(_photograph(rng, canvas), tuple(placed), xyxy)


def _random_view(rng: np.random.Generator) -> View:
    return View(
        size=float(np.exp(rng.uniform(np.log(15), np.log(36)))),
        angle=float(rng.uniform(-0.5, 0.5)),
        squeeze=float(rng.uniform(0.8, 1.1)),
        shear=float(rng.uniform(-0.2, 0.2)),
        brightness=float(rng.uniform(0.65, 1.15)),
    )


def _free_centre(rng: np.random.Generator, view: View, boxes: Sequence[_Box], side: int) -> tuple[float, float] | None:
    reach = view.size * 1.15
    for _ in range(30):
        x, y = (float(value) for value in rng.uniform(reach, side - reach, size=2))
        if all(
            min(x + reach, x1) - max(x - reach, x0) < 5 or min(y + reach, y1) - max(y - reach, y0) < 5
            for x0, y0, x1, y1 in boxes
        ):
            return x, y
    return None


def _background(rng: np.random.Generator, side: int) -> NDArray[np.float32]:  # (side, side, 3)
    coarse = rng.uniform(30, 225, size=(4, 4, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    fine = rng.normal(0, 14, size=(20, 20, 3)) + 128
    texture = Image.fromarray(fine.clip(0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) + np.asarray(texture, dtype=np.float32) - 128


def _occlude(rng: np.random.Generator, canvas: NDArray[np.float32], box: _Box) -> None:
    """Cover up to a third of a box from one side with a plain bar, as a hand or a shelf would."""
    x0, y0, x1, y1 = (round(value) for value in box)
    share = rng.uniform(0.1, 0.33)
    side = rng.integers(4)
    width, height = round((x1 - x0) * share), round((y1 - y0) * share)
    area = (
        np.s_[y0:y1, x0 : x0 + width],
        np.s_[y0:y1, x1 - width : x1],
        np.s_[y0 : y0 + height, x0:x1],
        np.s_[y1 - height : y1, x0:x1],
    )[side]
    canvas[area] = rng.uniform(30, 225, size=3)


def _photograph(rng: np.random.Generator, canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour cast of the light, exposure, blur of the lens, noise of the sensor."""
    lit = canvas * rng.uniform(0.78, 1.22, size=3) * rng.uniform(0.8, 1.1)
    picture = Image.fromarray(lit.clip(0, 255).astype(np.uint8))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.1)))), dtype=np.float32)
    noisy = blurred + rng.normal(0, rng.uniform(2, 8), size=blurred.shape)
    return noisy.clip(0, 255).astype(np.uint8)
