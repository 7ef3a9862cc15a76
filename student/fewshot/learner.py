"""What every few-shot learner does: it keeps prototypes by object, and the nearest one names a region (numpy only).

Legend: N support regions, M query regions, P prototypes, D width of an embedding.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.errors import MochaError

UNKNOWN = -1
"""Personal id of a region that belongs to no known object."""

Prototypes = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Vectors (P, D), and of each its coarse id, its personal id and the number of support regions behind it (P,)."""


class PrototypeError(MochaError, ValueError):
    """There is no such learner, or its prototypes do not fit the embeddings that they are compared with."""


class PrototypeLearner(ABC):
    """Mean embedding per (coarse class, personal object); the nearest prototype names a region.

    It knows `prototypes_` (P, D) float32, `coarse_` (P,) int64, `personal_` (P,) int64 and `counts_` (P,) int64, sorted
    by coarse, then personal id. A new learner has none of them, and takes embeddings of any width.
    """

    name: ClassVar[str]
    """How the learner is called on the command line and in a saved file."""
    unit_length: ClassVar[bool] = False
    """Whether embeddings are brought to norm 1 first, so that only their direction counts."""
    by_class: ClassVar[bool] = False
    """Whether a region competes only for the objects of the class that the detector says; otherwise for all of them."""

    def __init__(self) -> None:
        self.prototypes_ = np.zeros((0, 0), np.float32)
        self.coarse_, self.personal_, self.counts_ = (np.zeros(0, np.int64) for _ in range(3))

    def learn(
        self, embeddings_ND: NDArray[np.floating], coarse_N: NDArray[np.integer], personal_N: NDArray[np.integer]
    ) -> Self:
        """Add support regions to what is known; objects without new regions keep their prototypes.

        Args:
            embeddings_ND: one row per support region.
            coarse_N: the detector's class id of each.
            personal_N: the personal id of each, 0 or more.

        Raises:
            PrototypeError: if the width of the embeddings is not that of the prototypes.
        """
        assert len(embeddings_ND) == len(coarse_N) == len(personal_N), "one coarse and one personal id per embedding"
        assert np.isfinite(embeddings_ND).all(), "support embeddings are finite"
        assert (np.asarray(personal_N) >= 0).all(), "personal ids are 0 or more"
        counts = np.ones(len(embeddings_ND), np.int64)
        coarse, personal = np.asarray(coarse_N, np.int64), np.asarray(personal_N, np.int64)
        return self.absorb(self.vectors(embeddings_ND), coarse, personal, counts)

    def vectors(self, embeddings_ND: NDArray[np.floating]) -> NDArray[np.float32]:
        """Support regions as `absorb` takes them (N, D).

        Raises:
            PrototypeError: if the width of the embeddings is not that of the prototypes.
        """
        self._known(embeddings_ND.shape[1])
        return self._transform(embeddings_ND)

    def absorb(
        self,
        prototypes: NDArray[np.float32],
        coarse: NDArray[np.int64],
        personal: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> Self:
        """Add the `tensors` of another learner of this kind, as if this one had learnt from their support regions.

        Raises:
            PrototypeError: if the prototypes of the two differ in width.
        """
        prototypes = np.concatenate([self._known(prototypes.shape[1]), prototypes])
        coarse = np.concatenate([self.coarse_, coarse])
        personal = np.concatenate([self.personal_, personal])
        counts = np.concatenate([self.counts_, counts])
        order = np.lexsort((personal, coarse))
        merged = self._merge((prototypes[order], coarse[order], personal[order], counts[order]))
        self.prototypes_, self.coarse_, self.personal_, self.counts_ = merged
        return self

    def predict(
        self, embeddings_MD: NDArray[np.floating], coarse_M: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Name regions.

        Args:
            embeddings_MD: one row per region.
            coarse_M: the detector's class id of each.

        Returns:
            Personal ids (M,), -1 where the region is unknown, and scores (M,) in 0..1, 0 where unknown. Of equal scores
            the prototype with the lowest (coarse, personal) id wins.

        Raises:
            PrototypeError: if the width of the embeddings is not that of the prototypes.
        """
        rows_M, scores_M = self.nearest(embeddings_MD, coarse_M)
        return self.names(rows_M), scores_M

    def nearest(
        self, embeddings_MD: NDArray[np.floating], coarse_M: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `predict`, but rows of `prototypes_` (M,) in place of personal ids, -1 where nothing is near."""
        self._known(embeddings_MD.shape[1])
        if not len(embeddings_MD) or not len(self.prototypes_):
            return np.full(len(embeddings_MD), UNKNOWN, np.int64), np.zeros(len(embeddings_MD), np.float32)
        return self._nearest(self._transform(embeddings_MD), np.asarray(coarse_M))

    def compared(self) -> NDArray[np.float32]:  # (P, D)
        """What regions are compared with: one row for each of `prototypes_`, equal ones where several stand for one."""
        return self.prototypes_

    def candidates(self, coarse_M: NDArray[np.integer]) -> NDArray[np.int64]:  # (M,)
        """How many different vectors a region of each class is compared with."""
        if not self.by_class:
            return np.full(len(coarse_M), len(self._competing()), np.int64)
        first_M, last_M = (np.searchsorted(self.coarse_, coarse_M, side) for side in ("left", "right"))
        return np.asarray(last_M - first_M, np.int64)

    def names(self, rows_M: NDArray[np.int64]) -> NDArray[np.int64]:
        """Personal ids (M,) of what `nearest` found."""
        return np.append(self.personal_, UNKNOWN)[rows_M]

    def closeness(self, embeddings_MD: NDArray[np.floating], rows_M: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cosine (M,) between regions and what `nearest` found closest to them; -inf where it found nothing."""
        width = embeddings_MD.shape[1]
        known = self.compared() if len(self._known(width)) else np.zeros((0, width), np.float32)
        vectors = np.append(known, np.zeros((1, width), np.float32), axis=0)[rows_M]
        left, right = (unit_rows(rows.astype(np.float64)) for rows in (self._transform(embeddings_MD), vectors))
        return np.where(rows_M == UNKNOWN, -np.inf, np.einsum("md,md->m", left, right))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All that was learnt, by the names that `absorb` takes."""
        return {name: getattr(self, f"{name}_") for name in ("prototypes", "coarse", "personal", "counts")}

    @abstractmethod
    def _nearest(
        self, queries_MD: NDArray[np.float32], coarse_M: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`nearest` of one region or more among one prototype or more."""

    def _competing(self) -> NDArray[np.int64]:
        """Rows of `compared` that differ, ascending."""
        return np.arange(len(self.prototypes_))

    def _transform(self, embeddings_ND: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.asarray(unit_rows(embeddings_ND) if self.unit_length else embeddings_ND, np.float32)

    def _merge(self, known: Prototypes) -> Prototypes:
        """Prototypes from known vectors and new ones, which come sorted by object: here a running mean per object."""
        vectors, coarse, personal, counts = known
        if not len(vectors):
            return known
        first = np.flatnonzero(np.append(True, (np.diff(coarse) != 0) | (np.diff(personal) != 0)))
        totals = np.add.reduceat(counts, first)
        sums = np.add.reduceat(vectors.astype(np.float64) * counts[:, None], first)
        return (sums / totals[:, None]).astype(np.float32), coarse[first], personal[first], totals

    def _known(self, width: int) -> NDArray[np.float32]:  # (P, width)
        """The prototypes, refused where embeddings have another width; without any, every width will do."""
        if len(self.prototypes_) and width != self.prototypes_.shape[1]:
            raise PrototypeError(
                f"prototypes and embeddings must have one width: the prototypes have {self.prototypes_.shape[1]}, the "
                f"embeddings {width}. They come from different students; fit the prototypes again with this one."
            )
        return self.prototypes_.reshape(len(self.prototypes_), width)


def unit_rows(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows at norm 1, in their own precision; a zero row stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, np.finfo(np.float32).tiny))
