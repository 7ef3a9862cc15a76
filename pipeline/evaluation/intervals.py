"""Student's t over training seeds: how far a mean would move had other seeds been drawn.

Three to five seeds are too few for a bootstrap; the t interval is exact where figures scatter normally.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TAIL = 0.975  # 95 %, two-sided


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedMean:
    """A mean over seeds with its 95 % interval."""

    mean: float
    half_width: float | None
    """The interval is mean - half_width to mean + half_width; None for a single seed, which has none."""

    def to_json(self) -> dict[str, float | list[float] | None]:
        """The form that reports use: `{"mean": m, "ci95": [low, high]}`."""
        half = self.half_width
        return {"mean": self.mean, "ci95": None if half is None else [self.mean - half, self.mean + half]}


def seed_mean(values_S: NDArray[np.floating]) -> SeedMean:
    """Mean over S seeds, and s / sqrt(S) times the 97.5 % quantile of Student's t with S - 1 degrees of freedom.

    Args:
        values_S: one finite figure per seed, at least one. For the gain over another variant, the differences of the
            figures of equal seeds: what a seed does to both cancels.
    """
    from scipy.stats import t

    values = np.asarray(values_S, np.float64)
    assert values.ndim == 1, "one figure per seed"
    assert len(values), "one seed or more"
    assert np.isfinite(values).all(), "figures are finite"
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return SeedMean(mean=mean, half_width=None)
    error = float(values.std(ddof=1)) / count**0.5
    return SeedMean(mean=mean, half_width=float(t.ppf(_TAIL, count - 1)) * error)
