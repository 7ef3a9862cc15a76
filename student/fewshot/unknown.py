"""Is a region one of the personal objects at all? A threshold with a stated false-accept rate, and how well it can do.

A learner's scores are shares among candidates: with a single candidate that share is 1, whatever the region shows. The
scores here are `PrototypeLearner.closeness`, which compares a region with its nearest prototype alone; any other score
that is higher for personal objects will do. -inf stands for regions that no prototype was found for.

Legend: K scores of regions of personal objects, U scores of unrelated regions, rates and recall are 0..1. A threshold
accepts what is above it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.errors import MochaError

Weights = tuple[NDArray[np.floating], NDArray[np.floating]]
"""What each region counts, above 0: of the K, and of the U. All alike where not given."""


class CalibrationError(MochaError, ValueError):
    """No threshold keeps the false-accept rate that was asked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RocCurve:
    """One point per threshold, from what accepts nothing to what accepts everything."""

    threshold: NDArray[np.float64]
    """Descending; the last one, -inf, accepts everything."""
    false_accept: NDArray[np.float64]
    """Share of unrelated regions that are accepted, ascending from 0 to 1."""
    recall: NDArray[np.float64]
    """Share of regions of personal objects that are accepted, ascending from 0 to 1."""


def calibrate(unrelated_U: NDArray[np.floating], false_accept_rate: float) -> float:
    """The lowest threshold that keeps a false-accept rate: split conformal prediction (Vovk et al. 2005).

    One more unrelated region, drawn like these U, is above the threshold with a probability of at most
    `false_accept_rate`, and where scores have no ties of at least `false_accept_rate - 1 / (U + 1)`, both over the draw
    of all U + 1. Nothing is assumed about the scores' distribution; regions of another kind are not covered.

    Args:
        unrelated_U: scores of regions that are none of the personal objects.
        false_accept_rate: above 0 and below 1.

    Raises:
        CalibrationError: if the rate makes no sense, or the scores are too few for it.
    """
    if not 0 < false_accept_rate < 1:
        raise CalibrationError(
            f"a false-accept rate must be above 0 and below 1, found {false_accept_rate:g}; 0.05 accepts one of twenty"
        )
    scores = _sorted(unrelated_U)
    above = math.floor(false_accept_rate * (len(scores) + 1) + 1e-9)  # 0.29 * 100 is a little less than 29
    if not above:
        least = math.ceil(1 / false_accept_rate - 1e-9) - 1
        higher = f", or ask for a rate of 1/{len(scores) + 1} or more" if len(scores) else ""
        raise CalibrationError(
            f"a false-accept rate of {false_accept_rate:g} needs {least} or more regions that are none of the objects, "
            f"found {len(scores)}; calibrate on more of them{higher}"
        )
    return float(scores[-above])


def auroc(known_K: NDArray[np.floating], unrelated_U: NDArray[np.floating], *, weights: Weights | None = None) -> float:
    """Chance that a region of a personal object scores higher than an unrelated one; a tie counts half.

    1 separates them all, 0.5 is chance; the area under `roc_curve` with straight lines between its points.
    """
    known, unrelated = _both(known_K, unrelated_U, weights)
    below, up_to = (unrelated.share_up_to(known.scores, side) for side in ("left", "right"))
    return float(np.average((below + up_to) / 2, weights=known.weights))


def roc_curve(
    known_K: NDArray[np.floating], unrelated_U: NDArray[np.floating], *, weights: Weights | None = None
) -> RocCurve:
    """What every threshold accepts: one point per different score, and one that accepts everything."""
    known, unrelated = _both(known_K, unrelated_U, weights)
    scores = np.unique(np.concatenate([known.scores, unrelated.scores]))[::-1]
    false_accept, recall = (np.append(1 - side.share_up_to(scores, "right"), 1) for side in (unrelated, known))
    return RocCurve(threshold=np.append(scores, -np.inf), false_accept=false_accept, recall=recall)


def false_accept_at_recall(
    known_K: NDArray[np.floating],
    unrelated_U: NDArray[np.floating],
    recall: float = 0.95,
    *,
    weights: Weights | None = None,
) -> float:
    """The lowest false-accept rate of a threshold that accepts at least this share of the personal objects' regions."""
    assert 0 < recall <= 1, "recall is a share"
    curve = roc_curve(known_K, unrelated_U, weights=weights)
    return float(curve.false_accept[(curve.recall >= recall - 1e-9).argmax()])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """Scores of regions of one kind, ascending, and what each counts."""

    scores: NDArray[np.float64]
    weights: NDArray[np.float64]

    def share_up_to(self, thresholds: NDArray[np.float64], side: Literal["left", "right"]) -> NDArray[np.float64]:
        """Share of the weight below thresholds (left), or not above them (right)."""
        total = np.append(0, np.cumsum(self.weights))
        return np.asarray(total[np.searchsorted(self.scores, thresholds, side)] / total[-1])


def _both(
    known_K: NDArray[np.floating], unrelated_U: NDArray[np.floating], weights: Weights | None
) -> tuple[_Side, _Side]:
    assert len(known_K), "one region of a personal object or more"
    assert len(unrelated_U), "one unrelated region or more"
    known, unrelated = weights or (np.ones(len(known_K)), np.ones(len(unrelated_U)))
    return _side(known_K, known), _side(unrelated_U, unrelated)


def _side(scores: NDArray[np.floating], weights: NDArray[np.floating]) -> _Side:
    order = np.argsort(scores)
    return _Side(scores=_sorted(scores), weights=np.asarray(weights, np.float64)[order])


def _sorted(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.sort(np.asarray(scores, np.float64))
    assert not np.isnan(values).any(), "scores are numbers"
    return values
