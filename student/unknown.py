"""Is a region one of the personal objects at all? A threshold with a stated false-accept rate, and how well it can do.

A learner's scores are shares among candidates: with a single candidate that share is 1, whatever the region shows. The
scores here are `PrototypeLearner.closeness`, which compares a region with its nearest prototype alone; any other score
that is higher for personal objects will do. -inf stands for regions that no prototype was found for.

Legend: K scores of regions of personal objects, U scores of unrelated regions, rates and recall are 0..1. A threshold
accepts what is above it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.errors import MochaError


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


def auroc(known_K: NDArray[np.floating], unrelated_U: NDArray[np.floating]) -> float:
    """Chance that a region of a personal object scores higher than an unrelated one; a tie counts half.

    1 separates them all, 0.5 is chance; the area under `roc_curve` with straight lines between its points.
    """
    known, unrelated = _both(known_K, unrelated_U)
    below, up_to = (np.searchsorted(unrelated, known, side) for side in ("left", "right"))
    return float((below + up_to).mean()) / (2 * len(unrelated))


def roc_curve(known_K: NDArray[np.floating], unrelated_U: NDArray[np.floating]) -> RocCurve:
    """What every threshold accepts: one point per different score, and one that accepts everything."""
    known, unrelated = _both(known_K, unrelated_U)
    scores = np.unique(np.concatenate([known, unrelated]))[::-1]
    false_accept, recall = (
        np.append(1 - np.searchsorted(side, scores, side="right") / len(side), 1) for side in (unrelated, known)
    )
    return RocCurve(threshold=np.append(scores, -np.inf), false_accept=false_accept, recall=recall)


def false_accept_at_recall(
    known_K: NDArray[np.floating], unrelated_U: NDArray[np.floating], recall: float = 0.95
) -> float:
    """The lowest false-accept rate of a threshold that accepts at least this share of the personal objects' regions."""
    assert 0 < recall <= 1, "recall is a share"
    curve = roc_curve(known_K, unrelated_U)
    return float(curve.false_accept[(curve.recall >= recall - 1e-9).argmax()])


def _both(
    known_K: NDArray[np.floating], unrelated_U: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known, unrelated = _sorted(known_K), _sorted(unrelated_U)
    assert len(known), "one region of a personal object or more"
    assert len(unrelated), "one unrelated region or more"
    return known, unrelated


def _sorted(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.sort(np.asarray(scores, np.float64))
    assert not np.isnan(values).any(), "scores are numbers"
    return values
