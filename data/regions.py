"""The region table: one row per ground-truth box in a fixed order, each with a key that any machine computes alike.

Legend: N = regions, I = images.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.boxes import in_hundredths
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.files import write_parquet
from mocha_pipe.data.images import image_digest
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.data.types import DetectionSource

IMAGES_FILE = "images.parquet"
REGIONS_FILE = "regions.parquet"

_ROWS_AT_ONCE = 2**16
_REBUILD = "remove the folder and run: mocha-pipe cache build"
_IMAGES_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("regions", pa.int64()),
    ]
)
_OLD_REGIONS_SCHEMA = pa.schema(
    [("key", pa.string()), ("class_id", pa.int32())] + [(side, pa.float32()) for side in ("x1", "y1", "x2", "y2")]
)
_REGIONS_SCHEMA = pa.schema(  # the last two are for other readers, and follow from the rest
    [*_OLD_REGIONS_SCHEMA, ("image", pa.int32()), ("class_name", pa.string())]
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionTable:
    """Regions of a data set. Row n belongs to image i where first_row[i] <= n < first_row[i + 1]."""

    class_names: tuple[str, ...]
    image_names: tuple[str, ...]
    """In the order of the source (sorted)."""
    image_digests: tuple[str, ...]
    """Hex of blake2b-16 over the image file's bytes."""
    image_sizes: NDArray[np.int32]  # (I, 2)
    """Upright width and height in pixels."""
    first_row: NDArray[np.int64]  # (I + 1,)
    xyxy: NDArray[np.float32]  # (N, 4)
    """Pixel corners."""
    class_ids: NDArray[np.int32]  # (N,)
    keys: NDArray[np.bytes_]  # (N,) S32
    """Hex digests over image content, box and class name, see `recompute_keys`: no path, no class id."""

    def __len__(self) -> int:
        return len(self.class_ids)

    @functools.cached_property
    def digest(self) -> str:
        """Hex over the class names and the keys in their order; tables of one digest have the same targets."""
        state = hashlib.blake2b(json.dumps(self.class_names).encode(), digest_size=16)
        state.update(_bytes_of(self.keys))
        return state.hexdigest()

    @functools.cached_property
    def first_of_key(self) -> NDArray[np.int64]:  # (N,)
        """For each row the first row with the same key. Regions of one key are equal and have equal embeddings."""
        _, first, members = np.unique(self.keys, return_index=True, return_inverse=True)
        return first[members].astype(np.int64)

    @property
    def num_distinct(self) -> int:
        """Regions, equal ones counted once."""
        return int((self.first_of_key == np.arange(len(self))).sum())

    @property
    def num_distinct_images(self) -> int:
        """Images, equal ones counted once."""
        return len(set(self.image_digests))

    def image_of_rows(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:  # (n,) -> (n,)
        """Image index of each row.

        Raises:
            IndexError: A row is not in 0..N-1.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie in 0..{len(self) - 1}, found {rows.min()}..{rows.max()}")
        return (np.searchsorted(self.first_row, rows, side="right") - 1).astype(np.int64)

    def class_name(self, row: int) -> str:
        """Name of the class of one row."""
        return self.class_names[int(self.class_ids[row])]

    @classmethod
    def build(cls, source: DetectionSource, *, progress: bool = False) -> "RegionTable":
        """Read every image of the source once, for its digest, and number the boxes in the source's order.

        Raises:
            DatasetNotFoundError: An image is gone since the source was opened.
        """
        paths = [record.path for record in source.records]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing and reading both leave the GIL
            hashed = pool.map(image_digest, paths)
            return cls.of(source, tqdm(hashed, "hash images", len(paths), unit="image", delay=2, disable=not progress))

    @classmethod
    def of(cls, source: DetectionSource, image_digests: Iterable[str]) -> "RegionTable":
        """The table of a source whose images have these digests, one each in their order; no image is read."""
        records = source.records
        first_row = _first_rows(len(record.class_ids) for record in records)
        table = cls(
            class_names=source.class_names,
            image_names=tuple(record.name for record in records),
            image_digests=tuple(image_digests),
            image_sizes=np.array([(record.width, record.height) for record in records], np.int32).reshape(-1, 2),
            first_row=first_row,
            xyxy=np.concatenate([np.zeros((0, 4)), *(record.xyxy for record in records)]).astype(np.float32),
            class_ids=np.concatenate([np.zeros(0, int), *(record.class_ids for record in records)]).astype(np.int32),
            keys=np.zeros(first_row[-1], "S32"),
        )
        return replace(table, keys=recompute_keys(table))

    def write(self, folder: Path) -> None:
        """Write images.parquet and regions.parquet, each atomically; equal tables give equal bytes."""
        images = [self.image_names, self.image_digests, *self.image_sizes.T, np.diff(self.first_row)]
        image = np.repeat(np.arange(len(self.image_names), dtype=np.int32), np.diff(self.first_row))
        # Names become strings a part at a time: those of ten million regions take 80 MB even as references.
        class_name = pa.DictionaryArray.from_arrays(self.class_ids, pa.array(self.class_names, pa.string()))
        regions = [self.keys, self.class_ids, *self.xyxy.T, image, class_name]
        write_parquet(folder / IMAGES_FILE, images, _IMAGES_SCHEMA.with_metadata(self._metadata()))
        write_parquet(folder / REGIONS_FILE, regions, _REGIONS_SCHEMA.with_metadata(self._metadata()))

    @classmethod
    def read(cls, folder: Path) -> "RegionTable":
        """Read what `write` wrote, now or before the regions had the columns `image` and `class_name`.

        Raises:
            DatasetNotFoundError: A file is missing.
            DatasetError: A file is damaged, or the two are not of one table.
        """
        images, regions = _read_parquet(folder / IMAGES_FILE), _read_parquet(folder / REGIONS_FILE)
        metadata = images.schema.metadata or {}
        if not images.schema.equals(_IMAGES_SCHEMA) or regions.schema not in (_REGIONS_SCHEMA, _OLD_REGIONS_SCHEMA):
            raise DatasetError(f"{folder}: {IMAGES_FILE} or {REGIONS_FILE} has other columns; {_REBUILD}")
        try:
            class_names = tuple(parse_json(metadata.get(b"class_names", b"[]")))
        except (ValueError, TypeError):  # damaged, as the digests below then say
            class_names = ()
        table = cls(
            class_names=class_names,
            image_names=tuple(images["name"].to_pylist()),
            image_digests=tuple(images["digest"].to_pylist()),
            image_sizes=np.stack([images["width"].to_numpy(), images["height"].to_numpy()], axis=1),
            first_row=_first_rows(images["regions"].to_numpy()),
            xyxy=np.stack([regions[side].to_numpy() for side in ("x1", "y1", "x2", "y2")], axis=1),
            class_ids=regions["class_id"].to_numpy(),
            keys=_keys(regions["key"]),
        )
        if table._metadata() != metadata or metadata != regions.schema.metadata or table.first_row[-1] != len(table):
            raise DatasetError(f"{folder}: {IMAGES_FILE} and {REGIONS_FILE} are not of one table; {_REBUILD}")
        return table

    def _metadata(self) -> dict[bytes, bytes]:
        # `digest` covers the keys; `content` covers all other columns. Parquet's pages have checksums, but its footer,
        # which says where they lie, has none.
        state = hashlib.blake2b(digest_size=16)
        for part in _json_of(self.image_names, self.image_digests):
            state.update(part)
        for column in (self.image_sizes, self.first_row, self.xyxy, self.class_ids):
            state.update(_bytes_of(column))
        names, digest, content = json.dumps(self.class_names), self.digest, state.hexdigest()
        return {b"class_names": names.encode(), b"digest": digest.encode(), b"content": content.encode()}


def recompute_keys(table: RegionTable) -> NDArray[np.bytes_]:  # (N,) S32
    """Keys as they follow from a table's image digests, boxes and class names; equal to `table.keys` in a sound one.

    A key is the hex of blake2b-16 over three things: the image's digest (16 bytes), the box's corners rounded half up
    to whole 1/100 px (four little-endian int64), and the class name in UTF-8. It holds the name and not its id, so that
    a class may move in the list.
    """
    names = [name.encode() for name in table.class_names]
    keys = np.zeros(len(table), "S32")
    for start in range(0, len(table), _ROWS_AT_ONCE):  # a list of ten million Python objects takes a gigabyte
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(table)))
        images, ids = table.image_of_rows(rows).tolist(), table.class_ids[rows].tolist()
        boxes = in_hundredths(table.xyxy[rows]).astype("<i8").tobytes()
        first, last = images[0], images[-1] + 1
        digests = [bytes.fromhex(digest) for digest in table.image_digests[first:last]]
        keys[rows] = [
            hashlib.blake2b(
                digests[image - first] + boxes[32 * row : 32 * row + 32] + names[class_id], digest_size=16
            ).hexdigest()
            for row, (image, class_id) in enumerate(zip(images, ids, strict=True))
        ]
    return keys


def _bytes_of(column: NDArray[Any]) -> memoryview:
    """The bytes of an array in its order; no copy where it is contiguous."""
    return np.ascontiguousarray(column).reshape(-1).view(np.uint8).data


def _json_of(*lists: Sequence[str]) -> Iterator[bytes]:
    """What `json.dumps` makes of a list of lists, a part at a time."""
    for number, names in enumerate(lists):
        yield b", [" if number else b"[["
        for start in range(0, len(names), _ROWS_AT_ONCE):
            yield (", " * bool(start) + json.dumps(names[start : start + _ROWS_AT_ONCE])[1:-1]).encode()
        yield b"]"
    yield b"]"


def _keys(column: pa.ChunkedArray) -> NDArray[np.bytes_]:  # (N,) S32
    """Hex keys of a string column, without a Python object per row."""
    if not len(column):
        return np.zeros(0, "S32")
    array = column.combine_chunks()
    fixed = array.cast(pa.binary()).cast(pa.binary(32))
    return np.frombuffer(fixed.buffers()[1], dtype="S32", count=len(fixed), offset=32 * fixed.offset)


def _first_rows(counts: Iterable[int]) -> NDArray[np.int64]:  # (I,) -> (I + 1,)
    return np.cumsum([0, *counts], dtype=np.int64)


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise DatasetNotFoundError(f"{path}: no such file; run: mocha-pipe cache build") from None
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]}); {_REBUILD}") from None
