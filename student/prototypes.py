"""Few-shot learners: one prototype per personal object, fitted on the embeddings of 1 to 5 pictures (numpy only).

Legend: N support regions, M query regions, P prototypes, D width of an embedding.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from data.errors import MochaError
from data.files import atomic_path

UNKNOWN = -1
"""Personal id of a region that belongs to no known object."""

_EPSILON = 1e-5
_FORMAT = "mocha-prototypes-1"


class PrototypeError(MochaError, ValueError):
    """Prototypes cannot be read, or do not fit the embeddings they are used on."""


class PrototypeLearner(ABC):
    """Mean embedding per (coarse class, personal object); the nearest prototype names a region.

    After `fit`: `prototypes_` (P, D) float32, `coarse_` (P,) int64, `personal_` (P,) int64 and `counts_` (P,) int64,
    sorted by coarse, then personal id.
    """

    name: ClassVar[str]
    """How the learner is called on the command line and in a saved file."""

    prototypes_: NDArray[np.float32]
    coarse_: NDArray[np.int64]
    personal_: NDArray[np.int64]
    counts_: NDArray[np.int64]

    def fit(
        self, embeddings_ND: NDArray[np.floating], coarse_N: NDArray[np.integer], personal_N: NDArray[np.integer]
    ) -> Self:
        """Forget everything and learn from the support regions.

        Args:
            embeddings_ND: one row per support region.
            coarse_N: the detector's class id of each.
            personal_N: the personal id of each, 0 or more.
        """
        dim = embeddings_ND.shape[1]
        self._assign(np.zeros((0, dim), np.float32), *(np.zeros(0, np.int64) for _ in range(3)))
        return self.partial_fit(embeddings_ND, coarse_N, personal_N)

    def partial_fit(
        self, embeddings_ND: NDArray[np.floating], coarse_N: NDArray[np.integer], personal_N: NDArray[np.integer]
    ) -> Self:
        """Add support regions to what is known: a running mean, so objects without new regions keep their prototype.

        Raises:
            PrototypeError: if the width of the embeddings is not that of the prototypes.
        """
        assert len(embeddings_ND) == len(coarse_N) == len(personal_N), "one coarse and one personal id per embedding"
        assert np.isfinite(embeddings_ND).all(), "support embeddings are finite"
        assert (np.asarray(personal_N) >= 0).all(), "personal ids are 0 or more"
        self._check_width(embeddings_ND.shape[1])
        known = np.stack([self.coarse_, self.personal_], axis=1)  # (P, 2)
        added = np.stack([coarse_N, personal_N], axis=1).astype(np.int64)  # (N, 2)
        pairs, place = np.unique(np.concatenate([known, added]), axis=0, return_inverse=True)
        weights = np.concatenate([self.counts_, np.ones(len(added), np.int64)])
        counts = np.bincount(place, weights, minlength=len(pairs))
        rows = np.concatenate([self.prototypes_, self._transform(embeddings_ND)]).astype(np.float64)
        sums = np.zeros((len(pairs), rows.shape[1]))
        np.add.at(sums, place, rows * weights[:, None])
        # Contiguous columns: safetensors writes the bytes of a strided view in the wrong order.
        coarse, personal = np.ascontiguousarray(pairs.T)
        self._assign((sums / counts[:, None]).astype(np.float32), coarse, personal, counts.astype(np.int64))
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
        self._check_width(embeddings_MD.shape[1])
        personal_M = np.full(len(embeddings_MD), UNKNOWN, np.int64)
        scores_M = np.zeros(len(embeddings_MD), np.float32)
        queries_MD = self._transform(embeddings_MD)
        for rows, candidates in self._groups(np.asarray(coarse_M)):
            similarity = self._similarity(queries_MD[rows], self.prototypes_[candidates])  # (rows, candidates)
            best = similarity.argmax(axis=1)
            personal_M[rows] = self.personal_[candidates][best]
            scores_M[rows] = np.take_along_axis(similarity, best[:, None], axis=1)[:, 0]
        return personal_M, scores_M

    def save(self, path: Path) -> None:
        """Write one safetensors file (the learner's name in its header); an existing file is replaced whole."""
        tensors: dict[str, NDArray[np.generic]] = {"prototypes": self.prototypes_, "counts": self.counts_}
        tensors |= {"coarse": self.coarse_, "personal": self.personal_}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"format": _FORMAT, "learner": self.name})

    @abstractmethod
    def _similarity(self, queries_MD: NDArray[np.float32], prototypes_PD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shares (M, P) of each query among the candidates; rows sum to 1."""

    def _transform(self, embeddings_ND: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.asarray(embeddings_ND, np.float32)

    def _groups(self, coarse_M: NDArray[np.integer]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Query rows that share one list of candidate prototypes, with that list: here all rows and all prototypes."""
        if not len(coarse_M) or not len(self.personal_):
            return []
        return [(np.arange(len(coarse_M)), np.arange(len(self.personal_)))]

    def _assign(
        self,
        prototypes: NDArray[np.float32],
        coarse: NDArray[np.int64],
        personal: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> None:
        self.prototypes_, self.coarse_, self.personal_, self.counts_ = prototypes, coarse, personal, counts

    def _check_width(self, width: int) -> None:
        if width != self.prototypes_.shape[1]:
            raise PrototypeError(
                f"prototypes and embeddings must have one width: the prototypes have {self.prototypes_.shape[1]}, the "
                f"embeddings {width}. They come from different students; fit the prototypes again with this one."
            )


class ConditionalPrototypes(PrototypeLearner):
    """The reference learner: candidates are only the prototypes of the detector's coarse class (MOCHA, section 3).

    The score is the mean over three distances d (cosine, mean absolute difference, mean squared difference) of
    softmax(1 / (d + 1e-5)) over the candidates. A region whose coarse class has no prototypes is unknown.
    """

    name = "conditional"

    def _groups(self, coarse_M: NDArray[np.integer]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        shared = np.intersect1d(coarse_M, self.coarse_)
        return [(np.flatnonzero(coarse_M == coarse), np.flatnonzero(self.coarse_ == coarse)) for coarse in shared]

    def _similarity(self, queries_MD: NDArray[np.float32], prototypes_PD: NDArray[np.float32]) -> NDArray[np.float32]:
        distances = (
            1 - _unit(queries_MD).astype(np.float64) @ _unit(prototypes_PD).astype(np.float64).T,
            _mean_absolute_difference(queries_MD, prototypes_PD),
            _mean_squared_difference(queries_MD, prototypes_PD),
        )
        # Rounding may leave a distance a little below 0, where the reciprocal would change its sign.
        shares = [_softmax(1 / (np.maximum(distance, 0) + _EPSILON)) for distance in distances]
        return np.asarray(np.mean(shares, axis=0), np.float32)


class ProtoNet(PrototypeLearner):
    """All prototypes compete; softmax over negative squared distances (Snell et al. 2017, equation 2)."""

    name = "protonet"

    def _similarity(self, queries_MD: NDArray[np.float32], prototypes_PD: NDArray[np.float32]) -> NDArray[np.float32]:
        return _softmax(-_mean_squared_difference(queries_MD, prototypes_PD) * queries_MD.shape[1])


class SimpleShot(ProtoNet):
    """ProtoNet on unit-norm embeddings (Wang et al. 2019, the L2N transform): only the direction counts."""

    name = "simpleshot"

    def _transform(self, embeddings_ND: NDArray[np.floating]) -> NDArray[np.float32]:
        return _unit(np.asarray(embeddings_ND, np.float32))


LEARNERS: dict[str, type[PrototypeLearner]] = {
    learner.name: learner for learner in (ConditionalPrototypes, ProtoNet, SimpleShot)
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


def load_learner(path: Path) -> PrototypeLearner:
    """Read what `PrototypeLearner.save` wrote.

    Raises:
        PrototypeError: if the file is no such file.
        FileNotFoundError: if there is no file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                found = metadata.get("format", "none")
                raise PrototypeError(f"{path}: format must be {_FORMAT}, found {found}; save the prototypes again.")
            learner = make_learner(metadata["learner"])
            learner._assign(*(file.get_tensor(key) for key in ("prototypes", "coarse", "personal", "counts")))
    except SafetensorError as error:
        raise PrototypeError(f"{path}: must be a safetensors file ({error}); save the prototypes again.") from error
    return learner


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at norm 1; a zero row stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)


def _mean_absolute_difference(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, P) of rows (M, D) and (P, D); one prototype at a time stays in the processor's cache."""
    means = np.empty((len(left), len(right)), np.float32)
    difference = np.empty_like(left)
    for index, row in enumerate(right):
        np.subtract(left, row, out=difference)
        np.abs(difference, out=difference)
        means[:, index] = difference.mean(axis=1)
    return means


def _mean_squared_difference(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, P) of rows (M, D) and (P, D), summed in float64: the expanded square cancels where rows are close."""
    left64, right64 = left.astype(np.float64), right.astype(np.float64)
    square = (left64**2).sum(1)[:, None] + (right64**2).sum(1)[None] - 2 * left64 @ right64.T
    return np.asarray(np.maximum(square, 0) / left.shape[1], np.float32)


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)
