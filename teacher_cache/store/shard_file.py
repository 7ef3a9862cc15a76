"""One shard file in our layout: whether its bytes are those that were written.

Without compression, chunk c of a shard lies at c times the chunk's bytes; the index behind the chunks must say so.
Legend: D width, C rows per chunk.
"""

import os
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.errors import CacheCorruptError
from mocha_pipe.teacher_cache.store.layout import CHUNK_ROWS, ShardPlan

ITEM = 2  # bytes of a float16
CHECKSUM = 4  # bytes of a crc32c
_ABSENT = np.uint64(2**64 - 1)


def check_shard_file(path: Path, plan: ShardPlan, shard: int, dim: int) -> None:
    """Verify a shard file in our layout, under its own name or a temporary one: size, index, every chunk's checksum.

    Args:
        path: the file.
        plan: rows and shards of its array.
        shard: which shard it should hold.
        dim: D.

    Raises:
        CacheCorruptError: something of it is damaged.
        FileNotFoundError: there is no such file.
    """
    chunk_bytes = CHUNK_ROWS * dim * ITEM + CHECKSUM
    with path.open("rb") as stream:
        if not has_plain_index(stream.fileno(), path, plan, shard, chunk_bytes, CHUNK_ROWS):
            raise damaged_file(path, "its size or its index is not that of its shard")
        start, stop = plan.span(shard)
        chunks = np.fromfile(stream, np.uint8, -(-(stop - start) // CHUNK_ROWS) * chunk_bytes)
    check_chunks(chunks.reshape(-1, chunk_bytes), path)


def has_plain_index(
    descriptor: int, path: Path, plan: ShardPlan, shard: int, chunk_bytes: int, chunk_rows: int
) -> bool:
    """Whether the shard's index, itself verified, says that chunk c lies at c times the chunk's bytes."""
    start, stop = plan.span(shard)
    num_chunks = plan.rows_per_shard // chunk_rows
    num_used = -(-(stop - start) // chunk_rows)
    expected = np.full((num_chunks, 2), _ABSENT, "<u8")
    expected[:num_used, 0] = np.arange(num_used) * chunk_bytes
    expected[:num_used, 1] = chunk_bytes
    size = os.fstat(descriptor).st_size
    index = os.pread(descriptor, expected.nbytes + CHECKSUM, max(0, size - expected.nbytes - CHECKSUM))
    if len(index) < expected.nbytes + CHECKSUM:
        raise damaged_file(path, f"{size} bytes are too few to hold its index")
    if google_crc32c.value(index[:-CHECKSUM]) != int.from_bytes(index[-CHECKSUM:], "little"):
        raise damaged_file(path, "its index fails the checksum")
    is_whole = size == num_used * chunk_bytes + len(index)
    return is_whole and index[:-CHECKSUM] == expected.tobytes()


def check_chunks(chunks: NDArray[np.uint8], path: Path) -> None:  # (chunks, bytes)
    """Verify the checksum at the end of every chunk; CacheCorruptError names the first that fails."""
    for number, chunk in enumerate(chunks):
        if google_crc32c.value(chunk[:-CHECKSUM].tobytes()) != int(chunk[-CHECKSUM:].view("<u4")[0]):
            raise damaged_file(path, f"chunk {number} fails its checksum")


def damaged_file(path: Path, finding: str) -> CacheCorruptError:
    """What a reader says of a shard file that is not what was written."""
    remedy = f"run `mocha-pipe cache verify {path.parent.parent} --repair`"
    return CacheCorruptError(f"{path} is damaged: {finding}; {remedy}")
