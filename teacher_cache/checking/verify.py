"""verify_cache: every byte of a cache against its checksum, every row and key against what it must be.

Two sound files that changed places, such as two shards, are not seen here: that takes the teacher (audit.py).
Legend: N rows of an array, n rows of one shard, D width of an array.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import file_digest
from mocha_pipe.data.regions import IMAGES_FILE, REGIONS_FILE, recompute_keys
from mocha_pipe.teacher_cache.checking.rows import RowFacts, row_facts
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.store.cache import ARRAYS, PROJECTION_NAME, RegionCache, folder_bytes
from mocha_pipe.teacher_cache.store.consolidated import consolidate, is_consolidated
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, ShardPlan, done_shards, shard_path
from mocha_pipe.teacher_cache.store.projection import Projection
from mocha_pipe.teacher_cache.store.quarantine import SetAside, quarantine_path, read_quarantine_file
from mocha_pipe.teacher_cache.store.reader import is_described

SIZE_SPREAD = 100.0
"""The largest number of a row must lie within this factor of its array's median."""

Kind = Literal["missing", "damaged", "suspect", "stale"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A fault, and the file that has it."""

    kind: Kind
    """`missing`: not there yet. `damaged`: not the bytes that were written. `suspect`: no embedding looks like that.
    `stale`: the list of arrays, by which other programs read; never ours."""
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
    """Check a whole cache, a megabyte of each shard in memory at a time.

    Raises:
        CacheNotFoundError, CacheFormatError: there is no cache that could be checked.
        CacheCorruptError: the cache's own description is damaged, or the one of an array is missing.
    """
    started = time.perf_counter()
    cache = RegionCache.open(folder)
    in_lists, is_aside = _lists(cache)
    findings = [*_table(cache), *_descriptions(cache), *in_lists]
    # Without a sound description every shard would seem damaged.
    undescribed = {finding.array for finding in findings}
    arrays = [name for name in (*cache.spec.arrays, "targets") if cache.has(name) and name not in undescribed]
    findings += _projection(cache, has_targets="targets" in arrays)
    checked = {}
    with tqdm(total=len(arrays) * len(cache.plan), desc="verify", unit="shard", delay=2, disable=not progress) as bar:
        for name in arrays:
            in_array = list(_array(cache, name, is_aside, bar))
            checked[name] = len(cache.plan) - sum(finding.kind == "missing" for finding in in_array)
            findings += in_array
    return VerifyReport(
        findings=tuple(findings),
        arrays=checked,
        rows=cache.plan.rows,
        set_aside=int(is_aside.sum()),
        bytes=folder_bytes(folder),
        seconds=round(time.perf_counter() - started, 3),
    )


def require_mendable(folder: Path, report: VerifyReport) -> None:
    """Refuse faults that no build mends.

    Raises:
        CacheCorruptError: the region table or the cache's description is at fault.
    """
    given = {IMAGES_FILE, REGIONS_FILE, "zarr.json", *(f"{name}/zarr.json" for name in TEACHER_ARRAYS)}
    beyond = [finding for finding in report.findings if finding.file in given and finding.kind != "stale"]
    if beyond:
        raise CacheCorruptError(
            f"{folder / beyond[0].file} cannot be computed again ({beyond[0].message}); fetch it from a copy with "
            f"`mocha-pipe cache pull`, or build in another folder with --reuse {folder}"
        )


def remove_faults(folder: Path, report: VerifyReport) -> list[Path]:
    """Delete just the faulty files that a build then computes again; returns them.

    Where a file of `hidden` or `visual` is at fault, all files of its shard go: its rows must come from one teacher.

    Raises:
        CacheCorruptError: as `require_mendable`; nothing is deleted then.
    """
    require_mendable(folder, report)
    doomed: set[Path] = set()
    for finding in report.findings:
        if finding.kind in ("missing", "stale"):
            continue
        doomed.add(folder / finding.file)
        if finding.file == "targets/zarr.json":
            # The array is made anew, description first.
            doomed |= {shard_path(folder / "targets", shard) for shard in done_shards(folder / "targets")}
        if finding.shard is not None and finding.array != "targets":
            doomed |= {shard_path(folder / name, finding.shard) for name in ARRAYS}
            doomed.add(quarantine_path(folder, finding.shard))
    removed = sorted(path for path in doomed if path.is_file())
    for path in removed:
        path.unlink()
    if any(finding.kind == "stale" for finding in report.findings):
        consolidate(folder)
    return removed


def read_list(path: Path, plan: ShardPlan, shard: int) -> tuple[SetAside, ...]:
    """The regions of one shard that were set aside.

    Raises:
        CacheCorruptError: the file is damaged, or the list of another shard.
    """
    regions = read_quarantine_file(path)
    start, stop = plan.span(shard)
    if not all(start <= region.row < stop for region in regions):
        raise CacheCorruptError(f"{path} is damaged: it is the list of another shard")
    return regions


def finding_of(error: MochaError) -> str:
    """What an error says of a damaged file, without the file's name and the remedy."""
    return str(error).partition(" is damaged: ")[2].partition("; ")[0]


def _array(cache: RegionCache, name: str, is_aside_N: NDArray[np.bool_], bar: "tqdm[NoReturn]") -> Iterator[Finding]:
    """The shards of one array: bytes, gaps and values of each, then the sizes of all rows."""
    reader = cache.rows(name)
    missing = set(reader.missing())
    sizes_N = np.full(cache.plan.rows, np.nan, np.float32)

    def found(kind: Kind, shard: int, message: str) -> Finding:
        file = f"{name}/{shard_path(Path(), shard).name}"
        return Finding(kind=kind, file=file, message=message, array=name, shard=shard)

    def look(shard: int) -> RowFacts | MochaError | None:
        if shard in missing:
            return None
        try:
            return row_facts(reader.pieces(shard), is_aside_N[slice(*cache.plan.span(shard))])
        except MochaError as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "verify") as pool:
        for shard, facts in enumerate(pool.map(look, range(len(cache.plan)))):
            bar.update()
            if facts is None:
                yield found("missing", shard, "not computed yet")
                continue
            if isinstance(facts, MochaError):
                yield found("damaged", shard, finding_of(facts))
                continue
            start, stop = cache.plan.span(shard)
            is_aside = is_aside_N[start:stop]
            for is_wrong, what in (
                (~facts.is_finite & ~is_aside, "not finite and not set aside"),
                (is_aside & ~facts.is_empty, "set aside but not empty"),
                (facts.is_flat, "the same number throughout"),
            ):
                if is_wrong.any():
                    yield found("suspect", shard, f"{_rows(np.flatnonzero(is_wrong) + start)} {what}")
            sizes_N[start:stop] = np.where(facts.is_finite & ~facts.is_flat, facts.largest, np.nan)
    if np.isnan(sizes_N).all():
        return
    median = float(np.nanmedian(sizes_N))
    low, high = median / SIZE_SPREAD, median * SIZE_SPREAD
    outside = np.flatnonzero((sizes_N < low) | (sizes_N > high))
    shards = outside // cache.plan.rows_per_shard
    for shard in np.unique(shards).tolist():
        rows = outside[shards == shard]
        message = f"{_rows(rows)} of size {sizes_N[rows[0]]:.3g}, outside {low:.3g} to {high:.3g}"
        yield found("suspect", shard, message)


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
    """The `zarr.json` of each array, and the list of them in the cache's own."""
    arrays = [name for name in (*cache.spec.arrays, "targets") if cache.has(name)]
    for name in tuple(arrays):
        if not is_described(cache.path / name, cache.plan, cache.spec.arrays.get(name)):
            message = "does not describe an array of this cache in the layout that mocha-pipe writes"
            yield Finding(kind="damaged", file=f"{name}/zarr.json", message=message, array=name)
            arrays.remove(name)
    if not is_consolidated(cache.path, arrays):
        yield Finding(kind="stale", file="zarr.json", message="its list of arrays is not what they say of themselves")


def _lists(cache: RegionCache) -> tuple[list[Finding], NDArray[np.bool_]]:  # ..., (N,)
    """The lists of what was set aside, and which rows they name as far as the lists can be read."""
    findings, is_aside = [], np.zeros(cache.plan.rows, bool)
    for shard in range(len(cache.plan)):
        path = quarantine_path(cache.path, shard)
        if not path.is_file():
            continue
        try:
            is_aside[[region.row for region in read_list(path, cache.plan, shard)]] = True
        except MochaError as error:
            file = path.relative_to(cache.path).as_posix()
            findings.append(Finding(kind="damaged", file=file, message=finding_of(error), shard=shard))
    return findings, is_aside


def _projection(cache: RegionCache, *, has_targets: bool) -> Iterator[Finding]:
    path = cache.path / PROJECTION_NAME
    if not path.is_file():
        return
    message = "is not the projection that the targets were made with"
    try:
        Projection.load(path)
        is_sound = not has_targets or cache.projection_digest == file_digest(path)
    except MochaError as error:
        is_sound, message = False, finding_of(error)
    if not is_sound:
        yield Finding(kind="damaged", file=path.name, message=message)
