"""One shard: every row comes from where it is cheapest, and the shard is written whole.

    a row with the key of an earlier row      copied from there
    a row whose key another cache holds       copied from there
    any other row                             crop -> teacher
    no crop, or an embedding not finite       set aside with the reason; the row holds NaN

Legend: n rows of a shard or of a part of it, D width of an array.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data.regions import RegionTable
from data.types import DetectionSource
from teacher_cache.cache import RegionCache
from teacher_cache.errors import CacheMismatchError, EmbeddingError
from teacher_cache.feed import BATCHES_AHEAD, CropFeed, RegionCrop
from teacher_cache.layout import TEACHER_ARRAYS, has_teacher_shard, shard_path, write_shard
from teacher_cache.quarantine import SetAside, write_set_aside
from teacher_cache.reuse import NOT_THERE, Donor, verified_rows
from teacher_cache.teachers.base import RegionEmbeddings, Teacher

FLOAT16_MAX = 65504.0
HOPELESS = 16  # embeddings not finite, and none finite before: the teacher is at fault, not the regions

Rows = NDArray[np.int64]
"""Row numbers, or positions among the rows of a piece of work."""
Values = dict[str, NDArray[np.float16]]


@dataclass(slots=True)
class Tally:
    """What a build did, in regions, and how long each window of crops took."""

    embedded: int = 0
    """Regions that went through the teacher."""
    reused: int = 0
    """Regions copied from other caches."""
    duplicates: int = 0
    """Regions copied from an equal region of this cache."""
    set_aside: int = 0
    """Regions that got no embedding."""
    windows: list[tuple[int, float]] = field(default_factory=list)
    """Regions and seconds of each call of the teacher, crops and writing included."""

    def add(self, other: "Tally") -> None:
        """Take in what another worker did."""
        self.embedded += other.embedded
        self.reused += other.reused
        self.duplicates += other.duplicates
        self.set_aside += other.set_aside
        self.windows += other.windows


@dataclass(slots=True, eq=False)
class _Work:
    """A shard, or a part of one, that was begun: its crops are being cut."""

    shard: int
    rows: Rows  # (n,) ascending
    earlier: Rows
    """Positions in `rows` whose key stands in an earlier shard."""
    todo: Rows
    """Positions that go through the teacher."""
    copies: list[tuple[Donor, Rows, Rows]]
    """Other caches, the positions that they fill, and their rows for these."""
    original: Rows  # (n,)
    """For each position the one with the same key that is filled first; itself where it is that one."""
    crops: Iterator[list[RegionCrop]]
    values: Values
    reasons: dict[int, str] = field(default_factory=dict)
    """Why a position has no embedding."""


class ShardEmbedder:
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
        """Compute nothing yet.

        Args:
            cache: open, of this table.
            source: the images that the table was built from.
            table: the regions, one row each.
            load_teacher: called at most once.
            donors: other caches of the same teacher, to copy from.
            batch: crops per forward pass.
            on_rows: told how many rows were done, as they are.
        """
        self.tally = Tally()
        self._cache, self._source, self._table = cache, source, table
        self._load_teacher = load_teacher
        self._teacher: Teacher | None = None
        self._donors, self._window, self._on_rows = tuple(donors), batch * BATCHES_AHEAD, on_rows
        self._readers = {name: cache.rows(name) for name in TEACHER_ARRAYS}
        self._feed = CropFeed(source, table, cache.spec)
        self._begun: set[int] = set()
        self._any_finite = False
        self._last = time.perf_counter()

    def __enter__(self) -> "ShardEmbedder":
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.close()

    def begin(self, shard: int, rows: Rows | None = None) -> _Work:
        """Plan a shard, or only some ascending rows of it, and start to cut the first crops.

        Shards begun earlier must be finished earlier.
        """
        if rows is None:
            rows = np.arange(*self._cache.plan.span(shard))
        self._begun.add(shard)
        first = self._table.first_of_key[rows]
        is_earlier = self._is_filled_before(first, shard)
        here = np.flatnonzero(~is_earlier)
        _, leaders, followers = np.unique(first[here], return_index=True, return_inverse=True)
        original = np.arange(len(rows))
        original[here] = here[leaders][followers]
        todo = np.sort(here[leaders])
        copies = []
        for donor in self._donors:
            found = donor.find(self._table.keys[rows[todo]])
            is_there = found != NOT_THERE
            copies.append((donor, todo[is_there], found[is_there]))
            todo = todo[~is_there]
        return _Work(
            shard=shard,
            rows=rows,
            earlier=np.flatnonzero(is_earlier),
            todo=todo,
            copies=copies,
            original=original,
            crops=self._feed.windows(rows[todo], self._window),
            values={name: np.full((len(rows), r.dim), np.nan, np.float16) for name, r in self._readers.items()},
        )

    def finish(self, work: _Work) -> None:
        """Fill the rows of a whole shard and write it.

        Raises:
            DatasetNotFoundError: an image is gone.
            CacheMismatchError: the teacher that was loaded is another one.
            CacheCorruptError: a shard that rows are copied from is damaged.
            EmbeddingError: no embedding at all is finite.
        """
        self._fill(work)
        write_set_aside(self._cache.path, work.shard, self._list_set_aside(work))
        for name in TEACHER_ARRAYS:
            write_shard(self._cache.path / name, self._cache.plan, work.shard, work.values[name])

    def retry(self, shard: int) -> None:
        """Compute only the rows of a shard that were set aside, and write it again if any has an embedding now.

        Raises:
            As `finish`.
        """
        start, stop = self._cache.plan.span(shard)
        rows = np.array([region.row for region in self._cache.quarantine() if start <= region.row < stop], np.int64)
        work = self.begin(shard, rows)
        self._fill(work)
        if len(work.reasons) == len(rows):
            return
        # Targets go first: a file of them must never be older than its shard.
        shard_path(self._cache.path / "targets", shard).unlink(missing_ok=True)
        for name, reader in self._readers.items():
            values = np.array(reader.block(start, stop))
            values[rows - start] = work.values[name]
            write_shard(self._cache.path / name, self._cache.plan, shard, values)
        # The list goes last: killed before, the rows stay set aside and the next retry does them again.
        write_set_aside(self._cache.path, shard, self._list_set_aside(work))

    def _is_filled_before(self, first: Rows, shard: int) -> NDArray[np.bool_]:
        """Whether the first row of a key lies in an earlier shard that is done, or will be before this one."""
        owners = first // self._cache.plan.rows_per_shard
        filled = [
            other for other in np.unique(owners[owners < shard]).tolist()
            if other in self._begun or has_teacher_shard(self._cache.path, other)
        ]  # fmt: skip
        return np.isin(owners, filled)

    def _fill(self, work: _Work) -> None:
        first = self._table.first_of_key[work.rows[work.earlier]]
        for name, reader in self._readers.items():
            work.values[name][work.earlier] = verified_rows(reader, first)
        if len(first):
            aside = {region.row: region.reason for region in self._cache.quarantine()}
            pairs = zip(work.earlier.tolist(), first.tolist(), strict=True)
            work.reasons.update((position, aside[row]) for position, row in pairs if row in aside)
        for donor, positions, rows in work.copies:
            for name, copied in donor.read(rows).items():
                work.values[name][positions] = copied
            self._count("reused", len(positions))
        self._embed(work)
        repeats = np.flatnonzero(work.original != np.arange(len(work.rows)))
        for name in TEACHER_ARRAYS:
            work.values[name][repeats] = work.values[name][work.original[repeats]]
        for position in repeats.tolist():
            if (original := int(work.original[position])) in work.reasons:
                work.reasons[position] = work.reasons[original]
        self._count("duplicates", len(work.earlier) + len(repeats))
        self.tally.set_aside += len(work.reasons)

    def _embed(self, work: _Work) -> None:
        position_of = dict(zip(work.rows[work.todo].tolist(), work.todo.tolist(), strict=True))
        for window in work.crops:
            teacher = self._ready_teacher()
            positions = [position_of[crop.row] for crop in window]
            pairs = list(zip(positions, window, strict=True))
            work.reasons.update((position, crop.reason) for position, crop in pairs if crop.pixels is None)
            seen = [(position, crop) for position, crop in pairs if crop.pixels is not None]
            if seen:
                names = [self._table.class_names[int(self._table.class_ids[crop.row])] for _, crop in seen]
                embeddings = teacher.embed([crop.pixels for _, crop in seen if crop.pixels is not None], names)
                self._keep(work, np.array([position for position, _ in seen]), embeddings)
            self._count("embedded", len(window))
            now = time.perf_counter()
            self.tally.windows.append((len(window), now - self._last))
            self._last = now

    def _keep(self, work: _Work, positions: Rows, embeddings: RegionEmbeddings) -> None:
        """Store embeddings as float16, and set those aside that it cannot hold."""
        is_fine = np.ones(len(positions), bool)
        for name in TEACHER_ARRAYS:
            block = getattr(embeddings, name)
            fits = np.abs(block) <= FLOAT16_MAX  # False for NaN
            for index in np.flatnonzero(is_fine & ~fits.all(axis=1)).tolist():
                feature = int(np.argmin(fits[index]))
                found = f"'{name}' is {block[index, feature]} at feature {feature}"
                work.reasons[int(positions[index])] = f"an embedding must fit float16; {found}"
            is_fine &= fits.all(axis=1)
        for name in TEACHER_ARRAYS:
            work.values[name][positions[is_fine]] = getattr(embeddings, name)[is_fine].astype(np.float16)
        self._any_finite |= bool(is_fine.any())
        if not self._any_finite and len(positions) >= HOPELESS:
            raise EmbeddingError(
                f"embeddings must be finite and at most {FLOAT16_MAX:.0f} in size; none of the first {len(positions)} "
                f"regions has one (row {work.rows[positions[0]]}: {work.reasons[int(positions[0])]}); "
                "try --dtype float32"
            )

    def _ready_teacher(self) -> Teacher:
        if self._teacher is None:
            teacher = self._load_teacher()
            differences = self._cache.spec.differences(teacher.spec)
            if differences:
                raise CacheMismatchError(
                    f"cache {self._cache.path} was made by another teacher than the one loaded: "
                    f"{'; '.join(differences)}; name another folder with --cache"
                )
            self._teacher = teacher
            self._last = time.perf_counter()  # loading is not the speed of the job
        return self._teacher

    def _list_set_aside(self, work: _Work) -> list[SetAside]:
        found = []
        for position in sorted(work.reasons):
            row = int(work.rows[position])
            image = int(self._table.image_of_rows(np.array([row]))[0])
            found.append(
                SetAside(
                    row=row,
                    key=self._table.keys[row].decode(),
                    image=self._table.image_names[image],
                    class_name=self._table.class_names[int(self._table.class_ids[row])],
                    reason=work.reasons[position],
                )
            )
        return found

    def _count(self, what: str, rows: int) -> None:
        setattr(self.tally, what, getattr(self.tally, what) + rows)
        self._on_rows(rows)
