"""Which object of a profile a region shows, if any (numpy only).

Legend: M regions, C coarse classes, U strangers, D width of an embedding.
"""

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.boxes import box_iou
from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.strangers import accept_above, certainty, check_rate, shortfall
from mocha_pipe.student.personal.profile import Profile

SAME_THING_IOU = 0.7
"""Boxes that overlap more are one thing: what the detector's own NMS holds of two boxes of one class."""


class Namer:
    """Names regions after the objects of one profile.

    A region gets the name of its nearest prototype where it is closer to it than nearly all strangers. Which prototypes
    compete is the learner's affair: those of the region's coarse class, or all of the profile, whatever the class.
    Other regions keep the name of their coarse class.
    """

    def __init__(self, profile: Profile, strangers_U: NDArray[np.float32], false_accept_rate: float) -> None:
        """Computes the threshold of each coarse class, which is higher where more prototypes compete.

        Args:
            profile: the objects.
            strangers_U: how close strangers come to a prototype, ascending (student/fewshot/strangers.py).
            false_accept_rate: share of strangers that may get one of the names.

        Raises:
            CalibrationError: the rate makes no sense.
        """
        check_rate(false_accept_rate)
        self.names = dict(enumerate([*profile.class_names, *profile.names]))
        self._learner = profile.learner
        self._strangers_U = strangers_U
        candidates_C = profile.learner.candidates(np.arange(len(profile.class_names)))
        self._threshold_C = np.full(len(candidates_C), np.inf)
        counts = np.unique(candidates_C[candidates_C > 0]).tolist()
        for count in counts:
            self._threshold_C[candidates_C == count] = accept_above(strangers_U, false_accept_rate, count)
        self.shortfall = shortfall(len(strangers_U), false_accept_rate, counts[-1]) if counts else None
        """Which rate is kept instead of the one asked for, in words, where the strangers are too few; else None."""

    def may_name(self, coarse_M: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether any object can be meant where the detector says these classes (M,); others need no embedding."""
        return np.asarray(np.isfinite(self._threshold_C[coarse_M]))

    def __call__(
        self, embeddings_MD: NDArray[np.float32], coarse_M: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Personal ids (M,), -1 where unknown, and the certainty (M,) of each name, 0 where unknown."""
        rows_M, _ = self._learner.nearest(embeddings_MD, coarse_M)
        closeness_M = self._learner.closeness(embeddings_MD, rows_M)
        is_known = closeness_M > self._threshold_C[coarse_M]
        sure_M = certainty(closeness_M, self._strangers_U)
        return np.where(is_known, self._learner.names(rows_M), UNKNOWN), np.where(is_known, sure_M, np.float32(0))


def named_once(
    xyxy_M4: NDArray[np.floating], personal_M: NDArray[np.int64], coarse_M: NDArray[np.integer]
) -> NDArray[np.bool_]:  # (M,)
    """Which detections of an image stay when a thing that was boxed under two classes gets its personal name once.

    Of boxes with one personal name, two classes and an IoU above `SAME_THING_IOU`, only the most confident stays, as it
    would have, had the detector said one class. Boxes without a personal name all stay.

    Args:
        xyxy_M4: corners, the most confident detection first.
        personal_M: personal id of each, -1 where unknown.
        coarse_M: the detector's class of each.
    """
    stays_M = np.ones(len(personal_M), np.bool_)
    named = np.flatnonzero(personal_M != UNKNOWN)
    overlaps = box_iou(xyxy_M4[named], xyxy_M4[named]) > SAME_THING_IOU
    overlaps &= (personal_M[named, None] == personal_M[named]) & (coarse_M[named, None] != coarse_M[named])
    for place, row in enumerate(named.tolist()):
        stays_M[row] = not (overlaps[place, :place] & stays_M[named[:place]]).any()
    return stays_M
