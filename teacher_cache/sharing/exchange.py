"""push, pull, merge and mirror: what travels, in which order, and when it must not.

Description and region table come first, then the projection, then shards, and last the marker of a complete cache, so
that a reader never finds a claim that is not true yet. A shard that is there stays as it is: the first one wins. The
files of one shard belong together: where a place has only one of them, with other bytes, the whole shard is sent again.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from mocha_pipe.data.errors import quoted
from mocha_pipe.teacher_cache.checking.mending import faulty_names
from mocha_pipe.teacher_cache.checking.verify import COMPLETE_NAME, faulty_tables, verify_cache
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheIncompleteError,
    CacheNotFoundError,
    CacheWriteError,
    mend_advice,
)
from mocha_pipe.teacher_cache.sharing.confirm import confirm_received, confirm_sent
from mocha_pipe.teacher_cache.sharing.founding import adopt, claim, present, require_folders, restore
from mocha_pipe.teacher_cache.sharing.holding import TABLE, Holding
from mocha_pipe.teacher_cache.sharing.places.hub import HubPlace
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.sharing.transfer import (
    Transfer,
    TransferReport,
    consolidate_remote,
    fetch_units,
    send_units,
)
from mocha_pipe.teacher_cache.sharing.units import (
    Part,
    Unit,
    identity_units,
    list_units,
    marker_units,
    projection_units,
    target_units,
    teacher_units,
)
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION
from mocha_pipe.teacher_cache.store.claims import LOCK_NAME, ShardClaims
from mocha_pipe.teacher_cache.store.consolidated import consolidate
from mocha_pipe.teacher_cache.store.disk import disk_errors, make_way
from mocha_pipe.teacher_cache.store.layout import sweep_stale
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER
from mocha_pipe.teacher_cache.teachers.config import TEACHER_NOTE


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


def pull(
    source: str, folder: Path, *, targets_only: bool = False, repair: bool = False, progress: bool = False
) -> TransferReport:
    """Fetch what a local folder lacks of the cache at a folder or URL; every file is checked before it counts.

    A description or a part of the region table that is damaged in the folder counts as lacking.

    Args:
        source: where the cache is.
        folder: local; made where missing.
        targets_only: only what distillation needs, the targets and the region table.
        repair: first check every byte in the folder; what is at fault counts as lacking.
        progress: show a bar in bytes.

    Raises:
        CacheNotFoundError, CacheFormatError: there is no cache at `source`, or something else in `folder`.
        CacheMismatchError: `folder` holds another cache, or other targets.
        CacheCorruptError: a file at `source` is damaged; it does not arrive.
        CacheWriteError: the disk under `folder` failed. What arrived stays.
        TransferError: the place cannot be reached. What arrived stays, and the next pull goes on.
    """
    found = _source(open_place(source))
    part: Part = "targets" if targets_only else "all"
    with closing(Transfer("pull", progress=progress)) as transfer:
        return _receive(transfer, found, folder, part, "name another folder", repair=repair)


def merge(into: Path, sources: Sequence[str], *, progress: bool = False) -> TransferReport:
    """Fetch the teacher's shards that a local cache lacks from parts of it in folders or at URLs.

    The cache is made where missing, and its targets are left to a build. Errors are those of `pull`.
    """
    assert sources
    found = [_source(open_place(source)) for source in sources]
    with closing(Transfer("merge", progress=progress)) as transfer:
        for source in found:  # what one of them lacks, the next one may have
            is_last = source is found[-1]
            report = _receive(transfer, source, into, "teacher", "merge only parts of one cache", is_last=is_last)
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
    has_targets = source.has_current_targets
    restore(transfer, source, place, partial(send_units, source, place, (DESCRIPTION,)))
    there = Holding.at(place) or claim(transfer, source, place)
    there.require_own_layout()
    for name in there.in_the_way:
        raise there.damaged(name, "it is a folder")
    place = there.place  # an archive takes no file of a cache
    send = partial(send_units, source, place, there.replaceable)
    there.require_fit(source, remedy, with_targets=has_targets)
    if any(name not in there.files for name in TABLE) and there.table_files != source.table_files:
        raise CacheIncompleteError(
            f"the region table of {place.url} must come from where its description came from: equal regions, but other "
            f"files than ours, and the push that brought the description has not ended; let it end, or {remedy}"
        )
    projection = projection_units(source, there, "all") if has_targets else []
    first = [identity_units(source, there), *projection]
    if any(first):
        transfer.run(first, source, send, batch=place.batch)
        there = present(place)  # somebody else may have been faster, with another cache
        there.require_fit(source, remedy, with_targets=has_targets)
    targets = target_units(source, there, "all") if has_targets else []
    shards = [*list_units(source, there), *teacher_units(source, there)]
    transfer.run([shards, targets], source, send, batch=place.batch)
    there = present(place)
    consolidate_remote(there)
    transfer.run([marker_units(source, there)], source, send, batch=place.batch)
    there = present(place)
    confirm_sent(source, there, transfer.arrived)
    return _report(transfer, there, "all")


def _receive(
    transfer: Transfer,
    source: Holding,
    folder: Path,
    part: Part,
    remedy: str,
    *,
    repair: bool = False,
    is_last: bool = True,
) -> TransferReport:
    """Copy a part of a cache into a local folder, from the only source or from the last one unless told otherwise."""
    # A source that is refused must not leave a half cache in a new folder.
    source.require_readable(source.spec.arrays if part == "teacher" else source.arrays)
    has_targets = part != "teacher" and source.has_current_targets
    subfolders = [folder / name for name in (*source.arrays, QUARANTINE_FOLDER)]
    with disk_errors(folder):
        require_folders(subfolders)
        transfer.arrived += adopt(source, folder)
        restore(transfer, source, Place(str(folder)), partial(fetch_units, source, folder, (DESCRIPTION,), {}))
        sweep_stale(folder)
        faults = faulty_names(verify_cache(folder)) if repair else faulty_tables(folder)
        there = present(Place(str(folder)), faults)
        there.require_own_layout()
        sums: dict[str, bytes] = {}
        fetch = partial(fetch_units, source, folder, there.replaceable, sums)
        there.require_fit(source, remedy, with_targets=has_targets)
        for path in subfolders:
            if path.is_symlink() and not path.exists():  # it holds nothing
                make_way(path)
        transfer.run([identity_units(source, there)], source, fetch)
        if has_targets:
            transfer.run(projection_units(source, there, part), source, fetch)
            present(there.place, faults).require_fit(source, remedy, with_targets=True)
        with _claimed(source, there, part, faults) as shards:
            targets = target_units(source, there, part) if has_targets else []
            transfer.run([[*list_units(source, there), *shards], targets], source, fetch)
            confirm_received(source, present(there.place), sums)
        if part == "all":
            whole = present(there.place, {COMPLETE_NAME} & {*faults})
            transfer.run([marker_units(source, whole)], source, fetch)
        for name in {TEACHER_NOTE, LOCK_NAME} & {*faults}:  # nobody has another, and nobody needs it
            make_way(folder / name)
        if left := sorted(name for name in {*faults} - {*transfer.arrived} if os.path.lexists(folder / name)):
            raise there.damaged(left[0], f"it is at fault, and {source.place.url} has no other")
        whole = present(there.place)
        if is_last and whole.in_the_way:
            advice = f"run `mocha-pipe cache pull {quoted(source.place.url)} {quoted(str(folder))} --repair`"
            raise CacheCorruptError.of(f"{there.place.url}/{whole.in_the_way[0]}", "it is a folder", advice)
        with suppress(OSError):  # a complete copy may be one that nobody can write; readers then look for the arrays
            consolidate(folder)
        return _report(transfer, present(there.place), part)


def _source(place: Place) -> Holding:
    """The cache at a place, with all that makes it one.

    Raises:
        CacheNotFoundError: there is none.
        CacheIncompleteError: the first push to it was stopped at its very start.
        CacheCorruptError: the description of an array is damaged.
    """
    found = Holding.at(place)
    if found is None:
        raise CacheNotFoundError(
            f"there is no teacher cache at {place.url}; see what is there with: mocha-pipe cache ls "
            f"{quoted(place.above)}"
        )
    found.require_readable(found.spec.arrays)
    if lacking := [name for name in found.identity if name not in found.files]:
        remedy = "push it again from where it was made" if place.path is None else mend_advice(place.path)
        raise CacheIncompleteError(f"{place.url} lacks {', '.join(lacking)}, which every cache has; {remedy}")
    return found


@contextmanager
def _claimed(source: Holding, there: Holding, part: Part, faults: Collection[str]) -> Iterator[list[Unit]]:
    """The teacher's shards to fetch. Those that a build in the same folder works on are left out; builds leave ours."""
    lacking = [] if part == "targets" else [unit.shard for unit in teacher_units(source, there)]
    if not lacking:
        yield []
        return
    assert there.place.path is not None
    with ShardClaims(there.place.path) as claims:
        mine = {shard for shard in lacking if shard is not None and _take(claims, shard)}
        yield [unit for unit in teacher_units(source, present(there.place, faults)) if unit.shard in mine]


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
