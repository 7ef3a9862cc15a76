"""Boxes that need no detector: inside their picture, and the same everywhere."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.unlabelled.crops import LEAST_AREA, MOST_AREA, MOST_STRETCH, seeded_crops, whole_picture

few = settings(max_examples=50, deadline=None)
side = st.integers(1, 3000)
digest = st.binary(min_size=16, max_size=16).map(bytes.hex)
SOME = "00112233445566778899aabbccddeeff"


@few
@given(digest, side, side, st.integers(0, 20), st.integers(0, 2**40))
def test_crops_are_whole_pixels_inside_the_picture(digest: str, width: int, height: int, count: int, seed: int) -> None:
    boxes = seeded_crops(digest, width, height, count=count, seed=seed)
    assert boxes.shape == (count, 4)
    np.testing.assert_array_equal(boxes, np.rint(boxes))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= [width, height]).all()


@few
@given(digest, st.integers(0, 10), st.integers(0, 10), st.integers(0, 9))
def test_a_larger_count_begins_with_the_crops_of_a_smaller_one(digest: str, count: int, more: int, seed: int) -> None:
    fewer = seeded_crops(digest, 640, 480, count=count, seed=seed)
    np.testing.assert_array_equal(seeded_crops(digest, 640, 480, count=count + more, seed=seed)[:count], fewer)


def test_picture_and_seed_decide_and_these_crops_stay() -> None:
    """Keys of caches hang on these numbers."""
    expected = [[193, 191, 369, 324], [191, 49, 436, 358], [0, 112, 350, 405]]
    assert seeded_crops(SOME, 640, 480, count=3, seed=0).tolist() == expected
    assert seeded_crops(SOME, 640, 480, count=3, seed=1).tolist() != expected
    assert seeded_crops(SOME[::-1], 640, 480, count=3, seed=0).tolist() != expected


def test_sizes_shapes_and_places_are_spread() -> None:
    width, height = 2000, 1000
    boxes = seeded_crops(SOME, width, height, count=2000, seed=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides.prod(axis=1) / (width * height)
    # A crop that would be wider than the picture is cut to it, and is then smaller than asked for.
    assert LEAST_AREA * 0.98 < areas.min() < 1.1 * LEAST_AREA
    assert 0.9 * MOST_AREA < areas.max() < MOST_AREA * 1.02
    assert abs(np.median(areas) - np.sqrt(LEAST_AREA * MOST_AREA)) < 0.02, "all orders of size are equally likely"
    stretch = (sides[:, 0] / width) / (sides[:, 1] / height)
    assert 1 / (MOST_STRETCH * 1.02) < stretch.min() < 0.55
    assert 1.8 < stretch.max() < MOST_STRETCH * 1.02
    share = boxes[:, :2] / ([width, height] - sides).clip(min=1)
    assert np.abs(share.mean(axis=0) - 0.5).max() < 0.03


def test_the_whole_picture() -> None:
    assert whole_picture(64, 48).tolist() == [[0, 0, 64, 48]]
