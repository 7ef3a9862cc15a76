"""Files from here to there: in parallel, each checked before it counts, under one bar in bytes.

Files that belong together are a unit: they are checked before the first of them shows under its name, and then appear
in their order.
"""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mocha_pipe.data.files import atomic_path, temporary_folder
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.sharing.checks import check_file
from mocha_pipe.teacher_cache.sharing.holding import Holding
from mocha_pipe.teacher_cache.sharing.place import Place
from mocha_pipe.teacher_cache.sharing.units import Unit
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER

WORKERS = 8
"""Units that travel at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferReport:
    """What one transfer did."""

    files: int
    """Files that travelled."""
    bytes: int
    """Their size."""
    present: int
    """Files that were there already."""
    shards_missing: int
    """Shards that the destination still lacks, of the arrays that were asked for."""


class Sender:
    """Carries units from a local cache to a place."""

    def __init__(self, source: Holding, place: Place, there: Collection[str]) -> None:
        """Send nothing yet; `there` are the files that the place has, all others must not exist when they are sent."""
        assert source.place.path is not None
        self.source, self._place, self._there = source, place, there
        self.batch = place.batch
        """Units that are carried at a time."""
        self._folder = source.place.path

    def carry(self, units: Sequence[Unit]) -> Sequence[str]:
        """Send some units; returns the names that did arrive, without those of which others were faster.

        Raises:
            CacheCorruptError: a file of ours is damaged. Its unit is not sent.
            TransferError: the place cannot be reached.
        """
        names = [name for unit in units for name in unit.names]
        _check(self.source, names, self._folder)
        stale = [name for unit in units for name in unit.stale]
        return self._place.send({name: self._folder / name for name in names}, stale, self._there)


class Receiver:
    """Carries units from a place into a local cache."""

    batch = 1
    """Units that are carried at a time."""

    def __init__(self, source: Holding, folder: Path, there: Collection[str]) -> None:
        """Fetch nothing yet; `there` are the files that the folder has, all others are left alone if they appear."""
        self.source, self._folder, self._there = source, folder, there

    def carry(self, units: Sequence[Unit]) -> Sequence[str]:
        """Fetch a unit; returns its names, or nothing if somebody else was faster.

        Raises:
            CacheCorruptError: a file at the place is damaged. Nothing of its unit arrives.
            TransferError: the place cannot be reached.
        """
        (unit,) = units
        with temporary_folder(self._folder / "transfer") as staging:
            fetch_checked(self.source, unit.names, staging)
            if any(name not in self._there and (self._folder / name).exists() for name in unit.names):
                return ()
            for name in unit.stale:
                (self._folder / name).unlink(missing_ok=True)
            for name in unit.names:
                with atomic_path(self._folder / name) as temporary:
                    (staging / name).replace(temporary)
        return unit.names


class Transfer:
    """One transfer in steps: units in parallel, under one bar in bytes."""

    def __init__(self, title: str, *, progress: bool) -> None:
        """Carry nothing yet."""
        self.arrived: list[str] = []
        """Names of the files that travelled."""
        self._bar: tqdm[Any] = tqdm(
            total=0, desc=title, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress
        )

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def run(self, phases: Sequence[Sequence[Unit]], carrier: Sender | Receiver) -> None:
        """Carry phase after phase, the units of one phase in parallel.

        The first failure ends it, after the units that had begun. What arrived stays.
        """
        sizes = carrier.source.files
        self._bar.total = (self._bar.total or 0) + sum(
            sizes[name] for phase in phases for unit in phase for name in unit.names
        )
        self._bar.refresh()
        with ThreadPoolExecutor(1 if carrier.batch > 1 else WORKERS, "transfer") as pool:
            for phase in phases:
                batches = [phase[first : first + carrier.batch] for first in range(0, len(phase), carrier.batch)]
                futures = [pool.submit(carrier.carry, batch) for batch in batches]
                try:
                    for future in as_completed(futures):
                        self.arrived += future.result()
                        self._bar.update(sum(sizes[name] for name in future.result()))
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise


def fetch_checked(source: Holding, names: Sequence[str], folder: Path) -> None:
    """Copy files of a cache into a folder and check them; once more where they did not arrive as they were.

    Raises:
        CacheCorruptError: they were damaged twice.
        TransferError: the place cannot be reached.
    """
    for is_last in (False, True):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            source.place.fetch(name, folder / name)
        try:
            _check(source, names, folder)
        except CacheCorruptError:
            if is_last:
                raise
        else:
            return


def _check(source: Holding, names: Sequence[str], folder: Path) -> None:
    """Verify files of a cache that lie in a folder; the error names them where they came from."""
    for name in names:
        try:
            check_file(folder, name, source)
        except CacheCorruptError as error:
            place = source.place
            finding = str(error).partition(" is damaged: ")[2].partition("; ")[0]
            # A shard without its list would pass for another one's, so a list goes together with its shard.
            what = "it and the other files of its shard" if name.startswith(QUARANTINE_FOLDER) else "it"
            remedy = (
                f"run `mocha-pipe cache verify {place.path} --repair`"
                if place.path is not None
                else f"remove {what} there and push again from a sound copy: `mocha-pipe cache push FOLDER {place.url}`"
            )
            raise CacheCorruptError(f"{place.url}/{name} is damaged: {finding}; {remedy}") from error
