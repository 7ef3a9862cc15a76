"""Colour histogram of a crop: what low-level statistics alone can do, the sanity line of every table."""

import numpy as np
from matplotlib.colors import rgb_to_hsv
from numpy.typing import NDArray

_BINS = (16, 4, 4)  # hue, saturation, value: fine where the identity is, coarse where the light is

HISTOGRAM_DIM = _BINS[0] * _BINS[1] * _BINS[2]
"""Width of a histogram."""


def colour_histogram(crop: NDArray[np.uint8]) -> NDArray[np.float32]:  # (H, W, 3) -> (HISTOGRAM_DIM,)
    """Joint HSV histogram of a crop under the Hellinger map.

    The counts are normalised to sum 1 (so the size of the crop cancels), then square-rooted: the Euclidean distance of
    two results is their Hellinger distance, the usual one for histograms. A last factor makes the mean square 1, the
    scale of whitened targets, so that one prototype learner serves both.

    Args:
        crop: RGB pixels, at least one.
    """
    assert crop.shape[2:] == (3,), "a crop is (H, W, 3)"
    assert crop.size, "a crop has pixels"
    # Divided by 256, which is exact, so that rounding puts no colour into another bin; value is a share of 255.
    hsv = rgb_to_hsv(crop.reshape(-1, 3) / 256) * [1, 1, 256 / 255]
    bins = np.minimum((hsv * _BINS).astype(np.int64), np.array(_BINS) - 1)  # 1.0 belongs to the last bin
    counts = np.bincount(np.ravel_multi_index(tuple(bins.T), _BINS), minlength=HISTOGRAM_DIM)
    return np.asarray(np.sqrt(counts * (HISTOGRAM_DIM / counts.sum())), np.float32)
