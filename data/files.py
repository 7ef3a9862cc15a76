"""Files that appear whole or not at all: written beside their place, flushed to disk, then renamed."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_UMASK = os.umask(0)  # can only be read by setting it
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file name; when the block ends well, the file written there becomes `path`.

    The temporary lies in the same folder (made where missing) and keeps the suffix. A reader sees the old content of
    `path` or the new one, never a part, also after a power cut: file, rename and folder are flushed in that order.
    When the block raises, the temporary is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # some writers make files that nobody else in the team could read
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused (ValueError), as JSON has none."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def is_vacant(folder: Path) -> bool:
    """Whether a folder can be made here: there is nothing yet, or an empty one."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def file_digest(path: Path) -> str:
    """Hex of blake2b-16 over a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def bytes_digest(content: bytes) -> str:
    """Hex of blake2b-16 over bytes; `file_digest` of a file that holds them."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; another process that wants it waits. The system frees it when we die.

    The file stays behind, empty. On a disk that knows no locks the block runs without one.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        with suppress(OSError):
            fcntl.lockf(handle, fcntl.LOCK_EX)
        yield


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is durable without
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
