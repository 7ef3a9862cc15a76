"""Student's t over training seeds: how far a mean would move had other seeds been drawn.

Three to five seeds are too few for a bootstrap; the t interval is exact where figures scatter normally.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.student.fewshot.bootstrap import Interval


def seed_mean(values_S: NDArray[np.floating]) -> Interval:
    """Mean over S seeds with its 95 % interval by Student's t; that of a single seed is unbounded.

    Args:
        values_S: one finite figure per seed, at least one. For the gain over another variant, the differences of the
            figures of equal seeds: what a seed does to both cancels.
    """
    from scipy.stats import sem, t

    values = np.asarray(values_S, np.float64)
    assert values.ndim == 1, "one figure per seed"
    assert len(values), "one seed or more"
    assert np.isfinite(values).all(), "figures are finite"
    mean, half = float(values.mean()), math.inf
    if len(values) > 1:
        half = float(t.ppf(0.975, len(values) - 1) * sem(values))
    return Interval(mean=mean, low=mean - half, high=mean + half)
