"""Who works on which shard, so that several builds of one cache share the work instead of doing it twice.

One lock file, one byte per shard and one for what is derived from all of them. A lock belongs to a process and the
system frees it when that process dies, however it dies: nothing goes stale and nobody has to clean up. It also holds
between machines on a shared disk with working locks (NFS 4, Lustre mounted with `flock`).
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mocha_pipe.teacher_cache.errors import CacheWriteError

LOCK_NAME = "build.lock"
POLL_SECONDS = 0.2
"""How often a build looks whether others have finished their shards."""
_DERIVE_BYTE = 0
_TAKEN = {errno.EACCES, errno.EAGAIN}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class ShardClaims:
    """Claims of this process on the shards of one cache. Use it as a context; leaving it frees all claims.

    One at a time per process and cache: the system frees a process's locks on a file with the first handle it closes.
    """

    def __init__(self, folder: Path) -> None:
        """Claim nothing yet."""
        self._path = folder / LOCK_NAME
        self._handle = -1

    def __enter__(self) -> "ShardClaims":
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def take(self, shard: int) -> bool:
        """Claim a shard; False when another process holds it.

        Raises:
            CacheWriteError: the disk knows no locks.
        """
        try:
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, shard + 1)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def release(self, shard: int) -> None:
        """Give a shard back."""
        self._lock(fcntl.LOCK_UN, shard + 1)

    @contextmanager
    def deriving(self) -> Iterator[None]:
        """Wait for the right to change projection and targets, which follow from all shards, and hold it."""
        self._lock(fcntl.LOCK_EX, _DERIVE_BYTE)
        try:
            yield
        finally:
            self._lock(fcntl.LOCK_UN, _DERIVE_BYTE)

    def _lock(self, command: int, byte: int) -> None:
        try:
            fcntl.lockf(self._handle, command, 1, byte)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise CacheWriteError(
                    f"builds share a cache through file locks, which the disk of {self._path} does not have "
                    f"({error.strerror}); build on a local disk and join the parts with `mocha-pipe cache merge`"
                ) from error
            raise
