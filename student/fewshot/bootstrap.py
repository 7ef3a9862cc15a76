"""Percentile bootstrap over episodes: how far a mean would move had other episodes been drawn (numpy only)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 10_000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | list[float]]:
        """The form that reports use: `{"mean": m, "ci95": [low, high]}`."""
        return {"mean": self.mean, "ci95": [self.low, self.high]}


def mean_interval(values_E: NDArray[np.floating], *, seed: int) -> Interval:
    """Mean over E episodes with its percentile interval (Efron 1979), 10,000 resamples.

    Args:
        values_E: one finite figure per episode, at least one; a single episode has an interval of no width.
        seed: of the resampling; equal seeds give equal intervals.
    """
    values = np.asarray(values_E, np.float64)
    assert values.ndim == 1, "one figure per episode"
    assert len(values), "one episode or more"
    assert np.isfinite(values).all(), "figures are finite"
    drawn = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    centre = values.mean()
    low, high = np.percentile((values - centre)[drawn].mean(axis=1), _PERCENTILES)
    return Interval(mean=float(centre), low=float(centre + low), high=float(centre + high))


def paired_gain(ours_E: NDArray[np.floating], baseline_E: NDArray[np.floating], *, seed: int) -> Interval:
    """Mean gain over a baseline on the same E episodes, with the interval of the paired differences.

    Both figures of an episode are drawn together, so what makes an episode hard for both cancels.

    Args:
        ours_E: one finite figure per episode.
        baseline_E: the baseline's figure of the same episodes in the same order.
        seed: of the resampling.
    """
    assert np.shape(ours_E) == np.shape(baseline_E), "the same episodes on both sides"
    return mean_interval(np.asarray(ours_E, np.float64) - np.asarray(baseline_E, np.float64), seed=seed)
