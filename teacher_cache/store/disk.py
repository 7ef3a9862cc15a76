"""What the system says of a disk that failed, in words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mocha_pipe.data.errors import MochaError
from mocha_pipe.teacher_cache.errors import CacheWriteError

_REMEDIES = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "raise the quota or free space",
    **dict.fromkeys((errno.EROFS, errno.EACCES), "make it writable"),
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
            f"the disk under {folder} must hold the cache; it does not ({error.strerror}); {_REMEDIES[error.errno]} "
            "and run the same command again: it goes on after the last finished shard"
        ) from error
