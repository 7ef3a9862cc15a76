"""How well a score separates regions of personal objects from unrelated ones, whatever the threshold (numpy only).

A threshold accepts the regions that score above it. Rates and recall are 0..1.

Legend: N regions of one kind, G thresholds.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray


class Scores:
    """Scores of regions of one kind, ascending, and how much each region counts in a share or a mean."""

    def __init__(self, values_N: NDArray[np.floating], weights_N: NDArray[np.floating]) -> None:
        """Sorts them.

        Args:
            values_N: one score per region, at least one.
            weights_N: above 0; only their ratios matter.
        """
        assert len(values_N), "one region or more"
        order = np.argsort(values_N)
        self.values = np.asarray(values_N, np.float64)[order]
        self.weights = np.asarray(weights_N, np.float64)[order]
        assert not np.isnan(self.values).any(), "scores are numbers"

    def share_up_to(self, thresholds_G: NDArray[np.float64], side: Literal["left", "right"]) -> NDArray[np.float64]:
        """Share (G,) of the weight that lies below each threshold (`left`), or not above it (`right`)."""
        total = np.append(0, np.cumsum(self.weights))
        return np.asarray(total[np.searchsorted(self.values, thresholds_G, side)] / total[-1])


def auroc(known: Scores, unrelated: Scores) -> float:
    """Chance that a region of a personal object scores higher than an unrelated one; a tie counts half.

    1 separates them all, 0.5 is chance; the area under `roc_curve` with straight lines between its points.
    """
    below, up_to = (unrelated.share_up_to(known.values, side) for side in ("left", "right"))
    return float(np.average((below + up_to) / 2, weights=known.weights))


def roc_curve(known: Scores, unrelated: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each threshold accepts, from the highest score, which accepts nothing, to -inf, which accepts everything.

    Returns:
        Shares of the unrelated and of the personal objects' regions (G,), both ascending from 0 to 1; the thresholds
        are the G - 1 different scores of both kinds, then -inf.
    """
    thresholds = np.unique(np.concatenate([known.values, unrelated.values]))[::-1]
    false_accept, recall = (np.append(1 - side.share_up_to(thresholds, "right"), 1) for side in (unrelated, known))
    return false_accept, recall


def false_accept_at_recall(known: Scores, unrelated: Scores, least: float) -> float:
    """The lowest false-accept rate of a threshold that accepts at least this share of the personal objects' regions."""
    assert 0 < least <= 1, "recall is a share"
    false_accept, recall = roc_curve(known, unrelated)
    return float(false_accept[(recall >= least - 1e-9).argmax()])
