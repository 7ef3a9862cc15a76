"""Which object of a profile a region shows, if any (numpy only).

Legend: M regions, C coarse classes, U strangers, D width of an embedding.
"""

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.strangers import accept_above, certainty
from mocha_pipe.student.personal.profile import Profile


class Namer:
    """Names regions after the objects of one profile.

    A region gets the name of its nearest prototype where two things hold: the prototype belongs to the region's coarse
    class, and the region is closer to it than nearly all strangers. Other regions keep the name of their coarse class.
    """

    def __init__(self, profile: Profile, strangers_U: NDArray[np.float32], false_accept_rate: float) -> None:
        """Computes the threshold of each coarse class, which is higher where the class has more prototypes.

        Args:
            profile: the objects.
            strangers_U: how close strangers come to a prototype, ascending (student/fewshot/strangers.py).
            false_accept_rate: share of a coarse class's strangers that may get one of the names.

        Raises:
            CalibrationError: the rate makes no sense, or the strangers are too few for it.
        """
        self.names = dict(enumerate([*profile.class_names, *profile.names]))
        self._learner = profile.learner
        self._strangers_U = strangers_U
        self._threshold_C = np.full(len(profile.class_names), np.inf)
        classes, counts = np.unique(profile.learner.coarse_, return_counts=True)
        for coarse, count in zip(classes.tolist(), counts.tolist(), strict=True):
            self._threshold_C[coarse] = accept_above(strangers_U, false_accept_rate, count)

    def may_name(self, coarse_M: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether any object is of the region's coarse class (M,); other regions need no embedding."""
        return np.asarray(np.isfinite(self._threshold_C[coarse_M]))

    def __call__(
        self, embeddings_MD: NDArray[np.float32], coarse_M: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Personal ids (M,), -1 where unknown, and the certainty (M,) of each name, 0 where unknown."""
        rows_M, _ = self._learner.nearest(embeddings_MD, coarse_M)
        closeness_M = self._learner.closeness(embeddings_MD, rows_M)
        is_known = (closeness_M > self._threshold_C[coarse_M]) & (self._learner.coarse_[rows_M] == coarse_M)
        sure_M = certainty(closeness_M, self._strangers_U)
        return np.where(is_known, self._learner.names(rows_M), UNKNOWN), np.where(is_known, sure_M, np.float32(0))
