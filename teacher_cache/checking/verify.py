"""verify_cache: every byte of a cache against its checksum, every row and key against what it must be.

Two sound files that changed places, such as two shards, are not seen here: that takes the teacher (audit.py).
Legend: N rows of an array, n rows of one shard, D width of an array.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.errors import MochaError, first_line
from mocha_pipe.data.files import file_digest
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.data.regions import REGIONS_FILE, recompute_keys
from mocha_pipe.teacher_cache.checking.findings import Finding, Kind, VerifyReport, is_copied
from mocha_pipe.teacher_cache.checking.rows import RowFacts, row_facts
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheIncompleteError,
    CacheUnreadableError,
    mend_advice,
    relayout_advice,
)
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION, V2_DESCRIPTIONS, read_layout
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME, RegionCache, folder_bytes
from mocha_pipe.teacher_cache.store.claims import LOCK_NAME
from mocha_pipe.teacher_cache.store.consolidated import is_consolidated
from mocha_pipe.teacher_cache.store.disk import reading
from mocha_pipe.teacher_cache.store.layout import ShardPlan, done_shards, shard_name, shard_path
from mocha_pipe.teacher_cache.store.projection import Projection
from mocha_pipe.teacher_cache.store.quarantine import (
    QUARANTINE_FOLDER,
    SetAside,
    quarantine_path,
    read_quarantine_file,
    rows_in_words,
)
from mocha_pipe.teacher_cache.teachers.config import TEACHER_NOTE

SIZE_SPREAD = 100.0
"""The largest number of a row must lie within this factor of its array's median."""

COMPLETE_NAME = "complete.json"
"""What the pipeline writes beside a cache when a build has ended."""

_CHECKSUMS = frozenset({"adler32", "crc32", "crc32c", "fletcher32", "gzip", "jenkins_lookup3"})
"""Codecs of Zarr that notice a flipped bit; zstd does so where it was told to."""


def verify_cache(folder: Path, *, progress: bool = False) -> VerifyReport:
    """Check a whole cache, a megabyte of each shard in memory at a time.

    Raises:
        CacheNotFoundError, CacheFormatError: there is no cache that could be checked.
        CacheCorruptError: the cache's own description is damaged.
        CacheIncompleteError: it is a link to what is not on this disk.
    """
    started = time.perf_counter()
    cache = RegionCache.open(folder)
    in_lists, is_aside, is_known = _lists(cache)
    findings = [*_table(cache), *_descriptions(cache), *_markers(cache), *in_lists]
    # Without a sound description every shard would seem damaged.
    undescribed = {finding.array for finding in findings}
    arrays = [name for name in (*cache.spec.arrays, "targets") if cache.has(name) and name not in undescribed]
    layouts = {name: cache.rows(name).layout for name in arrays}
    foreign = {name: layout for name, layout in layouts.items() if not layout.is_ours}
    findings += _projection(cache, has_targets="targets" in arrays)
    checked = {}
    with tqdm(total=len(arrays) * len(cache.plan), desc="verify", unit="shard", delay=2, disable=not progress) as bar:
        for name in arrays:
            in_array = list(_array(cache, name, is_aside, is_known, bar))
            checked[name] = len(cache.plan) - sum(finding.kind in ("missing", "elsewhere") for finding in in_array)
            findings += in_array
    advice = f"; {relayout_advice(str(folder))}" if is_copied(findings) else ""
    notes = [
        f"{name} is {layout.finding}; it can be read, and nothing is written to it"
        f"{'' if _is_guarded(layout.description) else '; no checksum guards its values'}{advice}"
        for name, layout in foreign.items()
    ]
    return VerifyReport(
        findings=tuple(findings),
        arrays=checked,
        rows=cache.plan.rows,
        set_aside=int(is_aside.sum()),
        bytes=folder_bytes(folder),
        seconds=round(time.perf_counter() - started, 3),
        notes=tuple(notes),
        is_foreign=bool(foreign),
        is_rounded=bool(cache.spec.rounding),
    )


def faulty_tables(folder: Path) -> list[str]:
    """The files of the region table that are not those which the cache was made with."""
    return [name for name, digest in RegionCache.open(folder).table_files.items() if _digest(folder / name) != digest]


def folder_finding(cache: RegionCache, name: str, array: str | None = None) -> Finding | None:
    """What hides the files of a folder of the cache, if something does; a folder that is not there hides nothing."""
    path = cache.path / name
    kind: Kind = "blocked"
    try:
        with reading(path, cache.path):
            content = {found.name for found in path.iterdir()}
    except MochaError as error:
        kind, message = _kind(error), _finding(error)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        message = "it is a file, and must be a folder"
    else:
        if DESCRIPTION in content or content.isdisjoint(V2_DESCRIPTIONS):
            return None
        message = "it is Zarr v2, which mocha-pipe does not read"
    return Finding(kind=kind, file=name, message=message, array=array)


def read_list(path: Path, plan: ShardPlan, shard: int) -> tuple[SetAside, ...]:
    """The regions of one shard that were set aside.

    Raises:
        CacheCorruptError: the file is damaged, or the list of another shard.
    """
    regions = read_quarantine_file(path)
    start, stop = plan.span(shard)
    if not all(start <= region.row < stop for region in regions):
        raise CacheCorruptError.of(path, "it is the list of another shard", mend_advice(path.parent.parent))
    return regions


def _array(
    cache: RegionCache,
    name: str,
    is_aside_N: NDArray[np.bool_],
    is_known_N: NDArray[np.bool_],
    bar: "tqdm[NoReturn]",
) -> Iterator[Finding]:
    """The shards of one array: bytes, gaps and values of each, then the sizes of all rows."""
    reader = cache.rows(name)
    sizes_N = np.full(cache.plan.rows, np.nan, np.float32)

    def found(kind: Kind, shard: int, message: str) -> Finding:
        file = shard_name(name, shard)
        if not reader.layout.is_ours:
            start, stop = cache.plan.span(shard)
            file, message = name, f"rows {start} to {stop - 1}: {message}"
        return Finding(kind=kind, file=file, message=message, array=name, shard=shard)

    def look(shard: int) -> RowFacts | MochaError:
        try:
            return row_facts(reader.pieces(shard), is_aside_N[slice(*cache.plan.span(shard))])
        except (CacheIncompleteError, CacheCorruptError) as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "verify") as pool:
        for shard, facts in enumerate(pool.map(look, range(len(cache.plan)))):
            bar.update()
            if isinstance(facts, MochaError):
                is_link = shard_path(reader.folder, shard).is_symlink()
                if isinstance(facts, CacheIncompleteError) and not is_link:
                    yield found("missing", shard, "not computed yet")
                else:
                    yield found(_kind(facts), shard, _finding(facts))
                continue
            start, stop = cache.plan.span(shard)
            is_aside = is_aside_N[start:stop]
            for is_wrong, what in (
                (~facts.is_finite & ~is_aside & is_known_N[start:stop], "not finite and not set aside"),
                (is_aside & ~facts.is_empty, "set aside but not empty"),
                (facts.is_flat, "the same number throughout"),
            ):
                if is_wrong.any():
                    yield found("suspect", shard, f"{rows_in_words(np.flatnonzero(is_wrong) + start)} {what}")
            sizes_N[start:stop] = np.where(facts.is_finite & ~facts.is_flat, facts.largest, np.nan)
    if np.isnan(sizes_N).all():
        return
    median = float(np.nanmedian(sizes_N))
    low, high = median / SIZE_SPREAD, median * SIZE_SPREAD
    outside = np.flatnonzero((sizes_N < low) | (sizes_N > high))
    shards = outside // cache.plan.rows_per_shard
    for shard in np.unique(shards).tolist():
        rows = outside[shards == shard]
        message = f"{rows_in_words(rows)} of size {sizes_N[rows[0]]:.3g}, outside {low:.3g} to {high:.3g}"
        yield found("suspect", shard, message)


def _table(cache: RegionCache) -> Iterator[Finding]:
    """The region table against the cache's digest, and its keys against boxes, class names and image digests."""
    is_sound = True
    for file, digest in cache.table_files.items():
        message = "is not the file that was written"
        kind: Kind = "damaged"
        try:
            with reading(cache.path / file, cache.path):
                is_same = file_digest(cache.path / file) == digest
        except MochaError as error:
            is_same, kind, message = False, _kind(error), _finding(error)
        except OSError as error:
            is_same, message = False, "is missing" if isinstance(error, FileNotFoundError) else first_line(error)
        if not is_same:
            yield Finding(kind=kind, file=file, message=message)
            is_sound = False
    if not is_sound:
        return
    table = cache.table
    if len(table) != cache.plan.rows:
        message = f"the table has {len(table)} regions, the arrays {cache.plan.rows}"
        yield Finding(kind="damaged", file="zarr.json", message=message)
    wrong = np.flatnonzero(recompute_keys(table) != table.keys)
    if wrong.size:
        message = f"keys of {rows_in_words(wrong)} not those of image, box and class"
        yield Finding(kind="damaged", file=REGIONS_FILE, message=message)


def _descriptions(cache: RegionCache) -> Iterator[Finding]:
    """The `zarr.json` of each array, and the list of them in the cache's own."""
    ours = []
    for name in (*cache.spec.arrays, "targets"):
        if finding := folder_finding(cache, name, array=name):
            yield finding
            continue
        if name == "targets" and not cache.has(name) and not done_shards(cache.path / name):
            continue
        file = f"{name}/{DESCRIPTION}"
        try:
            layout = read_layout(cache.path / name, cache.plan, cache.spec.arrays.get(name))
        except (CacheUnreadableError, CacheIncompleteError) as error:
            yield Finding(kind=_kind(error), file=file, message=_finding(error), array=name)
            continue
        if layout.kind == "unreadable":
            yield Finding(kind="damaged", file=file, message=layout.finding, array=name)
        elif layout.is_ours:
            ours.append(name)
    # Of an array in another layout a note tells; nothing is written for its sake.
    if not is_consolidated(cache.path, ours):
        message = "its list of arrays is not what they say of themselves"
        yield Finding(kind="stale", file=DESCRIPTION, message=message)


def _markers(cache: RegionCache) -> Iterator[Finding]:
    """The files that others than this package read, or nobody: json must be json, and the lock a file."""
    for name in (COMPLETE_NAME, TEACHER_NOTE, LOCK_NAME):
        path = cache.path / name
        try:
            with reading(path, cache.path):
                content = path.read_bytes()
            if name != LOCK_NAME and not isinstance(parse_json(content), dict):
                raise ValueError
        except MochaError as error:
            yield Finding(kind=_kind(error), file=name, message=_finding(error))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            message = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else "is no json"
            yield Finding(kind="damaged", file=name, message=message)


def _lists(
    cache: RegionCache,
) -> tuple[list[Finding], NDArray[np.bool_], NDArray[np.bool_]]:  # ..., (N,), (N,)
    """The lists of what was set aside, which rows they name, and of which rows we can know whether they are named."""
    is_aside, is_known = np.zeros(cache.plan.rows, bool), np.ones(cache.plan.rows, bool)
    if finding := folder_finding(cache, QUARANTINE_FOLDER):
        return [finding], is_aside, ~is_known
    findings = []
    for shard in range(len(cache.plan)):
        path = quarantine_path(cache.path, shard)
        if not os.path.lexists(path):
            continue
        try:
            is_aside[[region.row for region in read_list(path, cache.plan, shard)]] = True
        except (CacheCorruptError, CacheIncompleteError) as error:
            file = path.relative_to(cache.path).as_posix()
            findings.append(Finding(kind=_kind(error), file=file, message=_finding(error), shard=shard))
            # Rows are not blamed for a list that may be sound.
            is_known[slice(*cache.plan.span(shard))] = findings[-1].kind == "damaged"
    return findings, is_aside, is_known


def _projection(cache: RegionCache, *, has_targets: bool) -> Iterator[Finding]:
    path = cache.path / PROJECTION_NAME
    if not os.path.lexists(path):
        if has_targets and not cache.missing_teacher_shards():
            yield Finding(kind="missing", file=path.name, message="not computed yet")
        return
    message = "is not the projection that the targets were made with"
    try:
        Projection.load(path)
        is_sound = not has_targets or cache.projection_digest == file_digest(path)
    except (CacheCorruptError, CacheIncompleteError) as error:
        yield Finding(kind=_kind(error), file=path.name, message=_finding(error))
        return
    if not is_sound:
        yield Finding(kind="damaged", file=path.name, message=message)


def _is_guarded(description: bytes) -> bool:
    """Whether reading an array, whose description is sound, would tell a flipped bit in a value."""
    codecs = parse_json(description)["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        codecs = [*codecs, *codecs[0]["configuration"]["codecs"]]
    for codec in codecs:
        name = codec["name"].removeprefix("numcodecs.")
        if name in _CHECKSUMS or (name == "zstd" and codec["configuration"].get("checksum")):
            return True
    return False


def _kind(error: MochaError) -> Kind:
    if isinstance(error, CacheUnreadableError):
        return "unreadable"
    return "elsewhere" if isinstance(error, CacheIncompleteError) else "damaged"


def _finding(error: MochaError) -> str:
    """What an error says of a file, without the file's name."""
    return (
        error.finding
        if isinstance(error, CacheCorruptError)
        else "it is " + str(error).partition(" is ")[2].partition("; ")[0]
    )


def _digest(path: Path) -> str:
    """Digest of a file; empty where it cannot be read."""
    try:
        return file_digest(path)
    except OSError:
        return ""
