"""What the system says of a disk that failed, in words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mocha_pipe.data.errors import MochaError, quoted
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheIncompleteError,
    CacheUnreadableError,
    CacheWriteError,
    away_advice,
    mend_advice,
)

_REMEDIES = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "raise the quota or free space",
    **dict.fromkeys((errno.EROFS, errno.EACCES), "make it writable"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST), "move away what is in the way"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN), "bring it back"),
}


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk under a cache into a `CacheWriteError` with its remedy; others pass."""
    try:
        yield
    except MochaError:
        raise
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise CacheWriteError(
            f"the disk under {folder} must hold the cache; it does not ({error.strerror}{_of_file(error)}); "
            f"{_REMEDIES[error.errno]} and run the same command again: it goes on after the last finished shard"
        ) from error


@contextmanager
def reading(path: Path, folder: Path) -> Iterator[None]:
    """Say in words why a file of a cache cannot be read though something has its name.

    Args:
        path: the file.
        folder: of its cache.

    Raises:
        CacheCorruptError: it is a folder.
        CacheUnreadableError: the system does not let us read it.
        CacheIncompleteError: it is a link, and what it leads to is not on this disk.
        FileNotFoundError: nothing has its name.
    """
    try:
        yield
    except IsADirectoryError as error:
        raise CacheCorruptError.of(path, "it is a folder", mend_advice(folder)) from error
    except PermissionError as error:
        refused = CacheUnreadableError(
            f"{path} cannot be read ({error.strerror}); let its owner run `chmod -R a+rX {quoted(folder)}`"
        )
        refused.finding = f"cannot be read ({error.strerror})"
        raise refused from error
    except FileNotFoundError:
        if not path.is_symlink():
            raise
        raise CacheIncompleteError(
            f"{path} is a link to {path.readlink()}, which is not there; fetch the content with the program that "
            f"keeps it, such as `git annex get {quoted(folder)}` or `dvc pull`, or from a sound copy with `mocha-pipe "
            f"cache pull SOURCE {quoted(folder)}`"
        ) from None


def make_way(path: Path) -> None:
    """Remove a file, a link or an empty folder where a file of a cache must be; nothing to do where there is none.

    Raises:
        CacheWriteError: it is a folder that holds something.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise CacheWriteError(
            f"{path} must be a file of the cache; it is a folder that holds something; {away_advice(path)}"
        ) from error


def _of_file(error: OSError) -> str:
    return f": {error.filename}" if isinstance(error.filename, str) else ""
