"""Few-shot learners by name, fitted on the embeddings of 1 to 5 pictures per object (numpy and scipy only).

`conditional` believes the detector's class. To the others it is no evidence at all: on photographs one thing has
another class from picture to picture, or is one that the detector has no word for; what tells the class lies in the
maps that the embedding is made of, too; and a cosine alone can be calibrated (strangers.py).

Legend: N support regions, M query regions, P prototypes, D width of an embedding, K most prototypes of a coarse class.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from mocha_pipe.student.fewshot.learner import UNKNOWN, PrototypeError, PrototypeLearner, Prototypes

EPSILON = 1e-5  # added to distances, whose reciprocals are the scores


class ConditionalPrototypes(PrototypeLearner):
    """The reference learner: candidates are only the prototypes of the detector's coarse class (MOCHA, section 3).

    The score is the mean over three distances d (cosine, mean absolute difference, mean squared difference) of
    softmax(1 / (d + 1e-5)) over the candidates. A region whose coarse class has no prototypes is unknown.
    """

    name = "conditional"
    by_class = True

    def _nearest(
        self, queries_MD: NDArray[np.float32], coarse_M: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows_M = np.full(len(queries_MD), UNKNOWN, np.int64)
        scores_M = np.zeros(len(queries_MD), np.float32)
        # Queries sorted by coarse class, as the prototypes are: those of a class and its candidates are then slices.
        asked = np.argsort(coarse_M, kind="stable")
        asked = asked[np.isin(coarse_M[asked], self.coarse_)]
        if len(asked):
            first, last = (np.searchsorted(self.coarse_, coarse_M[asked], side) for side in ("left", "right"))
            # In float64: the expanded square loses its digits where a query is close to a prototype.
            shares = self._shares(queries_MD[asked].astype(np.float64), first, last)
            best = shares.argmax(axis=1)
            rows_M[asked] = first + best
            scores_M[asked] = np.take_along_axis(shares, best[:, None], axis=1)[:, 0]
        return rows_M, scores_M

    def _shares(
        self, queries_MD: NDArray[np.float64], first_M: NDArray[np.int64], last_M: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Shares (M, K) of each query among its candidates, the prototypes first to last; 0 beyond them."""
        prototypes = self.prototypes_.astype(np.float64)
        width = queries_MD.shape[1]
        candidates_MK = first_M[:, None] + np.arange((last_M - first_M).max())
        valid_MK = candidates_MK < last_M[:, None]
        products_MK, absolute_MK = np.zeros(valid_MK.shape), np.zeros(valid_MK.shape)
        starts = np.flatnonzero(np.diff(first_M, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(queries_MD)], strict=True):
            queries, known = queries_MD[start:stop], prototypes[first_M[start] : last_M[start]]
            products_MK[start:stop, : len(known)] = queries @ known.T
            absolute_MK[start:stop, : len(known)] = cdist(queries, known, "cityblock")
        squares_M1 = np.einsum("md,md->m", queries_MD, queries_MD)[:, None]
        squares_MK = np.einsum("pd,pd->p", prototypes, prototypes)[np.minimum(candidates_MK, len(prototypes) - 1)]
        cosine_MK = products_MK / np.maximum(np.sqrt(squares_M1 * squares_MK), np.finfo(np.float32).tiny)
        distances = (1 - cosine_MK, absolute_MK / width, (squares_M1 + squares_MK - 2 * products_MK) / width)
        # Rounding may bring a distance a little below 0, where its reciprocal would be negative.
        closeness = 1 / (np.maximum(distances, 0) + EPSILON)  # (3, M, K)
        return np.asarray(_softmax(np.where(valid_MK, closeness, -np.inf)).mean(axis=0))


class ProtoNet(PrototypeLearner):
    """All objects compete; softmax over negative squared distances (Snell et al. 2017, equation 2).

    An object is compared as one mean of all its support regions, under whatever classes the detector saw them. What is
    kept has still a row for each class.
    """

    name = "protonet"

    def compared(self) -> NDArray[np.float32]:
        """Of each row the mean of its object."""
        _, object_P = np.unique(self.personal_, return_inverse=True)
        totals = np.bincount(object_P, weights=self.counts_)
        sums = np.zeros((len(totals), self.prototypes_.shape[1]))
        np.add.at(sums, object_P, self.prototypes_.astype(np.float64) * self.counts_[:, None])
        return (sums / totals[:, None]).astype(np.float32)[object_P]

    def _competing(self) -> NDArray[np.int64]:
        """The first row of each object."""
        return np.sort(np.unique(self.personal_, return_index=True)[1])

    def _nearest(
        self,
        queries_MD: NDArray[np.float32],
        coarse_M: NDArray[np.integer],  # noqa: ARG002
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = self._competing()
        queries, prototypes = queries_MD.astype(np.float64), self.compared()[rows].astype(np.float64)
        # Without the query's own square, which all prototypes share and a softmax ignores.
        best_M, scores_M = _best(_softmax(2 * queries @ prototypes.T - (prototypes**2).sum(axis=1)))
        return rows[best_M], scores_M


class SimpleShot(ProtoNet):
    """ProtoNet on unit-norm embeddings (Wang et al. 2019, the L2N transform): only the direction counts."""

    name = "simpleshot"
    unit_length = True


class CosineGallery(PrototypeLearner):
    """Every support region is kept; the one with the highest cosine names a query, whatever the coarse class.

    Nothing is learnt, as in a gallery of crops: each support region is a prototype of its own with a count of 1, in the
    order of arrival within an object. The score is the cosine, or 0 where that is negative.
    """

    name = "gallery"
    unit_length = True

    def _nearest(
        self,
        queries_MD: NDArray[np.float32],
        coarse_M: NDArray[np.integer],  # noqa: ARG002
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows_M, cosines_M = _best(queries_MD @ self.prototypes_.T)
        return rows_M, np.clip(cosines_M, 0, 1)

    def _merge(self, known: Prototypes) -> Prototypes:
        return known


LEARNERS: dict[str, type[PrototypeLearner]] = {
    learner.name: learner for learner in (ConditionalPrototypes, ProtoNet, SimpleShot, CosineGallery)
}
"""Learners by name."""


def make_learner(name: str) -> PrototypeLearner:
    """A new, unfitted learner.

    Raises:
        PrototypeError: if there is no learner of this name.
    """
    if name not in LEARNERS:
        raise PrototypeError(f"--learner must be one of {', '.join(LEARNERS)}; found {name!r}.")
    return LEARNERS[name]()


def _best(scores_MP: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first of the highest scores of each row: where (M,), and how high (M,)."""
    best_M = scores_MP.argmax(axis=1)
    return best_M, np.take_along_axis(scores_MP, best_M[:, None], axis=1)[:, 0].astype(np.float32)


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Over the last axis; differences in the logits' own precision, their exponentials in float32."""
    shares = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype(np.float32))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))
