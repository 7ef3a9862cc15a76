"""What verify wants to know of a row, read off the bits of its float16 numbers.

The magnitude of a float16 grows with its bits, so that the largest of a row takes no arithmetic: several gigabytes a
second, where a conversion to float32 gives one. Legend: n rows, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SIGN = 0x8000
_INFINITY = 0x7C00  # NaN lies above
_FEW = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFacts:
    """Of n rows."""

    is_finite: NDArray[np.bool_]  # (n,)
    is_flat: NDArray[np.bool_]
    """Finite, and one number throughout; never so where D is 1."""
    is_empty: NDArray[np.bool_]
    """NaN throughout; known of the rows that were asked about, and False for others."""
    largest: NDArray[np.float32]
    """Largest magnitude."""


def row_facts(pieces: Iterable[NDArray[np.float16]], asked: NDArray[np.bool_]) -> RowFacts:
    """Facts of the rows of a shard.

    Args:
        pieces: the rows in their order, (..., D); what follows the last row does not count.
        asked: (n,), which rows are asked whether they are empty.
    """
    tops, are_flat, are_empty, first = [], [], [], 0
    for piece in pieces:
        bits = piece.view(np.uint16)
        highest = bits.max(axis=-1).ravel()
        positive = np.maximum(piece.view(np.int16).max(axis=-1).ravel(), 0).astype(np.uint16)
        negative = np.where(highest >= _SIGN, highest & ~np.uint16(_SIGN), 0)
        tops.append(np.maximum(positive, negative).astype(np.uint16))
        # Nearly every row ends this question with its first numbers.
        is_flat = (bits[..., :_FEW] == bits[..., :1]).all(axis=-1).ravel() | (tops[-1] == 0)
        is_flat &= piece.shape[-1] > 1
        for row in np.flatnonzero(is_flat).tolist():
            numbers = _row(piece, row)
            is_flat[row] = (numbers == numbers[0]).all()
        are_flat.append(is_flat)
        is_empty = np.zeros(len(highest), bool)
        for row in np.flatnonzero(asked[first : first + len(highest)]).tolist():
            is_empty[row] = np.isnan(_row(piece, row)).all()
        are_empty.append(is_empty)
        first += len(highest)
    top = np.concatenate(tops)[: len(asked)]
    is_finite = top < _INFINITY
    return RowFacts(
        is_finite=is_finite,
        is_flat=is_finite & np.concatenate(are_flat)[: len(asked)],
        is_empty=np.concatenate(are_empty)[: len(asked)],
        largest=top.view(np.float16).astype(np.float32),
    )


def _row(piece: NDArray[np.float16], row: int) -> NDArray[np.float16]:  # (..., D) -> (D,)
    numbers: NDArray[np.float16] = piece[np.unravel_index(row, piece.shape[:-1])]
    return numbers
