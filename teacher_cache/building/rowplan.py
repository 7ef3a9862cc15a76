"""Where each row of a shard comes from: the cheapest place that has it.

    a row with the key of a row in an earlier shard   copied from there
    a row with the key of an earlier row in here      copied from there
    a row whose key another cache holds               copied from there
    any other row                                     crop -> teacher

Legend: n rows of a shard or of a part of it. A position is a place among them.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.teacher_cache.building.reuse import NOT_THERE, Donor
from mocha_pipe.teacher_cache.store.layout import ShardPlan

Rows = NDArray[np.int64]
"""Row numbers, or positions."""


@dataclass(frozen=True, slots=True, eq=False)
class RowPlan:
    """Sources of n ascending rows; every position is in exactly one of them."""

    rows: Rows  # (n,)
    earlier: Rows
    """Positions whose key stands in an earlier shard that is filled first."""
    originals: Rows
    """For each of these the row that it is copied from."""
    todo: Rows
    """Positions that go through the teacher, ascending."""
    copies: list[tuple[Donor, Rows, Rows]]
    """Other caches, the positions that they fill, and their rows for these."""
    repeats: Rows
    """Positions with the key of an earlier position."""
    leaders: Rows
    """For each of these the earlier position."""


def owners_before(table: RegionTable, plan: ShardPlan, rows: Rows, shard: int) -> list[int]:
    """Earlier shards that hold the first row of a key of these rows."""
    owners = np.unique(table.first_of_key[rows] // plan.rows_per_shard)
    found: list[int] = owners[owners < shard].tolist()
    return found


def plan_rows(table: RegionTable, plan: ShardPlan, rows: Rows, filled: Set[int], donors: Sequence[Donor]) -> RowPlan:
    """Choose the source of each row.

    Args:
        table: the regions.
        plan: rows and shards.
        rows: ascending, of one shard.
        filled: earlier shards that are done, or will be before this one.
        donors: other caches of the same teacher, the first ones preferred.
    """
    first = table.first_of_key[rows]
    is_earlier = np.isin(first // plan.rows_per_shard, list(filled))
    here = np.flatnonzero(~is_earlier)
    _, of_key, members = np.unique(first[here], return_index=True, return_inverse=True)
    leaders = here[of_key][members]
    is_repeat = leaders != here
    todo = here[~is_repeat]
    copies = []
    for donor in donors:
        found = donor.find(table.keys[rows[todo]])
        is_there = found != NOT_THERE
        copies.append((donor, todo[is_there], found[is_there]))
        todo = todo[~is_there]
    return RowPlan(
        rows=rows,
        earlier=np.flatnonzero(is_earlier),
        originals=first[is_earlier],
        todo=todo,
        copies=copies,
        repeats=here[is_repeat],
        leaders=leaders[is_repeat],
    )
