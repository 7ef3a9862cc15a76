"""Percentile bootstrap over episodes: how far a mean would move had other episodes been drawn."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 10_000
_PERCENTILES = (2.5, 97.5)
_DRAWN_AT_ONCE = 2**20  # figures: bounds the memory, whatever the number of episodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with its 95 % interval; the ends are infinite where nothing is known of them."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | list[float] | None]:
        """The form that reports use: `{"mean": m, "ci95": [low, high]}`; null in place of an unbounded interval."""
        return {"mean": self.mean, "ci95": None if math.isinf(self.low) else [self.low, self.high]}


def mean_interval(values_E: NDArray[np.floating], *, seed: int) -> Interval:
    """Mean over E episodes with its percentile interval (Efron 1979), 10,000 resamples.

    For the gain over a baseline, give the differences of each episode's two figures: both are then drawn together, and
    what makes an episode hard for both cancels.

    Args:
        values_E: one finite figure per episode, at least one; a single episode has an interval of no width.
        seed: of the resampling; equal seeds give equal intervals.
    """
    from scipy.stats import bootstrap  # not above: importing it takes half a second

    values = np.asarray(values_E, np.float64)
    assert values.ndim == 1, "one figure per episode"
    assert len(values), "one episode or more"
    assert np.isfinite(values).all(), "figures are finite"
    mean = values.mean()
    low = high = mean
    if len(values) > 1:
        resampled = bootstrap(
            (values - mean,), np.mean, n_resamples=_RESAMPLES, method="percentile",
            batch=max(1, _DRAWN_AT_ONCE // len(values)), rng=np.random.default_rng(seed),
        )  # fmt: skip
        low, high = mean + np.percentile(resampled.bootstrap_distribution, _PERCENTILES)
    return Interval(mean=float(mean), low=float(low), high=float(high))
