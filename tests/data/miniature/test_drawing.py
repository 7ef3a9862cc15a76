"""Masks and boxes of drawn objects."""

import numpy as np
import pytest

from mocha_pipe.data.miniature.drawing import View, draw_object, pattern_mask, shape_mask
from mocha_pipe.data.miniature.objects import COLOURS, PATTERNS, SHAPES, PersonalObject

UPRIGHT = View(size=30.0, angle=0.0, squeeze=1.0, shear=0.0, brightness=1.0)
GRID = np.meshgrid(np.linspace(-1, 1, 81, dtype=np.float32), np.linspace(-1, 1, 81, dtype=np.float32))


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_fills_its_unit_square_and_differs_from_the_others(shape: str) -> None:
    mask = shape_mask(shape, *GRID)
    assert 0.2 < mask.mean() < 0.95
    assert not mask[0].all()
    others = [shape_mask(other, *GRID) for other in SHAPES if other != shape]
    assert all((mask != other).mean() > 0.05 for other in others)


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern != "plain"])
def test_pattern_shows_both_colours(pattern: str) -> None:
    assert 0.2 < pattern_mask(pattern, *GRID).mean() < 0.8


def test_plain_has_one_colour_only() -> None:
    assert not pattern_mask("plain", *GRID).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.4, -0.5])
def test_box_is_tight_around_what_was_painted(shape: str, angle: float) -> None:
    canvas = np.full((160, 160, 3), 128.0, dtype=np.float32)
    view = View(size=30.0, angle=angle, squeeze=0.9, shear=0.1, brightness=1.0)
    box = draw_object(canvas, PersonalObject(shape, "red", "red", "plain"), view, (80.0, 75.0))
    painted = np.abs(canvas - 128.0).max(-1) > 60
    rows, columns = np.nonzero(painted)
    tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.subtract(box, tight)).max() <= 2


def test_sticker_shows_in_its_colour() -> None:
    with_sticker, without = (np.zeros((160, 160, 3), dtype=np.float32) for _ in range(2))
    draw_object(with_sticker, PersonalObject("book", "red", "red", "plain", "blue"), UPRIGHT, (80.0, 80.0))
    draw_object(without, PersonalObject("book", "red", "red", "plain"), UPRIGHT, (80.0, 80.0))
    np.testing.assert_allclose(with_sticker[80, 80], COLOURS["blue"], atol=8)
    np.testing.assert_allclose(without[80, 80], COLOURS["red"], atol=8)
    changed = np.abs(with_sticker - without).max(-1) > 10
    assert 0.01 < changed.sum() / (without.max(-1) > 10).sum() < 0.2


def test_object_over_the_border_is_clipped() -> None:
    canvas = np.zeros((160, 160, 3), dtype=np.float32)
    box = draw_object(canvas, PersonalObject("ball", "white", "white", "plain"), UPRIGHT, (5.0, 155.0))
    assert box[0] < 0
    assert box[3] > 160
    assert canvas[155, 5].min() > 100
