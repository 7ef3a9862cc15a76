"""verify_cache: every byte of a cache against its checksum, every row and key against what it must be.

What it cannot see is a sound file in another's place, such as two shards swapped: that takes the teacher (audit.py).
Legend: n rows of one shard, D width of an array.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import file_digest
from mocha_pipe.data.regions import IMAGES_FILE, REGIONS_FILE, recompute_keys
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.store.cache import ARRAYS, PROJECTION_NAME, RegionCache, folder_bytes
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, shard_path
from mocha_pipe.teacher_cache.store.projection import Projection
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER, quarantine_path, read_quarantine_file
from mocha_pipe.teacher_cache.store.reader import ShardRows, is_described

NORM_SPREAD = 100.0
"""A row's norm must lie within this factor of its array's median."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something at fault, and the file that it was found in."""

    kind: Literal["missing", "damaged", "suspect"]
    """`missing`: not there yet. `damaged`: not the bytes that were written. `suspect`: no embedding looks like that."""
    file: str
    """Relative to the cache's folder."""
    message: str
    array: str | None = None
    shard: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What was checked, and what was found."""

    findings: tuple[Finding, ...]
    arrays: dict[str, int]
    """Shards checked, by array."""
    rows: int
    """Regions in the table."""
    set_aside: int
    """Regions without an embedding."""
    bytes: int
    seconds: float


def verify_cache(folder: Path, *, progress: bool = False) -> VerifyReport:
    """Check a whole cache, one shard in memory at a time.

    Args:
        folder: of the cache.
        progress: show a bar over the shards.

    Raises:
        CacheNotFoundError, CacheFormatError: there is no cache that could be checked.
        CacheCorruptError: the cache's own description is damaged, or the one of an array is missing.
    """
    started = time.perf_counter()
    cache = RegionCache.open(folder)
    findings = [*_table(cache), *_descriptions(cache), *_lists(cache)]
    # Without a sound description every shard would seem damaged.
    undescribed = {finding.array for finding in findings}
    arrays = [name for name in ARRAYS if cache.has(name) and name not in undescribed]
    findings += _projection(cache, has_targets="targets" in arrays)
    aside = _set_aside(cache, findings)
    checked = dict.fromkeys(arrays, 0)
    with tqdm(total=len(arrays) * len(cache.plan), desc="verify", unit="shard", delay=2, disable=not progress) as bar:
        for name in arrays:
            array = _Array(cache, name, aside)
            for shard in range(len(cache.plan)):
                findings += array.check(shard)
                bar.update()
            findings += array.check_norms()
            checked[name] = array.num_checked
    return VerifyReport(
        findings=tuple(findings),
        arrays=checked,
        rows=cache.plan.rows,
        set_aside=int(aside.sum()),
        bytes=folder_bytes(folder),
        seconds=round(time.perf_counter() - started, 3),
    )


def remove_faults(folder: Path, report: VerifyReport) -> list[Path]:
    """Delete just the files that a build then computes again; returns them.

    A shard of `hidden` or `visual` goes with its whole shard, as the rows of one shard belong together.

    Raises:
        CacheCorruptError: the region table or the cache's description is at fault; nothing is deleted then.
    """
    given = {IMAGES_FILE, REGIONS_FILE, "zarr.json", *(f"{name}/zarr.json" for name in TEACHER_ARRAYS)}
    beyond = [finding for finding in report.findings if finding.file in given]
    if beyond:
        raise CacheCorruptError(
            f"{folder / beyond[0].file} cannot be computed again ({beyond[0].message}); fetch it from a copy with "
            f"`mocha-pipe cache pull`, or build in another folder with --reuse {folder}"
        )
    doomed: set[Path] = set()
    for finding in report.findings:
        if finding.kind == "missing":
            continue
        doomed.add(folder / finding.file)
        if finding.file == "targets/zarr.json":
            doomed |= set((folder / "targets").iterdir())  # the array is made anew, description first
        if finding.shard is not None and finding.array != "targets":
            doomed |= {shard_path(folder / name, finding.shard) for name in ARRAYS}
            doomed.add(quarantine_path(folder, finding.shard))
    removed = sorted(path for path in doomed if path.is_file())
    for path in removed:
        path.unlink()
    return removed


class _Array:
    """The shards of one array."""

    def __init__(self, cache: RegionCache, name: str, is_aside: NDArray[np.bool_]) -> None:
        self.name, self.num_checked = name, 0
        self._reader: ShardRows = cache.rows(name)
        self._is_aside = is_aside
        self._missing = set(self._reader.missing())
        self._norms = np.full(cache.plan.rows, np.nan, np.float32)

    def check(self, shard: int) -> Iterator[Finding]:
        """Bytes, gaps and values of one shard."""
        if shard in self._missing:
            yield self._finding("missing", shard, "not computed yet")
            return
        self.num_checked += 1
        start, stop = self._reader.plan.span(shard)
        try:
            values_nD = self._reader.block(start, stop).astype(np.float32)
        except MochaError as error:
            yield self._finding("damaged", shard, str(error).partition(" is damaged: ")[2].partition("; ")[0])
            return
        is_aside = self._is_aside[start:stop]
        is_finite = np.isfinite(values_nD).all(axis=1)
        if (wrong := np.flatnonzero(~is_finite & ~is_aside)).size:
            yield self._finding("suspect", shard, f"{_rows(wrong + start)} not finite and not set aside")
        if (wrong := np.flatnonzero(is_aside & ~np.isnan(values_nD).all(axis=1))).size:
            yield self._finding("suspect", shard, f"{_rows(wrong + start)} set aside but not empty")
        is_flat = is_finite & (values_nD.max(axis=1) == values_nD.min(axis=1))
        if values_nD.shape[1] > 1 and (wrong := np.flatnonzero(is_flat)).size:
            yield self._finding("suspect", shard, f"{_rows(wrong + start)} the same number throughout")
        norms = np.linalg.norm(values_nD, axis=1)
        self._norms[start:stop] = np.where(is_finite & ~is_flat, norms, np.nan)

    def check_norms(self) -> Iterator[Finding]:
        """Norms against those of the whole array."""
        if np.isnan(self._norms).all():
            return
        median = float(np.nanmedian(self._norms))
        low, high = median / NORM_SPREAD, median * NORM_SPREAD
        outside = np.flatnonzero((self._norms < low) | (self._norms > high))
        shards = outside // self._reader.plan.rows_per_shard
        for shard in np.unique(shards).tolist():
            rows = outside[shards == shard]
            message = f"{_rows(rows)} of norm {self._norms[rows[0]]:.3g}, outside {low:.3g} to {high:.3g}"
            yield self._finding("suspect", shard, message)

    def _finding(self, kind: Literal["missing", "damaged", "suspect"], shard: int, message: str) -> Finding:
        file = f"{self.name}/{shard_path(Path(), shard).name}"
        return Finding(kind=kind, file=file, message=message, array=self.name, shard=shard)


def _rows(rows: NDArray[np.int64]) -> str:
    return f"row {rows[0]} is" if len(rows) == 1 else f"{len(rows)} rows (the first is {rows[0]}) are"


def _table(cache: RegionCache) -> Iterator[Finding]:
    """The region table against the cache's digest, and its keys against boxes, class names and image digests."""
    for file, digest in cache.table_files.items():
        if not (cache.path / file).is_file() or file_digest(cache.path / file) != digest:
            yield Finding(kind="damaged", file=file, message="is not the file that was written")
            return
    table = cache.table
    if len(table) != cache.plan.rows:
        message = f"the table has {len(table)} regions, the arrays {cache.plan.rows}"
        yield Finding(kind="damaged", file="zarr.json", message=message)
    wrong = np.flatnonzero(recompute_keys(table) != table.keys)
    if wrong.size:
        message = f"keys of {_rows(wrong)} not those of image, box and class"
        yield Finding(kind="damaged", file=REGIONS_FILE, message=message)


def _descriptions(cache: RegionCache) -> Iterator[Finding]:
    """The `zarr.json` of each array."""
    dims = {"hidden": cache.spec.hidden_dim, "visual": cache.spec.visual_dim}
    for name in ARRAYS:
        if cache.has(name) and not is_described(cache.path / name, cache.plan, dims.get(name)):
            message = "does not describe an array of this cache in the layout that mocha-pipe writes"
            yield Finding(kind="damaged", file=f"{name}/zarr.json", message=message, array=name)


def _lists(cache: RegionCache) -> Iterator[Finding]:
    """Files of the quarantine."""
    for shard in range(len(cache.plan)):
        path = quarantine_path(cache.path, shard)
        if path.is_file():
            yield from _caught(lambda path=path, shard=shard: _check_list(cache, path, shard), path, cache.path, shard)  # type: ignore[misc]


def _check_list(cache: RegionCache, path: Path, shard: int) -> None:
    start, stop = cache.plan.span(shard)
    if not all(start <= region.row < stop for region in read_quarantine_file(path)):
        raise CacheCorruptError(f"{path} is damaged: it is the list of another shard")


def _projection(cache: RegionCache, *, has_targets: bool) -> Iterator[Finding]:
    path = cache.path / PROJECTION_NAME
    if not path.is_file():
        return
    faults = list(_caught(lambda: Projection.load(path), path, cache.path, None))
    yield from faults
    if not faults and has_targets and cache.projection_digest != file_digest(path):
        yield Finding(kind="damaged", file=path.name, message="is not the projection that the targets were made with")


def _caught(read: Callable[[], object], path: Path, folder: Path, shard: int | None) -> Iterator[Finding]:
    try:
        read()
    except MochaError as error:
        message = str(error).partition(" is damaged: ")[2].partition("; ")[0]
        yield Finding(kind="damaged", file=path.relative_to(folder).as_posix(), message=message, shard=shard)


def _set_aside(cache: RegionCache, findings: list[Finding]) -> NDArray[np.bool_]:  # (N,)
    """Which rows were set aside, as far as the lists can be read."""
    unreadable = {finding.file for finding in findings if finding.file.startswith(QUARANTINE_FOLDER)}
    is_aside = np.zeros(cache.plan.rows, bool)
    for shard in range(len(cache.plan)):
        path = quarantine_path(cache.path, shard)
        if path.is_file() and path.relative_to(cache.path).as_posix() not in unreadable:
            is_aside[[region.row for region in read_quarantine_file(path)]] = True
    return is_aside
