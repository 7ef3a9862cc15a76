"""Whether a file of a cache is what was written: asked before it is sent, and again when it has arrived."""

import json
from pathlib import Path

from mocha_pipe.data.files import file_digest
from mocha_pipe.data.regions import RegionTable, recompute_keys
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.sharing.holding import COMPLETE_NAME, DESCRIPTION, TABLE, Holding
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, ShardPlan
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER, read_quarantine_file
from mocha_pipe.teacher_cache.store.reader import ShardRows
from mocha_pipe.teacher_cache.store.shard_file import check_shard_file


def check_file(root: Path, name: str, source: Holding) -> None:
    """Verify the content of a cache's file.

    Args:
        root: where it lies under its name; both files of the table, which are checked with the second.
        name: its name within the cache.
        source: the cache that it belongs to.

    Raises:
        CacheCorruptError: it is not what was written.
    """
    path = root / name
    array, _, last = name.rpartition("/")
    if name == DESCRIPTION:
        _require(path, path.read_bytes() == source.description, "it is another description than a moment ago")
    elif name in TABLE:
        is_it = file_digest(path) == source.table_files[name]
        _require(path, is_it, "it is not the file that the cache was made with")
        if name == TABLE[-1]:
            check_table(root, source.table_digest)
    elif name == PROJECTION_NAME:
        is_it = file_digest(path) == source.projection_digest
        _require(path, is_it, "it is not the projection that the targets were made with")
    elif name == COMPLETE_NAME:
        _require(path, _is_json(path), "it is no json")
    elif array == QUARANTINE_FOLDER:
        _check_list(path, source.plan, int(last.removeprefix("shard-").removesuffix(".json")))
    elif last == DESCRIPTION:
        _check_array(root, array, source)
    else:
        check_shard_file(path, source.plan, int(last.split(".")[1]), source.dims[array])


def check_table(root: Path, digest: str) -> None:
    """Verify the region table: readable, the one with that digest, and keys that follow from its boxes.

    Raises:
        CacheCorruptError: it is not.
    """
    try:
        table = RegionTable.read(root)
        is_sound = table.digest == digest and bool((recompute_keys(table) == table.keys).all())
    except Exception as error:  # the decoder's own, and on broken bytes whatever it runs into
        raise CacheCorruptError(f"{root / TABLE[1]} is damaged: {str(error).splitlines()[0]}") from error
    _require(root / TABLE[1], is_sound, "it is not the table that the cache was made with")


def _check_list(path: Path, plan: ShardPlan, shard: int) -> None:
    start, stop = plan.span(shard)
    regions = read_quarantine_file(path)
    _require(path, all(start <= region.row < stop for region in regions), "it is the list of another shard")


def _check_array(root: Path, array: str, source: Holding) -> None:
    """Verify an array's description: in our layout, with the cache's rows, shards and widths."""
    path = root / array / DESCRIPTION
    if array not in TEACHER_ARRAYS:
        _require(path, path.read_bytes() == source.targets_description, "it is another one than a moment ago")
    try:
        reader = ShardRows(root / array)
        is_it = reader.is_plain and reader.plan == source.plan and reader.dim == source.dims[array]
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError):  # whatever unpacking it runs into
        is_it = False
    _require(path, is_it, "it does not describe an array of this cache in the layout that mocha-pipe writes")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _require(path: Path, is_sound: bool, finding: str) -> None:
    if not is_sound:
        raise CacheCorruptError(f"{path} is damaged: {finding}")
