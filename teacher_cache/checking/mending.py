"""What `verify` found is mended: files at fault go, or are written anew where they follow from what is known."""

import os
import tempfile
from pathlib import Path

from mocha_pipe.data.errors import quoted
from mocha_pipe.data.files import atomic_path, bytes_digest
from mocha_pipe.data.regions import IMAGES_FILE, REGIONS_FILE, RegionTable
from mocha_pipe.teacher_cache.checking.findings import VerifyReport
from mocha_pipe.teacher_cache.checking.verify import folder_finding
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheMismatchError, CacheWriteError, away_advice
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION, read_layout, require_own_layout
from mocha_pipe.teacher_cache.store.cache import ARRAYS, RegionCache
from mocha_pipe.teacher_cache.store.claims import LOCK_NAME
from mocha_pipe.teacher_cache.store.consolidated import consolidate
from mocha_pipe.teacher_cache.store.disk import make_way
from mocha_pipe.teacher_cache.store.layout import (
    TEACHER_ARRAYS,
    describe_array,
    done_shards,
    shard_name,
    write_table_files,
)
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER, quarantine_path
from mocha_pipe.teacher_cache.teachers.config import TEACHER_NOTE


def require_mendable(folder: Path) -> None:
    """Refuse a cache whose files no build writes anew.

    Raises:
        CacheFormatError: another program laid an array out anew; its files have other names and other rows.
        CacheCorruptError: it came from a lossy archive.
        CacheWriteError: something else has the place of a folder of the cache.
    """
    cache = RegionCache.open(folder)
    if cache.spec.rounding:
        raise CacheCorruptError(
            f"{folder} came from a lossy archive, whose values no teacher says again; fetch what is at fault from "
            f"that: `mocha-pipe cache pull ARCHIVE {quoted(folder)} --repair`"
        )
    for name in (*cache.spec.arrays, "targets", QUARANTINE_FOLDER):
        if (finding := folder_finding(cache, name)) and finding.kind in ("blocked", "elsewhere"):
            path = folder / name
            raise CacheWriteError(f"{path} is not the folder of a cache: {finding.message}; {away_advice(path)}")
    for name in (*cache.spec.arrays, "targets"):
        require_own_layout(str(folder), name, read_layout(folder / name, cache.plan))


def remove_faults(folder: Path, report: VerifyReport) -> list[Path]:
    """Delete just the faulty files that a build then computes again; returns them.

    Where a file of `hidden` or `visual` is at fault, all files of its shard go: its rows must come from one teacher.
    Region table and descriptions stay: `restore` replaces them.

    Raises:
        CacheFormatError, CacheCorruptError: as `require_mendable`; nothing is deleted then.
        CacheWriteError: a folder that holds something has the place of a file.
    """
    require_mendable(folder)
    names = faulty_names(report)
    if f"targets/{DESCRIPTION}" in names:  # nobody knows any more which projection they are of
        names |= {shard_name("targets", shard) for shard in done_shards(folder / "targets")}
    given = {IMAGES_FILE, REGIONS_FILE, *(f"{name}/{DESCRIPTION}" for name in TEACHER_ARRAYS)}
    removed = sorted(folder / name for name in names - given if os.path.lexists(folder / name))
    for path in removed:
        make_way(path)
    if any(finding.kind == "stale" for finding in report.findings):
        consolidate(folder)
    return removed


def restore(folder: Path, report: VerifyReport, table: RegionTable) -> list[Path]:
    """Write anew what follows from the data set and from the cache's own description; returns the files.

    Args:
        folder: of the cache.
        report: what is at fault.
        table: the regions of the cache.

    Raises:
        CacheMismatchError: the table is of other regions.
        CacheWriteError: a folder that holds something has the place of a file.
    """
    cache, names = RegionCache.open(folder), faulty_names(report)
    written = []
    for name, dim in cache.spec.arrays.items():
        if f"{name}/{DESCRIPTION}" in names:
            written.append(_replace(folder / name / DESCRIPTION, describe_array(name, cache.plan, dim, {})))
    if names & {IMAGES_FILE, REGIONS_FILE}:
        if table.digest != cache.table_digest:
            raise CacheMismatchError(
                f"the region table of {folder} is damaged, and the data set has other regions; name the data set that "
                "it was made from with --data"
            )
        with tempfile.TemporaryDirectory() as made:
            table.write(Path(made))
            contents = {name: (Path(made) / name).read_bytes() for name in (IMAGES_FILE, REGIONS_FILE)}
        written += [_replace(folder / name, content) for name, content in contents.items()]
        write_table_files(folder, {name: bytes_digest(content) for name, content in contents.items()})
    return written


def faulty_names(report: VerifyReport) -> set[str]:
    """The files that cannot be trusted, by name within the cache: those at fault, and the others of their shards."""
    names = set()
    for finding in report.findings:
        # What we do not see may be sound, and what is stale is only written for others. Of the notes that no other
        # copy has, a link to nothing is in the way.
        is_note = finding.kind == "elsewhere" and finding.file in (TEACHER_NOTE, LOCK_NAME)
        if finding.kind in ("missing", "elsewhere", "unreadable", "stale", "blocked") and not is_note:
            continue
        names.add(finding.file)
        if finding.shard is not None and finding.array != "targets":
            names |= {shard_name(name, finding.shard) for name in ARRAYS}
            names.add(quarantine_path(Path(), finding.shard).as_posix())
    return names


def _replace(path: Path, content: bytes) -> Path:
    make_way(path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path
