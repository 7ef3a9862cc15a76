"""Files and folders that appear whole or not at all, locks between processes, and digests.

A file is written beside its place, flushed to disk, and renamed; a folder likewise.
"""

import errno
import functools
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 2**20
"""Of a parquet file, as many as one of its row groups holds."""
LOCK_NAME = ".mocha-pipe.lock"
"""Of a lock file; locking empties a file, so that its name must be nobody else's."""
_FILLING = ".mocha-pipe.filling"
_DROPPINGS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", ".directory", "lost+found", ".Trash-1000"})
_UMASK = os.umask(0)  # can only be read by setting it
os.umask(_UMASK)
_TEMPORARY = re.compile(r"\..*\.(?:[0-9]+-[0-9a-f]{8}\.partial(?:\.[^.]*)?|[0-9a-f]{32}\.partial)", re.DOTALL)
"""Names that `atomic_path` and `temporary_folder` give, and hardly anybody else."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file name; when the block ends well, the file written there becomes `path`.

    The temporary lies in the same folder (made where missing) and keeps the suffix. A reader sees the old content of
    `path` or the new one, never a part, also after a power cut: file, rename and folder are flushed in that order.
    When the block raises, the temporary is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.stem[:50]  # a name as long as the disk allows has no room for more
    temporary = path.with_name(f".{stem}.{os.getpid()}-{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # some writers make files that nobody else in the team could read
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


@contextmanager
def temporary_folder(target: Path, *, shared: bool = True) -> Iterator[Path]:
    """Yield a new folder beside `target`, to be filled and then given its name; removed at the end if it was not.

    Args:
        target: The folder to be made. Its parents are made where missing.
        shared: Other processes may be making `target` at the same time. Otherwise what killed processes left of it is
            removed first.
    """
    if not shared:
        for left in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
            if is_temporary(left.name):
                shutil.rmtree(left, ignore_errors=True)
    target = target.resolve()  # a link to an empty folder stays a link
    name = f".{target.name}.{secrets.token_hex(16)}.partial"
    temporary = target.with_name(name)
    try:
        temporary.mkdir(parents=True)
    except OSError:
        if not target.is_dir():
            raise
        temporary = target / name  # an empty folder of ours in a folder where we may not write
        temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of that name is what `atomic_path` or `temporary_folder` began."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def appearing_folder(target: Path, in_use: Exception) -> Iterator[Path]:
    """Yield a folder to be filled, which becomes `target` when the block ends well; nobody ever sees a part of it.

    Args:
        target: New or empty. Two that make it at once do so one after the other.
        in_use: Raised where something is there, before anything is written, or when the block has ended.
    """
    target = target.resolve()
    if not is_vacant(target):
        raise in_use
    with exclusive(lock_beside(target)):
        if not is_vacant(target):
            raise in_use
        with temporary_folder(target, shared=False) as building:
            yield building
            if not publish(building, target, flush=False):
                raise in_use


def publish(temporary: Path, target: Path, *, flush: bool = True, last: str = "") -> bool:
    """Give a finished folder its name; False where something other than an empty folder has that name already.

    An empty folder that cannot be replaced, as others have mounted it or may not be removed, is filled instead. What a
    kill leaves half filled then, `finish_filling` completes.

    Args:
        temporary: As from `temporary_folder`.
        target: Its name from now on.
        flush: Write every file through to the disk first, so that a power cut leaves all of them or nothing.
        last: The file that shows that all is there, where a folder has to be filled.
    """
    target = target.resolve()
    if flush:
        for path in [*temporary.rglob("*"), temporary]:
            _flush(path)
    if temporary.parent != target:
        with suppress(OSError):
            target.rmdir()  # an empty folder, onto which Windows does not rename
        try:
            temporary.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EBUSY, errno.EXDEV):
                raise
        else:
            if flush:
                _flush(target.parent)
            return True
    if not target.is_dir() or not is_vacant(target):
        return False
    if temporary.parent != target:
        temporary = Path(shutil.copytree(temporary, target / temporary.name))
        for path in [*temporary.rglob("*"), temporary] if flush else ():
            _flush(path)
    try:
        temporary.rename(target / _FILLING)
    except OSError:
        return False  # somebody else is filling it
    finish_filling(target, last)
    return True


def finish_filling(target: Path, last: str) -> None:
    """Complete what `publish` began in a folder that cannot be replaced; nothing to do elsewhere."""
    with suppress(FileNotFoundError, NotADirectoryError):  # another process may be finishing the same
        for entry in sorted((target / _FILLING).iterdir(), key=lambda entry: entry.name == last):
            with suppress(FileNotFoundError):
                entry.rename(target / entry.name)
        _flush(target)
        (target / _FILLING).rmdir()


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused (ValueError), as JSON has none."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def write_parquet(path: Path, columns: Sequence[Any], schema: "pa.Schema") -> None:
    """Write columns atomically, a part at a time. Equal content gives equal bytes.

    Args:
        path: The file.
        columns: In the order of the schema, of one length; whatever can be sliced and pyarrow takes.
        schema: Names and types.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Every setting that decides bytes is fixed here, so that a newer default of pyarrow changes none.
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, version="2.6", compression="zstd", compression_level=3, use_dictionary=False,
            write_page_checksum=True,
        ) as writer,
    ):  # fmt: skip
        for start in range(0, max(1, len(columns[0])), _ROWS_AT_ONCE):
            parts = [column[start : start + _ROWS_AT_ONCE] for column in columns]
            arrays = [
                part.cast(field.type) if isinstance(part, pa.Array) else pa.array(part, field.type)
                for part, field in zip(parts, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_ROWS_AT_ONCE)


def name_inside(path: Path, root: Path) -> str | None:
    """POSIX path of a file relative to `root` (a resolved folder), or None where it lies outside, links followed.

    Only the file's folder is resolved: a picture that is itself a link keeps its place.
    """
    if "\0" in path.name or "\0" in str(path.parent):  # which no file system has
        return None
    folder = _resolved(os.fspath(Path.cwd() / path.parent))
    return (folder / path.name).relative_to(root).as_posix() if folder.is_relative_to(root) else None


@functools.lru_cache(maxsize=4096)
def _resolved(folder: str) -> Path:
    return Path(folder).resolve()


def is_vacant(folder: Path) -> bool:
    """Whether a folder can be made here: there is nothing yet, or an empty one.

    What desktops and file systems leave in every folder does not count, nor what a killed process left of ours.
    """
    return not folder.exists() or (folder.is_dir() and all(is_dropping(path.name) for path in folder.iterdir()))


def is_dropping(name: str) -> bool:
    """Whether a desktop, a file system or a killed process of ours leaves such a file in other people's folders."""
    return name in _DROPPINGS or name.startswith("._") or is_temporary(name)


def lock_beside(path: Path) -> Path:
    """The lock file of a file or folder that is to have none inside."""
    return path.with_name(f".{path.name}{LOCK_NAME}")


@contextmanager
def exclusive(path: Path, *, busy: Exception | None = None) -> Iterator[None]:
    """Hold a lock file while the block runs. A killed process holds it no longer.

    The file stays behind, empty. On a disk that knows no locks the block runs without one.

    Args:
        path: The lock file.
        busy: Raised where another process holds it; None waits for that one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if busy is None else 0)
    except Timeout:
        assert busy is not None, "only who does not wait runs out of time"
        raise busy from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def file_digest(path: Path) -> str:
    """Hex of blake2b-16 over a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def bytes_digest(content: bytes) -> str:
    """Hex of blake2b-16 over bytes; `file_digest` of a file that holds them."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def json_digest(value: Any) -> str:
    """Hex of blake2b-16 over a JSON value, whatever the order of its keys; the same on every machine."""
    return bytes_digest(json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode())


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder; its rename is durable without
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
