"""Copies the files of a cache: in parallel, each checked before it counts, with one progress bar in bytes.

Files that belong together are a unit. All are checked before the first one appears under its name; then they appear in
their order.
"""

import tempfile
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt
from tqdm import tqdm

from mocha_pipe.data.files import atomic_path, temporary_folder
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.sharing.cache_files import is_shard
from mocha_pipe.teacher_cache.sharing.checks import check_file
from mocha_pipe.teacher_cache.sharing.holding import Holding
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.sharing.units import Unit
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION
from mocha_pipe.teacher_cache.store.consolidated import consolidate
from mocha_pipe.teacher_cache.store.disk import make_way

WORKERS = 8
"""Units that travel at once."""

Carry = Callable[[Sequence[Unit]], Sequence[str]]
"""Copies some units and returns the names of the files that arrived."""


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


class Transfer:
    """One transfer in phases, with one progress bar in bytes."""

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

    def run(self, phases: Sequence[Sequence[Unit]], source: Holding, carry: Carry, *, batch: int = 1) -> None:
        """Carry phase after phase; the units of one phase travel side by side, or in batches one after the other.

        The first failure ends the transfer, after the units that had begun. What arrived stays.
        """
        sizes = source.files
        self._bar.total = (self._bar.total or 0) + sum(
            sizes[name] for phase in phases for unit in phase for name in unit.names
        )
        self._bar.refresh()
        with ThreadPoolExecutor(1 if batch > 1 else WORKERS, "transfer") as pool:
            for phase in phases:
                batches = [phase[first : first + batch] for first in range(0, len(phase), batch)]
                futures = [pool.submit(carry, units) for units in batches]
                try:
                    for future in as_completed(futures):
                        self.arrived += future.result()
                        self._bar.update(sum(sizes[name] for name in future.result()))
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise


def send_units(source: Holding, place: Place, there: Collection[str], units: Sequence[Unit]) -> Sequence[str]:
    """Copy units of a local cache to a place, where only the files in `there` may be replaced.

    Returns:
        The names that arrived, without those that somebody else sent first.

    Raises:
        CacheCorruptError: a file of ours is damaged. None of these units is sent.
        TransferError: the place cannot be reached.
    """
    assert source.place.path is not None
    folder, names = source.place.path, [name for unit in units for name in unit.names]
    stale = [name for unit in units for name in unit.stale]
    with tempfile.TemporaryDirectory() as staging:
        anew = [name for name in names if not source.is_as_written(name)]
        fetch_checked(source, anew, Path(staging))
        _check(source, [name for name in names if name not in anew], folder)
        return place.send({name: (Path(staging) if name in anew else folder) / name for name in names}, stale, there)


def fetch_units(
    source: Holding, folder: Path, there: Collection[str], sums: dict[str, bytes], units: Sequence[Unit]
) -> Sequence[str]:
    """Copy units from a place into a local cache, where only the files in `there` may be replaced.

    The checksums of the chunks of each shard that was sent are noted in `sums`, by name.

    Returns:
        The names that arrived, without those of units of which a file appeared in the folder meanwhile.

    Raises:
        CacheCorruptError: a file at the place is damaged. Nothing of its unit arrives.
        TransferError: the place cannot be reached.
    """
    arrived: list[str] = []
    for unit in units:
        with temporary_folder(folder / "transfer") as staging:
            fetch_checked(source, unit.names, staging)
            if any(name not in there and (folder / name).exists() for name in unit.names):
                continue
            for name in filter(is_shard, unit.names):
                sums[name] = source.shard_file(staging / name, name).checksums()
            for name in unit.stale:
                make_way(folder / name)
            for name in unit.names:
                if (folder / name).is_dir():
                    make_way(folder / name)
                with atomic_path(folder / name) as temporary:
                    (staging / name).replace(temporary)
            arrived += unit.names
    return arrived


def consolidate_remote(there: Holding) -> None:
    """Let the description of a cache behind a URL list the arrays that are there, for readers that go by it.

    Raises:
        TransferError: the place cannot be reached.
    """
    names = [DESCRIPTION, *(name for name in there.files if name.endswith(f"/{DESCRIPTION}"))]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            there.place.fetch(name, Path(folder) / name)
        consolidate(Path(folder))
        if (Path(folder) / DESCRIPTION).read_bytes() != there.description:
            there.place.send({DESCRIPTION: Path(folder) / DESCRIPTION}, (), there.replaceable)


@retry(stop=stop_after_attempt(2), retry=retry_if_exception_type(CacheCorruptError), reraise=True)
def fetch_checked(source: Holding, names: Sequence[str], folder: Path) -> None:
    """Copy files of a cache into a folder and check them; a second time where a check fails.

    Raises:
        CacheCorruptError: they were damaged twice.
        TransferError: the place cannot be reached.
    """
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        source.fetch(name, folder / name)
    _check(source, names, folder)


def _check(source: Holding, names: Sequence[str], folder: Path) -> None:
    """Verify files of a cache that lie in a folder; the error names them where they came from."""
    for name in names:
        try:
            check_file(folder, name, source)
        except CacheCorruptError as error:
            raise source.damaged(name, error.finding) from error
