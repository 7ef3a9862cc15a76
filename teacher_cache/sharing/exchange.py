"""push, pull, merge and mirror: what travels, in which order, and when it must not.

First what a cache is (description, table), then projection and shards, and last the marker that it is complete, so that
a reader never finds a claim that is not true yet. Files that are there stay as they are: the first one wins. The files
of one shard belong together: where a place has only one of them, and not the same bytes, the whole shard is sent again.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.regions import IMAGES_FILE, REGIONS_FILE, RegionTable
from teacher_cache.cache import PROJECTION_NAME, RegionCache, parse_attributes
from teacher_cache.differences import table_differences
from teacher_cache.errors import (
    CacheFormatError,
    CacheIncompleteError,
    CacheMismatchError,
    CacheNotFoundError,
)
from teacher_cache.layout import TEACHER_ARRAYS, publish, temporary_folder
from teacher_cache.quarantine import QUARANTINE_FOLDER
from teacher_cache.sharing.place import Place
from teacher_cache.sharing.transfer import (
    COMPLETE_NAME,
    DESCRIPTION,
    TransferReport,
    fetch_all,
    known,
    missing,
    shards_missing,
    store_all,
)
from teacher_cache.spec import TeacherSpec

Sizes = Mapping[str, int]
_IDENTITY = (IMAGES_FILE, REGIONS_FILE, *(f"{name}/{DESCRIPTION}" for name in TEACHER_ARRAYS), DESCRIPTION)
"""What a cache is; the description, which makes it one, last."""
_TARGETS = f"targets/{DESCRIPTION}"


def push(folder: Path, to: str, *, progress: bool = False) -> TransferReport:
    """Copy to a folder or URL what it lacks of a local cache, complete or not.

    Raises:
        CacheNotFoundError, CacheFormatError: there is no cache in `folder`, or something else at `to`.
        CacheMismatchError: the cache at `to` is another one, or its targets are.
        CacheCorruptError: a file of ours is damaged; it is not sent.
        TransferError: the place cannot be reached. What arrived stays, and the next push goes on.
    """
    cache, place = RegionCache.open(folder), Place(to)
    here, there = known(Place(str(folder)).sizes()), _files_at(place)
    if DESCRIPTION in there:
        _require_same(cache, place)
        _require_same_targets(cache, place, there, remedy="push to another place")
    shards = _shards_to_send(cache, here, place, there)
    derived = _derived(here) if cache.has_current_targets() else ()
    marker = [COMPLETE_NAME] if COMPLETE_NAME in here and cache.is_complete else []
    steps = [_IDENTITY, [name for name in derived if name in (_TARGETS, PROJECTION_NAME)], shards, derived, marker]
    return _transfer(steps, here, there, cache, lambda names: store_all(folder, names, place, cache, progress=progress))


def pull(source: str, folder: Path, *, targets_only: bool = False, progress: bool = False) -> TransferReport:
    """Fetch what a local folder lacks of the cache at a folder or URL; every file is checked before it counts.

    Args:
        source: where the cache is.
        folder: local; made where missing.
        targets_only: only what distillation needs, the targets and the region table.
        progress: show a bar in bytes.

    Raises:
        CacheNotFoundError, CacheFormatError: there is no cache at `source`, or something else in `folder`.
        CacheMismatchError: `folder` holds another cache, or other targets.
        CacheCorruptError: a file at `source` is damaged; it does not arrive.
        TransferError: the place cannot be reached. What arrived stays, and the next pull goes on.
    """
    place = Place(source)
    there, cache = _files_at(place), _adopt(place, folder)
    _require_same_targets(cache, place, there, remedy="name another folder")
    here = known(Place(str(folder)).sizes())
    derived = [name for name in _derived(there) if not (targets_only and name == PROJECTION_NAME)]
    shards = [] if targets_only else _shards_to_fetch(cache, here, there)
    lists = [name for name in there if name.startswith(QUARANTINE_FOLDER)] if targets_only else []
    first = [name for name in derived if name in (_TARGETS, PROJECTION_NAME)]
    report = _transfer(
        [first, lists, shards, derived], there, here, cache,
        lambda names: fetch_all(place, names, folder, cache, progress=progress),
    )  # fmt: skip
    if COMPLETE_NAME in there and cache.is_complete:
        fetch_all(place, missing([COMPLETE_NAME], there, here), folder, cache, progress=False)
    return report


def merge(into: Path, sources: Sequence[str], *, progress: bool = False) -> TransferReport:
    """Fetch from several parts of one cache the teacher's shards that a local folder lacks; targets are not touched.

    Raises:
        As `pull`.
    """
    files = total = present = 0
    for source in sources:
        place = Place(source)
        there, cache = _files_at(place), _adopt(place, into)
        here = known(Place(str(into)).sizes())
        report = _transfer(
            [_shards_to_fetch(cache, here, there)], there, here, cache,
            partial(fetch_all, place, folder=into, cache=cache, progress=progress),
        )  # fmt: skip
        files, total, present = files + report.files, total + report.bytes, present + report.present
    left = len(RegionCache.open(into).missing_teacher_shards())
    return TransferReport(files=files, bytes=total, present=present, shards_missing=left)


def mirror(url: str, root: Path, *, progress: bool = False) -> Path:
    """A local folder below `root` with what distillation needs of a cache elsewhere; fetched once, then only looked at.

    Raises:
        CacheIncompleteError: the cache has no targets yet, or not all.
        As `pull` otherwise.
    """
    name = url.rstrip("/").rpartition("/")[2]
    folder = root / f"{name}-{hashlib.blake2b(url.rstrip('/').encode(), digest_size=4).hexdigest()}"
    pull(url, folder, targets_only=True, progress=progress)
    cache = RegionCache.open(folder)
    if not cache.has("targets") or cache.rows("targets").missing():
        raise CacheIncompleteError(
            f"distillation needs all targets of a cache, and {url} does not have them yet; complete it with "
            "`mocha-pipe cache build` where it is made, and `mocha-pipe cache push` it again"
        )
    return folder


def _transfer(
    steps: Sequence[Sequence[str]],
    sizes: Sizes,
    there: Sizes,
    cache: RegionCache,
    copy: Callable[[dict[str, int]], int],
) -> TransferReport:
    """Copy step after step what the destination lacks."""
    arrived = dict(there)
    files = total = 0
    for step in steps:
        names = {name: sizes[name] for name in step if name not in arrived or arrived[name] != sizes[name]}
        total += copy(names)
        files += len(names)
        arrived |= names
    wanted = {name for step in steps for name in step}
    left = shards_missing(arrived, cache)
    return TransferReport(files=files, bytes=total, present=len(wanted) - files, shards_missing=left)


def _files_at(place: Place) -> dict[str, int]:
    """The cache's files at a place; empty where there is nothing.

    Raises:
        CacheFormatError: there is something else.
    """
    sizes = place.sizes()
    if sizes and DESCRIPTION not in sizes and not all(name in known(sizes) for name in sizes):
        raise CacheFormatError(f"{place.url} holds something else than a teacher cache; name another place")
    return known(sizes)


def _adopt(place: Place, folder: Path) -> RegionCache:
    """The local cache of the same identity as the one at a place; begun, all of it or nothing, where there is none."""
    if folder.is_dir() and any(folder.iterdir()):
        cache = RegionCache.open(folder)
        _require_same(cache, place)
        return cache
    with temporary_folder(folder) as temporary:
        for name in _IDENTITY:
            (temporary / name).parent.mkdir(exist_ok=True)
            try:
                place.fetch(name, temporary / name)
            except FileNotFoundError:
                raise CacheNotFoundError(
                    f"there is no teacher cache at {place.url} ({name} is not there); list what is there with "
                    f"`mocha-pipe cache ls {place.url.rpartition('/')[0]}`"
                ) from None
        _ = RegionCache.open(temporary).table  # raises where it is not whole
        publish(temporary, folder)
    return RegionCache.open(folder)


def _require_same(cache: RegionCache, place: Place) -> None:
    """Refuse a place that holds another teacher's embeddings, other regions, or shards of another size."""
    attributes = _read_attributes(place)
    found = cache.spec.differences(TeacherSpec.from_json(attributes["teacher"]))
    if attributes["table_digest"] != cache.table_digest:
        with tempfile.TemporaryDirectory() as folder:
            for name in (IMAGES_FILE, REGIONS_FILE):
                place.fetch(name, Path(folder) / name)
            found += table_differences(cache.table, RegionTable.read(Path(folder)))
    if attributes["rows_per_shard"] != cache.plan.rows_per_shard:
        found.append(f"shards hold {cache.plan.rows_per_shard} rows here and {attributes['rows_per_shard']} there")
    if found:
        found = [phrase.replace("cache has", "here it is").replace("expected", "there it is") for phrase in found]
        raise CacheMismatchError(
            f"{cache.path} and {place.url} are different caches: {'; '.join(found)}; name another place, or copy "
            f"what is equal with `mocha-pipe cache build --reuse {cache.path}`"
        )


def _read_attributes(place: Place) -> dict[str, Any]:
    try:
        return parse_attributes(place.read(DESCRIPTION), place.url)
    except FileNotFoundError:
        raise CacheNotFoundError(
            f"there is no teacher cache at {place.url}; list what is there with "
            f"`mocha-pipe cache ls {place.url.rpartition('/')[0]}`"
        ) from None


def _require_same_targets(cache: RegionCache, place: Place, there: Sizes, *, remedy: str) -> None:
    """Refuse to mix targets of two projections."""
    if not cache.has("targets") or _TARGETS not in there:
        return
    digest = json.loads(place.read(_TARGETS)).get("attributes", {}).get("projection_digest")
    if digest != cache.projection_digest:
        raise CacheMismatchError(
            f"the targets in {cache.path} and at {place.url} were made with different projections, which do not mix; "
            f"{remedy}"
        )


def _derived(sizes: Sizes) -> list[str]:
    """Projection and targets, as far as there are any; the shards after what describes them."""
    first = [name for name in (_TARGETS, PROJECTION_NAME) if name in sizes]
    return first + sorted(name for name in sizes if name.startswith("targets/c."))


def _shard_files(shard: int) -> tuple[str, tuple[str, ...]]:
    """Name of a shard's quarantine list, and of its files in the teacher's arrays."""
    return f"{QUARANTINE_FOLDER}/shard-{shard}.json", tuple(f"{name}/c.{shard}.0" for name in TEACHER_ARRAYS)


def _shards_to_send(cache: RegionCache, here: Sizes, place: Place, there: dict[str, int]) -> list[str]:
    """Files of the shards that a place lacks; what it has of a shard that is not ours leaves `there`."""
    names: list[str] = []
    for shard in range(len(cache.plan)):
        listed, files = _shard_files(shard)
        present = [name for name in files if there.get(name) == here.get(name)]
        if not all(name in here for name in files) or len(present) == len(files):
            continue
        if any(place.read(name) != (cache.path / name).read_bytes() for name in present):
            present = []
        if not present:
            for name in (listed, *files):
                there.pop(name, None)
            if listed not in here:
                place.remove(listed)
        names += [listed] if listed in here else []
        names += files
    return names


def _shards_to_fetch(cache: RegionCache, here: dict[str, int], there: Sizes) -> list[str]:
    """Files of the shards that the local cache lacks and a place has whole, in order: lists go before arrays."""
    names: list[str] = []
    for shard in range(len(cache.plan)):
        listed, files = _shard_files(shard)
        if all(name in here for name in files) or not all(name in there for name in files):
            continue
        for name in (listed, *files):  # what a torn copy left of this shard is fetched again with the rest
            here.pop(name, None)
        if listed not in there:
            (cache.path / listed).unlink(missing_ok=True)
        names += [listed] if listed in there else []
        names += files
    return names
