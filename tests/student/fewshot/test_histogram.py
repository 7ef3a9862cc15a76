import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.student.fewshot.histogram import HISTOGRAM_DIM, colour_histogram

some = settings(max_examples=25, deadline=None)


def random_crop(seed: int, height: int = 13, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_histogram(crop: np.ndarray) -> np.ndarray:
    counts = np.zeros((16, 4, 4))
    for pixel in crop.reshape(-1, 3):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, pixel))
        hsv = (hue, saturation, value / 255)
        counts[tuple(min(int(share * bins), bins - 1) for share, bins in zip(hsv, counts.shape, strict=True))] += 1
    return np.sqrt(counts.ravel() / counts.sum() * counts.size)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop_over_pixels(seed: int) -> None:
    crop = random_crop(seed)
    # Hue bins meet only where max - min is a multiple of 8; there the last bit of a division would decide.
    crop[np.ptp(crop, axis=2) % 8 == 0] = 0
    np.testing.assert_allclose(colour_histogram(crop), plain_histogram(crop), rtol=1e-6)


def test_known_colours_fall_into_their_bins() -> None:
    for colour, place in {
        (255, 0, 0): (0, 3, 3),
        (0, 255, 0): (5, 3, 3),
        (0, 0, 255): (10, 3, 3),
        (255, 0, 255): (13, 3, 3),
        (0, 0, 0): (0, 0, 0),
        (255, 255, 255): (0, 0, 3),
        (100, 100, 100): (0, 0, 1),
    }.items():
        crop = np.full((3, 2, 3), colour, np.uint8)
        assert colour_histogram(crop).argmax() == np.ravel_multi_index(place, (16, 4, 4))


@some
@given(seed=st.integers(0, 10_000))
def test_order_and_number_of_pixels_do_not_matter(seed: int) -> None:
    crop = random_crop(seed)
    histogram = colour_histogram(crop)
    shuffled = np.random.default_rng(seed).permutation(crop.reshape(-1, 3)).reshape(9, 13, 3)
    assert colour_histogram(shuffled).tobytes() == histogram.tobytes()
    np.testing.assert_allclose(colour_histogram(np.tile(crop, (3, 2, 1))), histogram, rtol=1e-6)
    assert colour_histogram(crop[::-1, ::-1]).tobytes() == histogram.tobytes()


def test_mean_square_is_one() -> None:
    histogram = colour_histogram(random_crop(1))
    assert histogram.shape == (HISTOGRAM_DIM,)
    assert histogram.dtype == np.float32
    assert np.isclose((histogram**2).mean(), 1)


def test_more_pixels_converge_to_the_colours_shares() -> None:
    colours = np.array([[200, 30, 30], [30, 200, 30]], np.uint8)
    errors = []
    for size in (4, 32, 256):
        drawn = (np.random.default_rng(0).random((size, size)) < 0.3).astype(int)
        share = np.sort(colour_histogram(colours[drawn]) ** 2 / HISTOGRAM_DIM)[-2:]
        errors.append(np.abs(share - [0.3, 0.7]).max())
    assert errors[-1] < 0.01 < errors[0]
