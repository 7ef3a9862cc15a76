"""One shard file in our layout: whether its bytes are those that were written, and the rows in it.

Without compression, chunk c of a shard lies at c times the bytes of a chunk. The index behind the chunks must say so.
Legend: D width, n rows of the shard, C rows per chunk (`CHUNK_ROWS`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numcodecs.checksum32 import CRC32C
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.errors import CacheCorruptError, mend_advice
from mocha_pipe.teacher_cache.store.disk import reading
from mocha_pipe.teacher_cache.store.layout import CHUNK_ROWS, ShardPlan

_ITEM = 2  # bytes of a float16
_CHECKSUM = 4  # bytes of a crc32c
_PIECE = 2**20  # bytes
_ABSENT = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file that holds a shard, under its own name or a temporary one. Nothing is opened before it is read."""

    path: Path
    plan: ShardPlan
    """Rows and shards of its array."""
    shard: int
    """Which shard it should hold."""
    dim: int
    """D."""

    def read(self) -> NDArray[np.float16] | None:  # (n, D)
        """Its rows, every checksum verified; None where the index is sound and describes another order of chunks.

        Raises:
            CacheCorruptError: something of the file is damaged.
            FileNotFoundError: there is no such file.
        """
        with self._opened() as stream:
            if not self._has_plain_index(stream):
                return None
            content = np.fromfile(stream, np.uint8, self._num_chunks * self._chunk_bytes)
        if len(content) < self._num_chunks * self._chunk_bytes:
            raise self._damaged("it became shorter while it was read")
        chunks = self._verified(content, 0)
        start, stop = self.plan.span(self.shard)
        return np.ascontiguousarray(chunks).reshape(-1, self.dim)[: stop - start]

    def pieces(self) -> Iterator[NDArray[np.float16]] | None:  # (chunks, C, D)
        """Its rows a megabyte at a time, every checksum verified, the last chunk filled up; None as in `read`.

        Each piece takes the place of the one before: a gigabyte of fresh memory costs several times its reading.

        Raises:
            CacheCorruptError: something of the file is damaged; here or while the pieces are taken.
            FileNotFoundError: there is no such file.
        """
        with self._opened() as stream:
            return self._pieces() if self._has_plain_index(stream) else None

    def _pieces(self) -> Iterator[NDArray[np.float16]]:
        at_once = min(self._num_chunks, max(1, _PIECE // self._chunk_bytes))
        content = np.empty(at_once * self._chunk_bytes, np.uint8)
        with self.path.open("rb", buffering=0) as stream:
            for first in range(0, self._num_chunks, at_once):
                part = content[: min(at_once, self._num_chunks - first) * self._chunk_bytes]
                if stream.readinto(part.data) < len(part):
                    raise self._damaged("it became shorter while it was read")
                yield self._verified(part, first)

    def _verified(self, content: NDArray[np.uint8], first: int) -> NDArray[np.float16]:  # (chunks, C, D)
        """The rows in the bytes of whole chunks, of which the first has this number; nothing is copied."""
        chunks = content.reshape(-1, self._chunk_bytes)
        for number, chunk in enumerate(chunks, first):
            # The checksum alone: the codec's `decode` also copies each chunk, which takes a quarter longer if D is 512.
            if CRC32C.checksum(chunk[:-_CHECKSUM]) != int(chunk[-_CHECKSUM:].view("<u4")[0]):
                raise self._damaged(f"chunk {number} fails its checksum")
        return chunks[:, :-_CHECKSUM].view(np.float16).reshape(-1, CHUNK_ROWS, self.dim)

    def check(self) -> NDArray[np.float16]:  # (n, D)
        """Its rows, when size, index and every chunk's checksum are as they must be.

        Raises:
            CacheCorruptError: something of the file is damaged.
            FileNotFoundError: there is no such file.
        """
        rows = self.read()
        if rows is None:
            raise self._damaged("its size or its index is not that of its shard")
        return rows

    def checksums(self) -> bytes:
        """The checksums of all chunks, in their order: files of equal rows have equal ones. Nothing is verified."""
        with self._opened() as stream:
            found = []
            for chunk in range(1, self._num_chunks + 1):
                stream.seek(chunk * self._chunk_bytes - _CHECKSUM)
                found.append(stream.read(_CHECKSUM))
        return b"".join(found)

    def is_plain(self) -> bool:
        """Whether its index is sound, and says that the chunks lie in their order.

        Raises:
            CacheCorruptError: the index is damaged.
            FileNotFoundError: there is no such file.
        """
        with self._opened() as stream:
            return self._has_plain_index(stream)

    def map(self) -> NDArray[np.float16] | None:  # (chunks, C, D)
        """Its rows in the system's page cache, read-only, the last chunk filled up; None as in `read`.

        Size and index are verified, the checksums of the chunks are not.

        Raises:
            CacheCorruptError: the index is damaged.
            FileNotFoundError: there is no such file.
        """
        import torch  # imported here since it takes seconds, and most commands on a cache map nothing

        if not self.is_plain():
            return None
        # Not np.memmap: Python's mmap keeps a descriptor per file, and a large cache has more files than descriptors.
        size = self._num_chunks * self._chunk_bytes
        content = torch.from_file(str(self.path), shared=False, size=size, dtype=torch.uint8).numpy()
        shape = (self._num_chunks, CHUNK_ROWS, self.dim)
        strides = (self._chunk_bytes, self.dim * _ITEM, _ITEM)  # past the checksums between the chunks
        return as_strided(content.view(np.float16), shape, strides, writeable=False)

    @property
    def _num_chunks(self) -> int:
        return self.plan.num_chunks(self.shard)

    @property
    def _chunk_bytes(self) -> int:
        return CHUNK_ROWS * self.dim * _ITEM + _CHECKSUM

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with reading(self.path, self.path.parent.parent), self.path.open("rb") as stream:
            yield stream

    def _has_plain_index(self, stream: BinaryIO) -> bool:
        """Whether the index, itself verified, says that chunk c lies at c times the bytes of a chunk."""
        expected = np.full((self.plan.rows_per_shard // CHUNK_ROWS, 2), _ABSENT, "<u8")
        expected[: self._num_chunks, 0] = np.arange(self._num_chunks) * self._chunk_bytes
        expected[: self._num_chunks, 1] = self._chunk_bytes
        size = stream.seek(0, 2)
        stream.seek(max(0, size - expected.nbytes - _CHECKSUM))
        index = stream.read(expected.nbytes + _CHECKSUM)
        stream.seek(0)
        if len(index) < expected.nbytes + _CHECKSUM:
            raise self._damaged(f"{size} bytes are too few to hold its index")
        if CRC32C.checksum(index[:-_CHECKSUM]) != int.from_bytes(index[-_CHECKSUM:], "little"):
            raise self._damaged("its index fails the checksum")
        is_whole = size == self._num_chunks * self._chunk_bytes + len(index)
        return is_whole and index[:-_CHECKSUM] == expected.tobytes()

    def _damaged(self, finding: str) -> CacheCorruptError:
        return CacheCorruptError.of(self.path, finding, mend_advice(self.path.parent.parent))
