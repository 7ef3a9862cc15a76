"""One shard: every row is filled from its source (rowplan.py), and the shard is written whole.

A region whose image gives no crop, or whose embedding is not finite, is set aside with the reason; its row holds NaN.
Legend: n rows of a shard or of a part of it, D width of an array. A position is a place among the n rows.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.feed import BATCHES_AHEAD, CropFeed, RegionCrop
from mocha_pipe.teacher_cache.building.forecast import Tally
from mocha_pipe.teacher_cache.building.reuse import Donor
from mocha_pipe.teacher_cache.building.rowplan import RowPlan, Rows, owners_before, plan_rows
from mocha_pipe.teacher_cache.errors import CacheMismatchError, EmbeddingError
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import FLOAT16_MAX, shard_path, write_shard
from mocha_pipe.teacher_cache.store.quarantine import SetAside, write_set_aside
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings, Teacher

HOPELESS = 16
"""After so many embeddings of which none is finite the teacher is at fault, not the regions."""


@dataclass(slots=True, eq=False)
class Work:
    """A shard, or a part of one, that was begun: its crops are being cut."""

    shard: int
    plan: RowPlan
    crops: Iterator[list[RegionCrop]]
    values: dict[str, NDArray[np.float16]]  # (n, D) per array
    reasons: dict[int, str] = field(default_factory=dict)
    """Why a position has no embedding."""


class ShardEmbedder(AbstractContextManager["ShardEmbedder"]):
    """Fills shards of one cache: `begin` cuts the first crops of a shard while an earlier one is at the teacher.

    The teacher is loaded when a row first needs it. Use it as a context, to end its threads.
    """

    def __init__(
        self,
        cache: RegionCache,
        source: DetectionSource,
        table: RegionTable,
        load_teacher: Callable[[], Teacher],
        *,
        donors: Sequence[Donor] = (),
        batch: int = 16,
        on_rows: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Compute nothing yet. Arguments are those of `build_cache`; `on_rows` is told how many rows were done."""
        self.tally = Tally()
        self._cache, self._source, self._table = cache, source, table
        self._load_teacher = load_teacher
        self._teacher: Teacher | None = None
        self._donors, self._window, self._on_rows = donors, batch * BATCHES_AHEAD, on_rows
        self._dims = cache.spec.arrays
        self._feed = CropFeed(source, table, cache.spec)
        self._begun: set[int] = set()
        self._num_seen, self._any_finite = 0, False
        self._last = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._feed.__exit__(*error)

    def begin(self, shard: int, rows: Rows | None = None) -> Work:
        """Plan a shard, or only some ascending rows of it, and start to cut the first crops.

        Shards begun earlier must be finished earlier.
        """
        if rows is None:
            rows = np.arange(*self._cache.plan.span(shard))
        self._begun.add(shard)
        owners = owners_before(self._table, self._cache.plan, rows, shard)
        filled = {other for other in owners if other in self._begun or self._cache.has_teacher_shard(other)}
        plan = plan_rows(self._table, self._cache.plan, rows, filled, self._donors)
        return Work(
            shard=shard,
            plan=plan,
            crops=self._feed.windows(rows[plan.todo], self._window),
            values={name: np.full((len(rows), dim), np.nan, np.float16) for name, dim in self._dims.items()},
        )

    def finish(self, work: Work) -> None:
        """Fill the rows of a whole shard and write it.

        Raises:
            DatasetNotFoundError: an image is gone.
            CacheMismatchError: the teacher that was loaded is another one.
            CacheCorruptError: a shard that rows are copied from is damaged.
            EmbeddingError: no embedding at all is finite.
        """
        self._fill(work)
        write_set_aside(self._cache.path, work.shard, self._list_set_aside(work))
        for name in self._dims:
            write_shard(self._cache.path / name, self._cache.plan, work.shard, work.values[name])
        self.tally.shards += 1

    def retry(self, shard: int, changing: Callable[[], AbstractContextManager[object]]) -> None:
        """Compute only the rows of a shard that were set aside, and write it again if any has an embedding now.

        Args:
            shard: one that is done.
            changing: entered while the files change; nobody else derives targets from them meanwhile.

        Raises:
            As `finish`.
        """
        start, stop = self._cache.plan.span(shard)
        rows = np.array([region.row for region in self._cache.quarantine() if start <= region.row < stop], np.int64)
        work = self.begin(shard, rows)
        self._fill(work)
        if len(work.reasons) == len(rows):
            return
        with changing():
            # Targets go first: a file of them must never be older than its shard.
            shard_path(self._cache.path / "targets", shard).unlink(missing_ok=True)
            for name in self._dims:
                values = np.array(self._cache.rows(name).block(start, stop))
                values[rows - start] = work.values[name]
                write_shard(self._cache.path / name, self._cache.plan, shard, values)
            # The list goes last. If this process is killed before, the rows stay set aside and are tried again.
            write_set_aside(self._cache.path, shard, self._list_set_aside(work))

    def _fill(self, work: Work) -> None:
        plan = work.plan
        if len(plan.earlier):
            # The list is read before the rows: another build may be embedding those rows right now.
            aside = {region.row: region.reason for region in self._cache.quarantine()}
            for name in self._dims:
                work.values[name][plan.earlier] = self._cache.rows(name).verified(plan.originals)
            pairs = zip(plan.earlier.tolist(), plan.originals.tolist(), strict=True)
            work.reasons.update((position, aside[row]) for position, row in pairs if row in aside)
        for donor, positions, rows in plan.copies:
            for name, copied in donor.read(rows).items():
                work.values[name][positions] = copied
            self.tally.reused += len(positions)
            self._on_rows(len(positions))
        self._embed(work)
        for name in self._dims:
            work.values[name][plan.repeats] = work.values[name][plan.leaders]
        pairs = zip(plan.repeats.tolist(), plan.leaders.tolist(), strict=True)
        work.reasons.update((position, work.reasons[leader]) for position, leader in pairs if leader in work.reasons)
        for name in self._dims:
            work.values[name][list(work.reasons)] = np.nan
        num_copied = len(plan.earlier) + len(plan.repeats)
        self.tally.duplicates += num_copied
        self._on_rows(num_copied)

    def _embed(self, work: Work) -> None:
        plan = work.plan
        position_of = dict(zip(plan.rows[plan.todo].tolist(), plan.todo.tolist(), strict=True))
        for window in work.crops:
            work.reasons.update((position_of[crop.row], crop.reason) for crop in window if crop.pixels is None)
            seen = [(crop.row, crop.pixels) for crop in window if crop.pixels is not None]
            if seen:
                names = [self._table.class_name(row) for row, _ in seen]
                embeddings = self._ready_teacher().embed([pixels for _, pixels in seen], names)
                self._keep(work, np.array([position_of[row] for row, _ in seen]), embeddings)
            self.tally.embedded += len(seen)
            self._on_rows(len(window))
            now = time.perf_counter()
            self.tally.windows.append((len(window), now - self._last))
            self._last = now

    def _keep(self, work: Work, positions: Rows, embeddings: RegionEmbeddings) -> None:
        """Store embeddings as float16, and set those aside that it cannot hold."""
        is_fine = np.ones(len(positions), bool)
        for name in self._dims:
            block = getattr(embeddings, name)
            fits = np.abs(block) <= FLOAT16_MAX  # False for NaN
            for index in np.flatnonzero(is_fine & ~fits.all(axis=1)).tolist():
                feature = int(np.argmin(fits[index]))
                found = f"'{name}' is {block[index, feature]} at feature {feature}"
                work.reasons[int(positions[index])] = f"an embedding must fit float16; {found}"
            is_fine &= fits.all(axis=1)
        for name in self._dims:
            work.values[name][positions[is_fine]] = getattr(embeddings, name)[is_fine].astype(np.float16)
        self._any_finite |= bool(is_fine.any())
        self._num_seen += len(positions)
        if not self._any_finite and self._num_seen >= HOPELESS:
            raise EmbeddingError(
                f"embeddings must be finite and at most {FLOAT16_MAX:.0f} in size; none of the first {self._num_seen} "
                f"regions has one (row {work.plan.rows[positions[0]]}: {work.reasons[int(positions[0])]}); "
                "try --dtype float32"
            )

    def _ready_teacher(self) -> Teacher:
        if self._teacher is None:
            teacher = self._load_teacher()
            if differences := self._cache.spec.differences(teacher.spec):
                raise CacheMismatchError(
                    f"cache {self._cache.path} was made by another teacher than the one loaded: "
                    f"{'; '.join(differences)}; name another folder with --cache"
                )
            self._teacher = teacher
            self._last = time.perf_counter()  # loading is not the speed of the job
        return self._teacher

    def _list_set_aside(self, work: Work) -> list[SetAside]:
        positions = sorted(work.reasons)
        rows = work.plan.rows[positions]
        images = self._table.image_of_rows(rows)
        return [
            SetAside(
                row=row,
                key=self._table.keys[row].decode(),
                image=self._table.image_names[image],
                class_name=self._table.class_name(row),
                reason=work.reasons[position],
            )
            for position, row, image in zip(positions, rows.tolist(), images.tolist(), strict=True)
        ]
