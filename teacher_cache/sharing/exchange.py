"""push, pull, merge and mirror: what travels, in which order, and when it must not.

Description and region table come first, then the projection, then shards, and last the marker of a complete cache, so
that a reader never finds a claim that is not true yet. A shard that is there stays as it is: the first one wins. The
files of one shard belong together: where a place has only one of them, with other bytes, the whole shard is sent again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from mocha_pipe.data.files import is_vacant, publish, temporary_folder
from mocha_pipe.teacher_cache.errors import CacheFormatError, CacheIncompleteError, CacheNotFoundError, CacheWriteError
from mocha_pipe.teacher_cache.sharing.holding import DESCRIPTION, TABLE, Holding
from mocha_pipe.teacher_cache.sharing.hub import HubPlace
from mocha_pipe.teacher_cache.sharing.place import Place
from mocha_pipe.teacher_cache.sharing.transfer import (
    Transfer,
    TransferReport,
    consolidate_remote,
    fetch_checked,
    fetch_units,
    send_units,
)
from mocha_pipe.teacher_cache.sharing.units import (
    Part,
    Unit,
    identity_units,
    marker_units,
    projection_units,
    target_units,
    teacher_units,
)
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.store.consolidated import consolidate
from mocha_pipe.teacher_cache.store.disk import disk_errors
from mocha_pipe.teacher_cache.store.layout import sweep_stale


def open_place(url: str) -> Place:
    """The folder at a URL or path.

    Raises:
        TransferError: the URL's protocol is unknown, or its package is not installed.
    """
    is_repository = url.startswith("hf://") and not url.startswith("hf://buckets/")
    return (HubPlace if is_repository else Place)(url)


def push(folder: Path, to: str, *, progress: bool = False) -> TransferReport:
    """Copy to a folder or URL what it lacks of a local cache, complete or not.

    Raises:
        CacheNotFoundError, CacheFormatError: there is no cache in `folder`, or something else at `to`.
        CacheMismatchError: the cache at `to` is another one, or its targets are.
        CacheCorruptError: a file of ours is damaged; it is not sent.
        TransferError: the place cannot be reached. What arrived stays, and the next push goes on.
    """
    place, source = open_place(to), _source(Place(str(folder)))
    remedy = f"push to another place, such as {place.url}-2"
    with closing(Transfer("push", progress=progress)) as transfer:
        if place.path is not None:  # the other end checks better than a transport does
            return _receive(transfer, source, place.path, "all", remedy)
        return _send(transfer, source, place, remedy)


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
        CacheWriteError: the disk under `folder` failed. What arrived stays.
        TransferError: the place cannot be reached. What arrived stays, and the next pull goes on.
    """
    found = _source(open_place(source))
    with closing(Transfer("pull", progress=progress)) as transfer:
        return _receive(transfer, found, folder, "targets" if targets_only else "all", "name another folder")


def merge(into: Path, sources: Sequence[str], *, progress: bool = False) -> TransferReport:
    """Fetch the teacher's shards that a local cache lacks from parts of it in folders or at URLs.

    The cache is made where missing, and its targets are left to a build. Errors are those of `pull`.
    """
    assert sources
    found = [_source(open_place(source)) for source in sources]
    with closing(Transfer("merge", progress=progress)) as transfer:
        for source in found:
            report = _receive(transfer, source, into, "teacher", "merge only parts of one cache")
    return report


def mirror(url: str, root: Path, *, progress: bool = False) -> Path:
    """A local folder with what distillation needs of a cache elsewhere; fetched once, then only compared.

    Args:
        url: where the cache is.
        root: the folder is made in here; its name follows the URL and what the cache is, so that another cache under
            the same URL gets another one.
        progress: show a bar in bytes.

    Raises:
        CacheIncompleteError: the cache has no targets yet, or not all.
        As `pull` otherwise.
    """
    source = _source(open_place(url))
    if not source.has_all_targets:
        raise CacheIncompleteError(
            f"distillation needs all targets of a cache; {source.place.url} has {source.num_done('targets')} of "
            f"{len(source.plan)} shards; complete it with `mocha-pipe cache build` where it is made, then push it again"
        )
    identity = "\n".join([source.place.url, source.spec.digest(), source.table_digest, str(source.projection_digest)])
    digest = hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()
    folder = root / f"{source.place.url.rpartition('/')[2]}-{digest}"
    remedy = f"remove {folder} and run the same command again"
    with closing(Transfer("mirror", progress=progress)) as transfer:
        _receive(transfer, source, folder, "targets", remedy)
    return folder


def _send(transfer: Transfer, source: Holding, place: Place, remedy: str) -> TransferReport:
    """Copy a local cache to a URL."""
    there = Holding.at(place) or _claim(transfer, source, place)
    place = there.place  # an archive takes no file of a cache
    send = partial(send_units, source, place, there.files)
    has_targets = source.has_current_targets
    there.require_fit(source, remedy, with_targets=has_targets)
    if any(name not in there.files for name in TABLE) and there.table_files != source.table_files:
        raise CacheIncompleteError(
            f"the region table of {place.url} must come from where its description came from: equal regions, but other "
            f"files than ours, and the push that brought the description has not ended; let it end, or {remedy}"
        )
    first = [identity_units(there), *(projection_units(source, there, "all") if has_targets else [])]
    if any(first):
        transfer.run(first, source, send, batch=place.batch)
        there = _present(place)  # somebody else may have been faster, with another cache
        there.require_fit(source, remedy, with_targets=has_targets)
    targets = target_units(source, there, "all") if has_targets else []
    transfer.run([teacher_units(source, there), targets], source, send, batch=place.batch)
    there = _present(place)
    consolidate_remote(there)
    transfer.run([marker_units(source, there)], source, send, batch=place.batch)
    return _report(transfer, _present(place), "all")


def _receive(transfer: Transfer, source: Holding, folder: Path, part: Part, remedy: str) -> TransferReport:
    """Copy a part of a cache into a local folder."""
    with disk_errors(folder):
        transfer.arrived += _adopt(source, folder)
        sweep_stale(folder)
        there = _present(Place(str(folder)))
        fetch = partial(fetch_units, source, folder, there.files)
        has_targets = part != "teacher" and source.has_current_targets
        there.require_fit(source, remedy, with_targets=has_targets)
        if has_targets:
            transfer.run(projection_units(source, there, part), source, fetch)
            _present(there.place).require_fit(source, remedy, with_targets=True)
        with _claimed(source, there, part) as shards:
            targets = target_units(source, there, part) if has_targets else []
            transfer.run([shards, targets], source, fetch)
        if part == "all":
            transfer.run([marker_units(source, _present(there.place))], source, fetch)
        with suppress(OSError):  # a complete copy may be one that nobody can write; readers then look for the arrays
            consolidate(folder)
        return _report(transfer, _present(there.place), part)


def _source(place: Place) -> Holding:
    """The cache at a place, with all that makes it one.

    Raises:
        CacheNotFoundError: there is none.
        CacheIncompleteError: the first push to it was stopped at its very start.
    """
    found = Holding.at(place)
    if found is None:
        parent = place.url.rpartition("/")[0] if "/" in place.root else place.url
        around = parent if place.path is None else place.path.parent
        raise CacheNotFoundError(
            f"there is no teacher cache at {place.url}; see what is there with: mocha-pipe cache ls {around}"
        )
    if lacking := [name for name in found.identity if name not in found.files]:
        raise CacheIncompleteError(
            f"{place.url} lacks {', '.join(lacking)}, which every cache has; push it again from where it was made"
        )
    return found


def _present(place: Place) -> Holding:
    """What is at a place now that was a cache a moment ago."""
    found = Holding.at(place)
    if found is None:
        raise CacheNotFoundError(f"the teacher cache at {place.url} went away; run the same command again")
    return found


def _claim(transfer: Transfer, source: Holding, place: Place) -> Holding:
    """Send the description to an empty place, which makes the place a cache, unless somebody else is faster."""
    files, folders = place.entries()
    if DESCRIPTION not in files:
        if visible := sorted(name for name in (*files, *folders) if not name.startswith(".")):
            raise CacheFormatError(
                f"a cache is pushed to a folder of its own; {place.url} holds something else ({visible[0]}); "
                f"push to a new one, such as {place.url}/cache"
            )
        transfer.run([[Unit((DESCRIPTION,))]], source, partial(send_units, source, place, ()))
    return _present(place)


def _adopt(source: Holding, folder: Path) -> list[str]:
    """Make an empty local folder a cache: its description and table appear at once. Returns the names that arrived."""
    if (folder / DESCRIPTION).exists():
        RegionCache.open(folder)
        return []
    if not is_vacant(folder):
        raise CacheFormatError(f"{folder} holds something else than a teacher cache; name another folder")
    with temporary_folder(folder) as temporary:
        for name in source.identity:
            fetch_checked(source, [name], temporary)
        return list(source.identity) if publish(temporary, folder) else []


@contextmanager
def _claimed(source: Holding, there: Holding, part: Part) -> Iterator[list[Unit]]:
    """The teacher's shards to fetch. Those that a build in the same folder works on are left out; builds leave ours."""
    lacking = [] if part == "targets" else [unit.shard for unit in teacher_units(source, there)]
    if not lacking:
        yield []
        return
    assert there.place.path is not None
    with ShardClaims(there.place.path) as claims:
        mine = {shard for shard in lacking if shard is not None and _take(claims, shard)}
        yield [unit for unit in teacher_units(source, _present(there.place)) if unit.shard in mine]


def _take(claims: ShardClaims, shard: int) -> bool:
    try:
        return claims.take(shard)
    except CacheWriteError:  # a disk without locks, where no build can run either
        return True


def _report(transfer: Transfer, there: Holding, part: Part) -> TransferReport:
    wanted = {"all": there.arrays, "targets": ("targets",), "teacher": tuple(there.spec.arrays)}[part]
    arrived = set(transfer.arrived)
    return TransferReport(
        files=len(arrived),
        bytes=sum(there.files.get(name, 0) for name in arrived),
        present=len(there.files.keys() - arrived),
        shards_missing=max(len(there.plan) - there.num_done(array) for array in wanted),
    )
