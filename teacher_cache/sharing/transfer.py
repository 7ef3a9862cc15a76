"""Files from here to there: in parallel, each under a temporary name until it was checked, under one bar in bytes."""

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from tqdm import tqdm

from data.files import atomic_path
from data.regions import IMAGES_FILE, REGIONS_FILE
from teacher_cache.cache import ARRAYS, PROJECTION_NAME, RegionCache, file_digest
from teacher_cache.errors import CacheCorruptError
from teacher_cache.layout import TEACHER_ARRAYS
from teacher_cache.quarantine import QUARANTINE_FOLDER, read_quarantine_file
from teacher_cache.reader import check_shard_file
from teacher_cache.sharing.place import Place

WORKERS = 8
COMPLETE_NAME = "complete.json"
DESCRIPTION = "zarr.json"
_SHARD = re.compile(rf"({'|'.join(ARRAYS)})/c\.(\d+)\.0")
_LIST = re.compile(rf"{QUARANTINE_FOLDER}/shard-(\d+)\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferReport:
    """What one transfer did."""

    files: int
    """Files that travelled."""
    bytes: int
    present: int
    """Files that were there already."""
    shards_missing: int
    """Shards that the destination still lacks in the teacher's arrays."""


def shard_of(name: str) -> tuple[str, int] | None:
    """Array and shard of a shard file's name within a cache; None for other files."""
    match = _SHARD.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def list_of(name: str) -> int | None:
    """Shard of a quarantine file's name within a cache; None for other files."""
    match = _LIST.fullmatch(name)
    return int(match[1]) if match else None


def known(sizes: Mapping[str, int]) -> dict[str, int]:
    """The files that belong to a cache; nothing else ever travels, so that no name leads out of its folder."""
    fixed = {DESCRIPTION, IMAGES_FILE, REGIONS_FILE, PROJECTION_NAME, COMPLETE_NAME}
    fixed |= {f"{array}/{DESCRIPTION}" for array in ARRAYS}
    return {name: size for name, size in sizes.items() if name in fixed or shard_of(name) or list_of(name) is not None}


def check_file(name: str, path: Path, cache: RegionCache) -> None:
    """Verify the content of a cache's file, which may lie under a temporary name.

    Args:
        name: what the file is called within the cache.
        path: where it lies.
        cache: the cache that it belongs to.

    Raises:
        CacheCorruptError: it is not what was written.
    """
    if found := shard_of(name):
        array, shard = found
        check_shard_file(path, cache.plan, shard, cache.rows(array).dim)
    elif list_of(name) is not None:
        read_quarantine_file(path)
    elif name == PROJECTION_NAME and cache.has("targets") and file_digest(path) != cache.projection_digest:
        raise CacheCorruptError(f"{path} is damaged: it is not the projection that the targets were made with")
    elif name in (IMAGES_FILE, REGIONS_FILE):
        _check_table_file(path, cache)


def fetch_all(place: Place, names: Mapping[str, int], folder: Path, cache: RegionCache, *, progress: bool) -> int:
    """Copy files of a place into a local cache; returns the bytes.

    Raises:
        TransferError: the connection failed again and again. What arrived stays.
        CacheCorruptError: a file was damaged twice in a row.
    """

    def fetch(name: str) -> None:
        try:
            _fetch(place, name, folder, cache)
        except CacheCorruptError:
            try:
                _fetch(place, name, folder, cache)  # what was damaged on its way is whole the second time
            except CacheCorruptError as error:
                raise CacheCorruptError(
                    f"{place.url}/{name} is damaged: {_finding(error)}; whoever has it whole sends it again with "
                    f"`mocha-pipe cache push`, or remove it there"
                ) from error

    return _in_parallel(fetch, names, "pull", progress=progress)


def _fetch(place: Place, name: str, folder: Path, cache: RegionCache) -> None:
    with atomic_path(folder / name) as temporary:
        place.fetch(name, temporary)
        check_file(name, temporary, cache)


def store_all(folder: Path, names: Mapping[str, int], place: Place, cache: RegionCache, *, progress: bool) -> int:
    """Copy files of a local cache to a place, each checked before it leaves; returns the bytes.

    Raises:
        TransferError: the connection failed again and again. What arrived stays.
        CacheCorruptError: a local file is damaged; it is not sent.
    """

    def store(name: str) -> None:
        check_file(name, folder / name, cache)
        place.store(name, folder / name)

    return _in_parallel(store, names, "push", progress=progress)


def _in_parallel(copy: Callable[[str], None], names: Mapping[str, int], title: str, *, progress: bool) -> int:
    """Copy files under one bar; the first failure ends it after the copies that had begun."""
    total = sum(names.values())
    bar = tqdm(total=total, desc=title, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress)
    with bar, ThreadPoolExecutor(WORKERS, "transfer") as pool:
        futures = {name: pool.submit(copy, name) for name in names}
        try:
            for name, future in futures.items():
                future.result()
                bar.update(names[name])
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return total


def _check_table_file(path: Path, cache: RegionCache) -> None:
    try:
        digest = (
            (pq.read_table(path, page_checksum_verification=True).schema.metadata or {}).get(b"digest", b"").decode()
        )
    except Exception as error:  # pyarrow's own errors and, on broken bytes, whatever its decoders meet
        raise CacheCorruptError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if digest != cache.table_digest:
        raise CacheCorruptError(f"{path} is damaged: it is the table of other regions")


def _finding(error: Exception) -> str:
    return (str(error).partition(" is damaged: ")[2] or str(error)).partition("; ")[0]


def missing(of: Iterable[str], sizes: Mapping[str, int], there: Mapping[str, int]) -> dict[str, int]:
    """Those names, with their sizes, that a destination lacks or has in another size."""
    return {name: sizes[name] for name in of if there.get(name) != sizes[name]}


def shards_missing(there: Iterable[str], cache: RegionCache) -> int:
    """Shards that a listing lacks in the teacher's arrays."""
    names = set(there)
    return sum(any(f"{array}/c.{shard}.0" not in names for array in TEACHER_ARRAYS) for shard in range(len(cache.plan)))
