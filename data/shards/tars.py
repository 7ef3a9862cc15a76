"""Images inside plain tar files, read in place: a member is known by the offset of its bytes; nothing is unpacked."""

import functools
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mocha_pipe.data.errors import DatasetNotFoundError

BLOCK = tarfile.BLOCKSIZE  # a member is a block of header, then its bytes filled up to whole blocks
END = bytes(2 * BLOCK)
"""What ends a tar."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member of a tar on a local disk; stands where the path of an image file would."""

    tar: Path
    member: str
    """Its name in the tar, at most 100 ASCII characters."""
    offset: int
    """Where its bytes begin; the header stands in the block before."""
    size: int
    """Bytes."""

    @property
    def suffix(self) -> str:
        """Such as `.jpg`."""
        return PurePosixPath(self.member).suffix

    def __str__(self) -> str:
        return f"{self.tar}/{self.member}"

    def __fspath__(self) -> str:
        """What to call it; there is no file of that name."""
        return str(self)

    def read_bytes(self) -> bytes:
        """The member's bytes, after a look at its header.

        Raises:
            DatasetNotFoundError: The tar is gone, cut short, or has something else at that offset.
        """
        found = self._read()
        if not self._is_ours(found):
            _open.cache_clear()  # the tar may have been replaced since it was opened
            found = self._read()
        if not self._is_ours(found):
            raise DatasetNotFoundError(
                f"{self.tar}: {self.member} is not where the index says, so the tar was cut short or is another one; "
                "copy tar and index together again"
            )
        return found[BLOCK:]

    def _read(self) -> bytes:
        """The member with its header."""
        try:
            tar = _open(self.tar)  # held while it is read: another thread may push it out of the cache
            return os.pread(tar.descriptor, BLOCK + self.size, self.offset - BLOCK)
        except OSError as error:
            raise DatasetNotFoundError(
                f"{self.tar}: cannot be read ({error.strerror}); bring it back and run the same command again"
            ) from error

    def _is_ours(self, found: bytes) -> bool:
        """Whether a header is of this name and size, and all bytes are there."""
        name, size = found[:100], found[124:136]
        return (
            name == self.member.encode().ljust(100, b"\0")
            and size == b"%011o\0" % self.size
            and len(found) == BLOCK + self.size
        )


def member_header(name: str, size: int) -> bytes:
    """The header block of a regular file: every field fixed, so that equal content gives equal tars."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o644, 0
    return entry.tobuf(format=tarfile.USTAR_FORMAT)


def padding(size: int) -> bytes:
    """What fills the last block of a member."""
    return bytes(-size % BLOCK)


class _OpenTar:
    """A descriptor that closes when nobody holds it any more. Positions are not shared, so a fork may go on with it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


_open = functools.lru_cache(maxsize=128)(_OpenTar)
