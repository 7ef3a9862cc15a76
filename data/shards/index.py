"""ShardIndex: where the images of a split lie in its tar shards, what they are called there, and their boxes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.files import bytes_digest, write_parquet
from mocha_pipe.data.shards.layout import MANIFEST

_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_SAME_AS = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("readable", pa.bool_()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("xyxy", pa.list_(pa.float64())),
        ("class_ids", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """Where the images of one split lie in its tar shards, and their boxes. Legend: I = images, N = boxes."""

    names: tuple[str, ...]
    """POSIX paths relative to the data set that was packed."""
    suffix: str | None
    """Of every image in the tars; None where each has its own, as before format 2."""
    digests: tuple[str, ...]
    """Hex of blake2b-16 over the image's bytes."""
    sizes: NDArray[np.int32]  # (I, 2)
    """Upright width and height."""
    readable: NDArray[np.bool_]  # (I,)
    shards: NDArray[np.int32]  # (I,)
    """Number of the tar that holds the image."""
    offsets: NDArray[np.int64]  # (I,)
    """Where its bytes begin in that tar."""
    num_bytes: NDArray[np.int64]  # (I,)
    first_box: NDArray[np.int64]  # (I + 1,)
    xyxy: NDArray[np.float64]  # (N, 4)
    class_ids: NDArray[np.int32]  # (N,)

    def member(self, image: int) -> str:
        """Name of the image's member in its tar."""
        return f"{sample_key(image)}{self.suffix or member_suffix(self.names[image])}"

    def write(self, path: Path) -> str:
        """Write as parquet; returns the file's digest. Equal content gives equal bytes."""
        boxes = [
            pa.ListArray.from_arrays(pa.array(self.first_box * width, pa.int32()), pa.array(flat.ravel(), kind))
            for flat, width, kind in ((self.xyxy, 4, pa.float64()), (self.class_ids, 1, pa.int32()))
        ]
        images = [self.names, self.digests, *self.sizes.T, self.readable, self.shards, self.offsets, self.num_bytes]
        schema = _SCHEMA.with_metadata({"suffix": self.suffix} if self.suffix else None)
        write_parquet(path, [*images, *boxes], schema)
        return bytes_digest(path.read_bytes())

    @classmethod
    def read(cls, path: Path, digest: str) -> "ShardIndex":
        """Read an index of that digest.

        Raises:
            DatasetError: There is none, or it is another one.
        """
        content = path.read_bytes() if path.is_file() else b""
        if bytes_digest(content) != digest:
            raise DatasetError(
                f"{path}: must be the index that {MANIFEST} speaks of, but is missing, damaged or of another packing; "
                "copy both again, or pack again"
            )
        table = pq.read_table(pa.BufferReader(content))
        suffix = (table.schema.metadata or {}).get(b"suffix", b"").decode(errors="replace")
        boxes = table["xyxy"].combine_chunks()
        first_box = boxes.offsets.to_numpy() if len(table) else np.zeros(1)
        return cls(
            names=tuple(table["name"].to_pylist()),
            suffix=suffix if _SUFFIX.fullmatch(suffix) else None,
            digests=tuple(table["digest"].to_pylist()),
            sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1),
            readable=table["readable"].to_numpy(),
            shards=table["shard"].to_numpy(),
            offsets=table["offset"].to_numpy(),
            num_bytes=table["bytes"].to_numpy(),
            first_box=first_box.astype(np.int64) // 4,
            xyxy=boxes.values.to_numpy().reshape(-1, 4),
            class_ids=table["class_ids"].combine_chunks().values.to_numpy(),
        )


def sample_key(image: int) -> str:
    """Stem of the members of one image."""
    return f"{image:09d}"


def common_suffix(names: Iterable[str]) -> str:
    """The suffix that all images of a split get in their tars, in lower case; most readers ask for one by its name.

    Theirs where all share it. Otherwise `.jpg`, whatever they are: every decoder goes by the bytes.
    """
    found = {PurePosixPath(name).suffix.lower() for name in names}
    found = {_SAME_AS.get(suffix, suffix) for suffix in found}
    suffix = found.pop() if len(found) == 1 else ".jpg"
    return suffix if _SUFFIX.fullmatch(suffix) and suffix != ".json" else ".jpg"


def member_suffix(name: str) -> str:
    """Suffix of an image in a tar of format 1: its own, or `.image` where WebDataset could not tell it from the key."""
    suffix = PurePosixPath(name).suffix
    return suffix if _SUFFIX.fullmatch(suffix.lower()) and suffix.lower() != ".json" else ".image"
