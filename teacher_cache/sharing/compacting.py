"""compact: a complete cache into its archive, at a folder or URL, shard by shard.

The archive's description comes first and says which cache it holds; a file that is there is whole. So what was stopped
goes on, and nobody mixes two caches. The form is archive/form.py's; `pull` brings the cache back.
"""

import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.files import atomic_path
from mocha_pipe.teacher_cache.archive.form import ArchiveForm
from mocha_pipe.teacher_cache.archive.rounding import cosines, kept_neighbours
from mocha_pipe.teacher_cache.checking.verify import COMPLETE_NAME
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheFormatError,
    CacheIncompleteError,
    CacheMismatchError,
    build_command,
    mend_advice,
)
from mocha_pipe.teacher_cache.sharing.checks import check_file
from mocha_pipe.teacher_cache.sharing.exchange import open_place
from mocha_pipe.teacher_cache.sharing.founding import is_founded, present
from mocha_pipe.teacher_cache.sharing.holding import TABLE, Holding, list_name
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.sharing.transfer import Transfer
from mocha_pipe.teacher_cache.sharing.units import Unit
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME, RegionCache
from mocha_pipe.teacher_cache.store.disk import disk_errors
from mocha_pipe.teacher_cache.store.layout import shard_name, sweep_stale
from mocha_pipe.teacher_cache.store.quarantine import require_listed

_SAMPLE = 4096  # rows whose neighbours are looked for
_ENCODING = threading.BoundedSemaphore(2)
"""Shards that are in memory at once, however many are sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayLoss:
    """What rounding did to one array; rows that were set aside do not count."""

    least_cosine: float
    """Of a row with what it was."""
    mean_cosine: float
    kept_neighbours: float
    """Share of the rows, of 4096 at most, whose nearest other row is the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactReport:
    """An archive beside its cache."""

    archive: str
    """Its folder or URL."""
    files: int
    """Files written in this call."""
    raw_bytes: dict[str, int]
    """Of each array of the cache, and of its other files together (`other`)."""
    bytes: dict[str, int]
    """Of the same in the archive."""
    loss: dict[str, ArrayLoss]
    """By array; empty where nothing was rounded."""

    @property
    def ratio(self) -> float:
        """Bytes of the archive beside those of the cache."""
        return sum(self.bytes.values()) / sum(self.raw_bytes.values())


def compact(folder: Path, to: str, *, lossy: bool = False, progress: bool = False) -> CompactReport:
    """Write the archive of a local cache, as far as it is not there.

    Args:
        folder: of a complete cache.
        to: a new folder or URL, or one where the same call was stopped.
        lossy: round the values (archive/rounding.py). What `pull` brings back then is another cache.
        progress: show a bar in bytes of the cache.

    Raises:
        CacheNotFoundError, CacheFormatError: there is no cache in `folder`, or something else at `to`.
        CacheIncompleteError: the cache lacks something.
        CacheMismatchError: another archive is at `to`, or the cache was rounded before.
        CacheCorruptError: a file of the cache is damaged.
        TransferError, CacheWriteError: the place cannot be reached, or its disk failed.
    """
    cache = RegionCache.open(folder)
    if not cache.is_complete:
        raise CacheIncompleteError(
            f"an archive holds a complete cache; {folder} lacks shards or targets; complete it with "
            f"`{build_command(folder)}`, or share the part with `mocha-pipe cache push`"
        )
    if lossy and cache.spec.rounding:
        raise CacheMismatchError(
            f"{folder} was brought back from a lossy archive, and its values are not rounded twice; share that "
            "archive, or leave out --lossy"
        )
    place, source = open_place(to), Holding(Place(str(folder)))
    with closing(Transfer("compact", progress=progress)) as transfer, disk_errors(place.path or folder):
        if place.path is not None:
            sweep_stale(place.path)
        return _Compacting(cache, source, place, lossy).run(transfer)


@dataclass
class _Sample:
    """Rows of one array before and after, and the cosines of all rows that were seen."""

    exact: dict[int, NDArray[np.float16]] = field(default_factory=dict)
    rounded: dict[int, NDArray[np.float16]] = field(default_factory=dict)
    cosines: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def loss(self) -> ArrayLoss:
        """Over all shards."""
        cosines_N = np.concatenate(list(self.cosines.values()))
        exact, rounded = (
            np.concatenate([part[shard] for shard in sorted(part)]) for part in (self.exact, self.rounded)
        )
        return ArrayLoss(
            least_cosine=float(cosines_N.min()),
            mean_cosine=float(cosines_N.mean()),
            kept_neighbours=kept_neighbours(exact, rounded),
        )


class _Compacting:
    """One call of `compact`."""

    def __init__(self, cache: RegionCache, source: Holding, place: Place, lossy: bool) -> None:
        self._cache, self._source, self._place = cache, source, place
        names = [DESCRIPTION, *(f"{array}/{DESCRIPTION}" for array in source.arrays)]
        self._form = ArchiveForm.of({name: source.read(name).decode() for name in names}, lossy=lossy)
        self._samples = {array: _Sample() for array in source.arrays} if lossy else {}
        self._there: set[str] = set()
        every = -(-cache.plan.rows // _SAMPLE)
        self._is_sampled = np.arange(cache.plan.rows) % every == 0

    def run(self, transfer: Transfer) -> CompactReport:
        """Send what the place lacks, the description first."""
        own = self._form.metadata()
        self._claim(own)
        transfer.arrived += self._send((name, content) for name, content in own.items() if name not in self._there)
        # The marker of a complete cache tells of exact values.
        others = [*TABLE, PROJECTION_NAME, *([] if self._form.is_lossy else [COMPLETE_NAME])]
        others += [list_name(shard) for shard in range(len(self._cache.plan))]
        others = [name for name in others if name in self._source.files]
        shards = [
            Unit((shard_name(array, shard),), shard=shard)
            for array in self._source.arrays
            for shard in range(len(self._cache.plan))
        ]
        lacking = [Unit((name,)) for name in others if name not in self._there]
        transfer.run([lacking], self._source, self._copy, batch=self._place.batch)
        transfer.run([shards], self._source, self._encode, batch=self._place.batch)
        return self._report(transfer, others)

    def _claim(self, own: Mapping[str, bytes]) -> None:
        """Make an empty place this archive, or find that it is."""
        if not is_founded(self._place, "an archive"):
            self._send([(DESCRIPTION, own[DESCRIPTION])])
        there = ArchiveForm.parse(self._place.read(DESCRIPTION), self._place.url)
        if there is None:
            raise CacheFormatError(f"{self._place.url} holds something else than an archive; name a new folder")
        if not self._form.is_as(there):
            kind = "lossy" if there.is_lossy else "exact"
            raise CacheMismatchError(
                f"{self._place.url} is the {kind} archive of a cache, of another one or of this one in another form; "
                f"name a new folder, such as {self._place.url}-2"
            )
        self._form, self._there = there, set(self._listing())
        self._require_same_lists()

    def _require_same_lists(self) -> None:
        """Refuse an archive whose shards are those of before regions that had failed were tried again."""
        archived = present(self._place)
        for shard in range(len(self._cache.plan)):
            is_begun = any(shard_name(array, shard) in self._there for array in self._source.arrays)
            if not is_begun or not any(list_name(shard) in side.files for side in (archived, self._source)):
                continue
            mine, theirs = (side.keys_set_aside(shard) for side in (self._source, archived))
            is_lost = list_name(shard) not in archived.files and mine.keys() == archived.empty_rows(shard)
            if mine != theirs and not is_lost:
                raise CacheMismatchError(
                    f"{self._place.url} sets aside other regions in shard {shard} than {self._cache.path}: what had "
                    f"failed was tried again since; name a new folder, such as {self._place.url}-2"
                )

    def _listing(self) -> dict[str, int]:
        """Size of every file that is there, by name."""
        folders = {name.rpartition("/")[0] for name in self._form.metadata()}
        folders |= {"", list_name(0).partition("/")[0]}
        return {
            f"{folder}/{name}".lstrip("/"): size
            for folder in folders
            for name, size in self._place.entries(folder)[0].items()
        }

    def _copy(self, units: Sequence[Unit]) -> Sequence[str]:
        """Send files of the cache as they are, after a check."""
        names = [name for unit in units for name in unit.names]
        for name in names:
            check_file(self._cache.path, name, self._source)
        return self._send((name, (self._cache.path / name).read_bytes()) for name in names)

    def _encode(self, units: Sequence[Unit]) -> Sequence[str]:
        """Send shards in the archive's form, and note what it does to their values."""
        arrived = self._send(file for unit in units for file in self._encoded(unit))
        return [name for unit in units for name in unit.names if name in arrived]

    def _encoded(self, unit: Unit) -> Iterator[tuple[str, bytes]]:
        """Names and content of the files of a shard; none where it is there."""
        [name], shard = unit.names, unit.shard
        assert shard is not None
        if name in self._there and not self._form.is_lossy:
            return
        array = name.partition("/")[0]
        with _ENCODING:
            start, stop = self._cache.plan.span(shard)
            values = self._cache.rows(array).block(start, stop)
            set_aside = [region.row for region in self._source.set_aside(shard)]
            require_listed(values, start, set_aside, self._cache.path / name, mend_advice(self._cache.path))
            files = self._form.encode(array, shard, values)
            back = self._form.decode(array, shard, files)
            if self._form.is_lossy:
                self._note(array, shard, values, back)
            elif back.tobytes() != values.tobytes():
                raise CacheCorruptError.of(self._cache.path / name, "it does not come back as it was", "try again")
        if name not in self._there:
            yield from files.items()

    def _note(self, array: str, shard: int, exact: NDArray[np.float16], rounded: NDArray[np.float16]) -> None:
        is_row = ~np.isnan(exact[:, 0])
        is_taken = is_row & self._is_sampled[slice(*self._cache.plan.span(shard))]
        sample = self._samples[array]
        sample.cosines[shard] = cosines(exact[is_row], rounded[is_row])
        sample.exact[shard], sample.rounded[shard] = exact[is_taken], rounded[is_taken]

    def _send(self, contents: Iterable[tuple[str, bytes]]) -> list[str]:
        """Put files under their names, each whole; returns the names."""
        if self._place.path is not None:
            arrived = []
            for name, content in contents:
                with atomic_path(self._place.path / name) as temporary:
                    temporary.write_bytes(content)
                arrived.append(name)
            return arrived
        with tempfile.TemporaryDirectory() as staging:
            files: dict[str, Path] = {}
            for number, (name, content) in enumerate(contents):
                files[name] = Path(staging) / str(number)
                files[name].write_bytes(content)
            return self._place.send(files, (), self._there) if files else []

    def _report(self, transfer: Transfer, others: Sequence[str]) -> CompactReport:
        listing, raw, stored = self._listing(), {}, {}
        for array in self._source.arrays:
            shards = range(len(self._cache.plan))
            raw[array] = sum(self._source.files[shard_name(array, shard)] for shard in shards)
            stored[array] = sum(listing[name] for shard in shards for name in self._form.names(array, shard))
        raw["other"] = sum(self._source.files[name] for name in others)
        stored["other"] = sum(listing[name] for name in (*others, *self._form.metadata()))
        raw["other"] += sum(len(text.encode()) for text in self._form.descriptions.values())
        return CompactReport(
            archive=self._place.url,
            files=len(transfer.arrived),
            raw_bytes=raw,
            bytes=stored,
            loss={array: sample.loss() for array, sample in self._samples.items()},
        )
