"""Crops: which pixels are cut, and how they land on the square."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.teacher_cache.crops import cut_crop, squash


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """(40, 60, 3); red is the column, green the row."""
    rows, columns = np.mgrid[0:40, 0:60]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def corner_values(crop: NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    """Column and row of the first and of the last pixel."""
    return crop[0, 0, :2].tolist(), crop[-1, -1, :2].tolist()


def test_a_whole_pixel_box_of_the_right_size_is_copied(image: NDArray[np.uint8]) -> None:
    crop = cut_crop(image, (10, 5, 18, 13), margin=0, size=8)
    assert np.array_equal(crop, image[5:13, 10:18])
    crop[:] = 0
    assert image[5, 10].tolist() == [10, 5, 0], "a crop must not be a view of its image"


def test_a_box_grows_outward_to_whole_pixels(image: NDArray[np.uint8]) -> None:
    crop = cut_crop(image, (10.9, 5.1, 17.1, 12.01), margin=0, size=8)
    assert np.array_equal(crop, image[5:13, 10:18])


def test_margin_is_a_share_of_each_side(image: NDArray[np.uint8]) -> None:
    crop = cut_crop(image, (10, 10, 30, 20), margin=0.1, size=24)
    expected = Image.fromarray(image[9:21, 8:32]).resize((24, 24), Image.Resampling.BICUBIC)
    assert np.array_equal(crop, np.asarray(expected))


def test_margin_does_not_reach_further_by_rounding(image: NDArray[np.uint8]) -> None:
    assert 16.15 - 0.1 * (17.65 - 16.15) < 16
    crop = cut_crop(image, (16.15, 16.15, 17.65, 17.65), margin=0.1, size=2)
    assert np.array_equal(crop, image[16:18, 16:18])


def test_the_box_is_squashed_whole(image: NDArray[np.uint8]) -> None:
    crop = cut_crop(image, (0, 0, 60, 10), margin=0, size=20)
    expected = Image.fromarray(image[0:10, 0:60]).resize((20, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(crop, np.asarray(expected))


@pytest.mark.parametrize(
    ("box", "pixel"),
    [
        ((0, 0, 0.4, 0.3), (0, 0)),
        ((59.5, 39.5, 60, 40), (59, 39)),
        ((60, 40, 60, 40), (59, 39)),
        ((7, 9, 7, 9), (7, 9)),
    ],
)
def test_at_least_one_pixel_is_cut(box: tuple[float, ...], pixel: tuple[int, int], image: NDArray[np.uint8]) -> None:
    assert corner_values(cut_crop(image, box, margin=0, size=5)) == ([*pixel], [*pixel])


def test_margin_is_clipped_at_the_image(image: NDArray[np.uint8]) -> None:
    whole = cut_crop(image, (1, 1, 59, 39), margin=3, size=16)
    assert np.array_equal(whole, squash(image, 16))


def test_a_picture_of_the_right_size_is_not_resampled(image: NDArray[np.uint8]) -> None:
    square = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert np.array_equal(squash(square, 16), square)


boxes = st.tuples(st.floats(0, 59.9), st.floats(0, 39.9), st.floats(0.01, 60), st.floats(0.01, 40)).map(
    lambda box: (box[0], box[1], min(box[0] + box[2], 60), min(box[1] + box[3], 40))
)


@settings(max_examples=50)
@given(box=boxes, margin=st.floats(0, 2), size=st.integers(1, 24))
def test_every_box_gives_a_square(box: tuple[float, ...], margin: float, size: int, image: NDArray[np.uint8]) -> None:
    crop = cut_crop(image, box, margin, size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8


def key_of(box: NDArray[np.float32]) -> bytes:
    """The key of a box in a region table."""
    record = ImageRecord(
        path=Path("a.png"), name="a.png", width=60, height=40, xyxy=box[None].astype(np.float64),
        class_ids=np.zeros(1, np.int64),
    )  # fmt: skip
    source = DetectionSource(root=Path(), split="train", class_names=("mug",), records=(record,))
    return bytes(RegionTable.of(source, ["00" * 16]).keys[0])


eighths = st.integers(0, 25 * 8).map(lambda number: number / 8)  # which binary numbers hold exactly: .125 is a half
thousandths = st.integers(0, 25 * 1000).map(lambda number: number / 1000)


@settings(max_examples=300)
@given(
    corners=st.tuples(*[eighths | thousandths] * 4),
    noise=st.tuples(*[st.sampled_from([0, 0.005, -0.005, 0.0049, 0.001])] * 4),
    margin=st.sampled_from([0, 0.1, 0.0715]) | st.floats(0, 2),
    pixel=st.none() | st.integers(0, 30),
)
def test_boxes_with_one_key_give_one_crop(
    corners: tuple[float, ...], noise: tuple[float, ...], margin: float, pixel: int | None, image: NDArray[np.uint8]
) -> None:
    left, top, width, height = corners
    box = np.array([left, top, left + width, top + height], np.float32)
    other = (box + np.array(noise)).astype(np.float32)
    if pixel is not None and width:  # the hardest margin: the crop begins at the very edge of a pixel
        margin = max(0.0, round(left + 0.001, 2) - pixel) / width
    if key_of(box) == key_of(other):
        assert np.array_equal(cut_crop(image, box, margin, 12), cut_crop(image, other, margin, 12))


def test_a_box_on_a_half_is_cut_like_its_neighbour_with_the_same_key(image: NDArray[np.uint8]) -> None:
    half, above = (np.array([x1, 5, 21.35, 13], np.float32) for x1 in (10.125, 10.13))
    assert key_of(half) == key_of(above)
    assert np.array_equal(cut_crop(image, half, 0.1, 24), cut_crop(image, above, 0.1, 24))
    assert key_of(half) == b"e05d664eaf6a36238959fdf4286fa67f", "caches that are there keep opening"
