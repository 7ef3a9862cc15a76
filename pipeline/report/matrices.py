"""The confusion of a report.json as small matrices for its page, readable however many objects there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_OBJECTS = 8
"""Rows of a matrix; of a larger class those objects are shown that are named right least often."""

_KINDS = {"elsewhere": "wrong", "unknown": "lost", "missed": "lost"}
"""What else happens to an object than to get the name of one of its class."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What the objects of one coarse class were taken for."""

    coarse: str
    right: Mapping[str, Any]
    """Share of right names with its interval."""
    columns: tuple[str, ...]
    """The objects by their numbers, then what else happened."""
    rows: Mapping[str, Sequence[tuple[str, float]]]
    """By number and name of an object a cell for each column: `right`, `wrong`, or `lost` where no name was given; and
    the share of the object's regions in all episodes, 0..100."""
    left_out: int
    """Objects of the class that have no row."""


def matrices(confusion: Mapping[str, Mapping[str, Any]]) -> list[Matrix]:
    """One matrix per coarse class, those with the fewest right names first.

    Args:
        confusion: of one method, as report.json has it.
    """
    hardest = sorted(confusion.items(), key=lambda item: float(item[1]["shares"]["right"]["mean"]))
    return [_matrix(coarse, counts) for coarse, counts in hardest]


def _matrix(coarse: str, counts: Mapping[str, Any]) -> Matrix:
    taken_for = np.array(counts["taken_for"])
    aside = {name: np.array(counts[name]) for name in _KINDS}
    totals = taken_for.sum(axis=1) + sum(aside.values())
    # An object without a region has no share of right names: it comes last, and others are shown in its place.
    right = np.where(totals > 0, taken_for.diagonal() / np.maximum(totals, 1), np.inf)
    shown = np.sort(np.argsort(right, kind="stable")[:MOST_OBJECTS])
    hidden = np.setdiff1d(np.arange(len(totals)), shown)
    rest = {"others": taken_for[:, hidden].sum(axis=1), **aside}
    columns = {str(number + 1): taken_for[:, number] for number in shown}
    columns |= {name: counted for name, counted in rest.items() if counted[shown].any()}
    shares = {name: 100 * counted / np.maximum(totals, 1) for name, counted in columns.items()}

    def row(number: int) -> list[tuple[str, float]]:
        kinds = {**_KINDS, str(number + 1): "right"}
        return [(kinds.get(name, "wrong"), float(counted[number])) for name, counted in shares.items()]

    return Matrix(
        coarse=coarse,
        right=counts["shares"]["right"],
        columns=tuple(columns),
        rows={f"{number + 1} {counts['objects'][number]}": row(number) for number in shown},
        left_out=len(hidden),
    )
