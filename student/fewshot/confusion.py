"""Which objects of a coarse class are taken for which: a reading of confusion counts (numpy only).

Legend: E episodes, P personal objects, p those of one coarse class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.metrics import MISSED


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseConfusion:
    """What the objects of one coarse class were called, episode by episode."""

    objects: NDArray[np.int64]  # (p,)
    """Their personal ids, ascending: the order of all rows and columns."""
    taken_for: NDArray[np.int64]  # (E, p, p)
    """True object by given name; the diagonal is right."""
    elsewhere: NDArray[np.int64]  # (E, p)
    """Called after an object of another coarse class."""
    unknown: NDArray[np.int64]  # (E, p)
    missed: NDArray[np.int64]  # (E, p)

    def shares(self) -> dict[str, NDArray[np.float64]]:
        """Share of each outcome in every episode that shows the class, in their order; 0..100, and they sum to 100.

        `right`, `mixed_up` (with another object of the class), `elsewhere`, `unknown` and `missed`. Methods that are
        asked about the same scenes leave out the same episodes, so that their shares are paired.
        """
        right = self.taken_for.diagonal(axis1=1, axis2=2).sum(axis=1)
        counts = {
            "right": right,
            "mixed_up": self.taken_for.sum(axis=(1, 2)) - right,
            "elsewhere": self.elsewhere.sum(axis=1),
            "unknown": self.unknown.sum(axis=1),
            "missed": self.missed.sum(axis=1),
        }
        totals = np.sum(list(counts.values()), axis=0)
        return {outcome: 100 * count[totals > 0] / totals[totals > 0] for outcome, count in counts.items()}


def confusion_by_coarse(counts_EPX: NDArray[np.int64], coarse_of_P: NDArray[np.int64]) -> dict[int, CoarseConfusion]:
    """Confusion among the objects of each coarse class that has some, by coarse id in ascending order.

    Args:
        counts_EPX: `metrics.confusion` of every episode, (E, P, P + 2).
        coarse_of_P: coarse class of each personal object.
    """
    classes = {}
    for coarse in np.unique(coarse_of_P).tolist():
        objects = np.flatnonzero(coarse_of_P == coarse)
        rows = counts_EPX[:, objects]
        others = np.flatnonzero(coarse_of_P != coarse)
        classes[coarse] = CoarseConfusion(
            objects=objects, taken_for=rows[:, :, objects], elsewhere=rows[:, :, others].sum(axis=2),
            unknown=rows[:, :, UNKNOWN], missed=rows[:, :, MISSED],
        )  # fmt: skip
    return classes
