"""Whether a file of a cache is what was written: checked before it is sent, and when it has arrived."""

from pathlib import Path

import numpy as np

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import file_digest
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.teacher_cache.checking.verify import COMPLETE_NAME, read_list
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.sharing.cache_files import shard_of
from mocha_pipe.teacher_cache.sharing.holding import TABLE, Holding
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION, judge_array
from mocha_pipe.teacher_cache.store.attributes import parse_attributes
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER, require_listed


def check_file(root: Path, name: str, source: Holding) -> None:
    """Verify the content of a cache's file.

    A shard must have numbers in every row that its list does not name.

    Args:
        root: the folder that the file lies in under its name.
        name: of the file within the cache.
        source: the cache that the file belongs to.

    Raises:
        CacheCorruptError: it is not what was written.
    """
    path = root / name
    array, _, last = name.rpartition("/")
    if name == DESCRIPTION:
        # Its list of arrays may have grown meanwhile; where it arrives it is made from the arrays.
        is_it = _identity(path.read_bytes()) == _identity(source.description)
        _require(path, is_it, "it is another description than a moment ago")
    elif name in TABLE:
        is_it = file_digest(path) == source.table_files[name]
        _require(path, is_it, "it is not the file that the cache was made with")
    elif name == PROJECTION_NAME:
        is_it = file_digest(path) == source.projection_digest
        _require(path, is_it, "it is not the projection that the targets were made with")
    elif name == COMPLETE_NAME:
        try:
            parse_json(path.read_bytes())
        except ValueError:
            _require(path, False, "it is no json")
    elif array == QUARANTINE_FOLDER:
        read_list(path, source.plan, int(last.removeprefix("shard-").removesuffix(".json")))
    elif last == DESCRIPTION:
        found = judge_array(path.read_bytes(), dict, source.plan, source.dims[array])
        _require(path, found.is_ours, found.finding)
        is_it = found.attributes == source.layouts[array].attributes
        _require(path, is_it, "it is another one than a moment ago")
    else:
        shard = shard_of(name)
        rows = source.shard_file(path, name).check()
        if not np.isfinite(rows).all():
            set_aside = [found.row for found in source.set_aside(shard)]
            require_listed(rows, source.plan.span(shard)[0], set_aside, path, "")


def _identity(description: bytes) -> str | None:
    """The digest of what a description says; None where it is damaged."""
    try:
        return str(parse_attributes(description, "")["digest"])
    except MochaError:
        return None


def _require(path: Path, is_sound: bool, finding: str) -> None:
    if not is_sound:
        raise CacheCorruptError.of(path, finding, "")
