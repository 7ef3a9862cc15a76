"""Which shard a build does next, beside other builds of the same cache."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.reuse import NOT_THERE, Donor
from mocha_pipe.teacher_cache.building.rowplan import owners_before
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import POLL_SECONDS, ShardClaims
from mocha_pipe.teacher_cache.store.layout import ShardPlan

Part = tuple[int, int]
"""Index and count: this build owns the shards whose number leaves `index` when divided by `count`."""


def check_regions(source: DetectionSource, table: RegionTable) -> None:
    """Refuse, before a teacher is loaded, what no projection can be made of.

    Raises:
        DatasetError: there are fewer than two different regions, or all but one are in images that cannot be read.
    """
    readable = sum(len(record.class_ids) for record in source.records if record.readable)
    if (found := min(table.num_distinct, readable)) < 2:
        unread = "" if readable == len(table) else f" in images that can be read, of {len(table)}"
        raise DatasetError(
            f"a teacher cache needs 2 or more different regions; {source.root} has {found or 'none'}{unread}; draw "
            "more boxes, or pass other data: --data"
        )


def claimed_shards(
    cache: RegionCache, table: RegionTable, claims: ShardClaims, part: Part | None, on_wait: Callable[[int], object]
) -> Iterator[int | None]:
    """Missing shards, each claimed for this process, until none is missing; the caller writes and releases them.

    Without a part, what no other build is at, and what such a build leaves behind. `on_wait` is told how many shards
    other builds are at, when there is nothing else to do.

    Yields:
        A shard; None when none can be claimed right now, and at the end: time to write what was begun.
    """
    needs = earlier_shards(table, cache.plan)
    begun: set[int] = set()

    def is_ready(shard: int) -> bool:
        # A part never waits for another: what it cannot copy it computes.
        return part is not None or all(other in begun or cache.has_teacher_shard(other) for other in needs[shard])

    while pending := pending_shards(cache, part):
        for shard in pending:
            if not is_ready(shard) or not claims.take(shard):
                continue
            if cache.has_teacher_shard(shard):  # another build finished it since the listing
                claims.release(shard)
                continue
            begun.add(shard)
            yield shard
        yield None
        if not begun:
            on_wait(len(pending))
            time.sleep(POLL_SECONDS)
        begun.clear()


def pending_shards(cache: RegionCache, part: Part | None) -> list[int]:
    """Missing shards, of a part if one is given."""
    index, count = part or (0, 1)
    return [shard for shard in cache.missing_teacher_shards() if shard % count == index]


def rows_to_embed(cache: RegionCache, table: RegionTable, part: Part | None, donors: Sequence[Donor]) -> int:
    """Regions that only the teacher can fill: equal ones once, and none that another cache holds."""
    spans = [np.arange(*cache.plan.span(shard)) for shard in pending_shards(cache, part)]
    rows = np.concatenate([np.zeros(0, np.int64), *spans])
    rows = rows[table.first_of_key[rows] == rows]
    for donor in donors:
        rows = rows[donor.find(table.keys[rows]) == NOT_THERE]
    return len(rows)


def earlier_shards(table: RegionTable, plan: ShardPlan) -> list[set[int]]:
    """For each shard the earlier ones that hold the first row of a key of its own."""
    return [set(owners_before(table, plan, np.arange(*plan.span(shard)), shard)) for shard in range(len(plan))]
