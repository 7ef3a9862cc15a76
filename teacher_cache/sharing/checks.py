"""Whether a file of a cache is what was written: checked before it is sent, and when it has arrived."""

from pathlib import Path

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import file_digest
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.teacher_cache.checking.verify import read_list
from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.sharing.holding import COMPLETE_NAME, DESCRIPTION, TABLE, Holding
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME, parse_attributes
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER
from mocha_pipe.teacher_cache.store.reader import is_described
from mocha_pipe.teacher_cache.store.shard_file import ShardFile


def check_file(root: Path, name: str, source: Holding) -> None:
    """Verify the content of a cache's file.

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
        if array not in TEACHER_ARRAYS:
            _require(path, path.read_bytes() == source.targets_description, "it is another one than a moment ago")
        is_it = is_described(root / array, source.plan, source.dims[array])
        _require(path, is_it, "it does not describe an array of this cache in the layout that mocha-pipe writes")
    else:
        ShardFile(path, source.plan, int(last.split(".")[1]), source.dims[array]).check()


def _identity(description: bytes) -> str | None:
    """The digest of what a description says; None where it is damaged."""
    try:
        return str(parse_attributes(description, "")["digest"])
    except MochaError:
        return None


def _require(path: Path, is_sound: bool, finding: str) -> None:
    if not is_sound:
        raise CacheCorruptError(f"{path} is damaged: {finding}")
