"""Projection: the map from a teacher's two embeddings to the target of a region, as it is kept in a cache.

whitening.py has its equations, fits it and applies it. This file needs no torch, so that commands which only look at a
cache start quickly.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mocha_pipe.data.errors import first_line
from mocha_pipe.data.files import atomic_path
from mocha_pipe.teacher_cache.errors import CacheCorruptError, mend_advice
from mocha_pipe.teacher_cache.store.disk import reading

_FORMAT = "mocha-pipe projection 1"
_TENSORS = ("components", "eigenvalues", "hidden_dim", "mean", "rows")


def default_dim(joint_dim: int, rows: int) -> int:
    """Width of a target unless one is asked for: 512 (best in the paper), or a quarter of J where that is smaller.

    Few regions vary in few directions, so it is at most N - 1; never below 1.

    Args:
        joint_dim: J, the widths of both embeddings together.
        rows: N, the number of regions.
    """
    return max(1, min(512, joint_dim // 4, rows - 1))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Projection:
    """Mean, principal directions and spectrum of joint embeddings; letters as in whitening.py."""

    mean: NDArray[np.float64]  # (J,)
    """Mean joint embedding."""
    components: NDArray[np.float64]  # (d, J)
    """Orthonormal rows by falling eigenvalue; the entry of largest size in a row is positive."""
    eigenvalues: NDArray[np.float64]  # (J,)
    """All variances along the principal directions, falling, not only the d that are kept."""
    hidden_dim: int
    """H, where a joint embedding is cut in two."""
    rows: int
    """N, the regions that it was fitted on."""

    @property
    def dim(self) -> int:
        """d, the width of a target."""
        return len(self.components)

    @property
    def explained_variance(self) -> float:
        """Share of the joint embedding's variance that the d directions keep, 0 to 1."""
        return float(self.eigenvalues[: self.dim].sum() / self.eigenvalues.sum())

    def save(self, path: Path) -> None:
        """Write a safetensors file, atomically; equal projections give equal bytes."""
        tensors = {name: np.asarray(getattr(self, name), order="C") for name in _TENSORS}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"format": _FORMAT})  # one key: the order of several is random

    @classmethod
    def load(cls, path: Path) -> "Projection":
        """Read what `save` wrote.

        Raises:
            CacheCorruptError: the file is damaged or something else.
            CacheUnreadableError, CacheIncompleteError: as `reading`.
        """
        with reading(path, path.parent), path.open("rb"):
            pass  # safetensors does not say why it cannot open a file
        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("format") != _FORMAT:
                    raise SafetensorError(f"its format is not '{_FORMAT}'")
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
            hidden_dim, rows = int(tensors.pop("hidden_dim")), int(tensors.pop("rows"))
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise CacheCorruptError.of(path, first_line(error), mend_advice(path.parent)) from error
        return cls(**tensors, hidden_dim=hidden_dim, rows=rows)
