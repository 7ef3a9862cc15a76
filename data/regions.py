"""The region table: one row per ground-truth box in a fixed order, each with a key that any machine computes alike.

Legend: N = regions, I = images.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from data.errors import DatasetError, DatasetNotFoundError
from data.files import atomic_path
from data.images import image_digest
from data.types import DetectionSource

IMAGES_FILE = "images.parquet"
REGIONS_FILE = "regions.parquet"

_IMAGES_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("regions", pa.int64()),
    ]
)
_REGIONS_SCHEMA = pa.schema(
    [("key", pa.string()), ("class_id", pa.int32())] + [(side, pa.float32()) for side in ("x1", "y1", "x2", "y2")]
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
    """Hex of blake2b-16 over image digest, box rounded to 1/100 px, and class name: no path, no class id."""

    def __len__(self) -> int:
        return len(self.class_ids)

    @functools.cached_property
    def digest(self) -> str:
        """Hex over the class names and the keys in their order: two tables with one digest share their targets."""
        state = hashlib.blake2b(json.dumps(self.class_names).encode(), digest_size=16)
        state.update(np.ascontiguousarray(self.keys).tobytes())
        return state.hexdigest()

    def image_of_rows(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:  # (n,) -> (n,)
        """Image index of each row.

        Raises:
            IndexError: A row is not in 0..N-1.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie in 0..{len(self) - 1}, found {rows.min()}..{rows.max()}")
        return (np.searchsorted(self.first_row, rows, side="right") - 1).astype(np.int64)

    @classmethod
    def build(cls, source: DetectionSource, *, progress: bool = False) -> "RegionTable":
        """Read every image of the source once, for its digest, and number the boxes in the source's order.

        Raises:
            DatasetNotFoundError: An image is gone since the source was opened.
        """
        records = source.records
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing and reading both leave the GIL
            hashed = pool.map(image_digest, [record.path for record in records])
            bar = tqdm(hashed, "hash images", len(records), unit="image", delay=2, disable=not progress)
            digests = tuple(bar)
        keys = [
            region_key(digest, box, source.class_names[class_id])
            for digest, record in zip(digests, records, strict=True)
            for box, class_id in zip(record.xyxy, record.class_ids, strict=True)
        ]
        return cls(
            class_names=source.class_names,
            image_names=tuple(record.name for record in records),
            image_digests=digests,
            image_sizes=np.array([(record.width, record.height) for record in records], np.int32).reshape(-1, 2),
            first_row=_first_rows(len(record.class_ids) for record in records),
            xyxy=np.concatenate([np.zeros((0, 4)), *(record.xyxy for record in records)]).astype(np.float32),
            class_ids=np.concatenate([np.zeros(0, int), *(record.class_ids for record in records)]).astype(np.int32),
            keys=np.array(keys, dtype="S32"),
        )

    def write(self, folder: Path) -> None:
        """Write images.parquet and regions.parquet, each atomically; equal tables give equal bytes."""
        images = [self.image_names, self.image_digests, *self.image_sizes.T, np.diff(self.first_row)]
        regions = [self.keys.astype("U32"), self.class_ids, *self.xyxy.T]
        _write_parquet(folder / IMAGES_FILE, images, _IMAGES_SCHEMA, self._metadata())
        _write_parquet(folder / REGIONS_FILE, regions, _REGIONS_SCHEMA, self._metadata())

    @classmethod
    def read(cls, folder: Path) -> "RegionTable":
        """Read what `write` wrote.

        Raises:
            DatasetNotFoundError: A file is missing.
            DatasetError: A file is damaged, or the two are not of one table.
        """
        images, regions = _read_parquet(folder / IMAGES_FILE), _read_parquet(folder / REGIONS_FILE)
        metadata = images.schema.metadata or {}
        if not images.schema.equals(_IMAGES_SCHEMA) or not regions.schema.equals(_REGIONS_SCHEMA):
            raise DatasetError(f"{folder}: {IMAGES_FILE} or {REGIONS_FILE} has other columns; {_REBUILD}")
        table = cls(
            class_names=tuple(json.loads(metadata.get(b"class_names", b"[]"))),
            image_names=tuple(images["name"].to_pylist()),
            image_digests=tuple(images["digest"].to_pylist()),
            image_sizes=np.stack([images["width"].to_numpy(), images["height"].to_numpy()], axis=1),
            first_row=_first_rows(images["regions"].to_numpy()),
            xyxy=np.stack([regions[side].to_numpy() for side in ("x1", "y1", "x2", "y2")], axis=1),
            class_ids=regions["class_id"].to_numpy(),
            keys=np.array(regions["key"].to_pylist(), dtype="S32"),
        )
        if table._metadata() != metadata or metadata != regions.schema.metadata or table.first_row[-1] != len(table):
            raise DatasetError(f"{folder}: {IMAGES_FILE} and {REGIONS_FILE} are not of one table; {_REBUILD}")
        return table

    def _metadata(self) -> dict[bytes, bytes]:
        return {b"class_names": json.dumps(self.class_names).encode(), b"digest": self.digest.encode()}


_REBUILD = "remove the folder and run: mocha-pipe cache build"


def region_key(digest: str, xyxy: NDArray[np.floating], class_name: str) -> str:
    """Key of one region: hex of blake2b-16 over image digest, box in whole 1/100 px, and class name.

    Args:
        digest: `image_digest` of the image.
        xyxy: (4,) pixel corners.
        class_name: Name, not id, so that a class may move in the list.
    """
    hundredths = np.floor(np.asarray(xyxy, np.float64) * 100 + 0.5).astype("<i8")
    state = hashlib.blake2b(bytes.fromhex(digest), digest_size=16)
    state.update(hundredths.tobytes())
    state.update(class_name.encode())
    return state.hexdigest()


def _first_rows(counts: Iterable[int]) -> NDArray[np.int64]:  # (I,) -> (I + 1,)
    return np.cumsum([0, *counts], dtype=np.int64)


def _write_parquet(path: Path, columns: list[object], schema: pa.Schema, metadata: dict[bytes, bytes]) -> None:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema.with_metadata(metadata))
    with atomic_path(path) as temporary:
        # Every setting that decides bytes is fixed here, so that a newer default of pyarrow changes none.
        pq.write_table(table, temporary, version="2.6", compression="zstd", compression_level=3, use_dictionary=False)


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise DatasetNotFoundError(f"{path}: no such file; run: mocha-pipe cache build") from None
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]}); {_REBUILD}") from None
