"""Made-up regions, caches and a teacher, of any number and width: the miniature world is too small for some purposes.

Legend: N regions, I images, H, Z and d widths of `hidden`, `visual` and `targets`.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mocha_pipe.data.files import file_digest
from mocha_pipe.data.regions import RegionTable, recompute_keys
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME, RegionCache
from mocha_pipe.teacher_cache.store.consolidated import consolidate
from mocha_pipe.teacher_cache.store.layout import ShardPlan, create_array_atomically, create_group, write_shard
from mocha_pipe.teacher_cache.store.projection import Projection
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings

CLASS_NAMES = ("mug", "bag")
_PICTURE = 32  # pixels
_CELLS = 4  # a crop's pixels are averaged in 4 x 4 cells


def synthetic_spec(*, hidden_dim: int, visual_dim: int) -> TeacherSpec:
    """The spec of `CheapTeacher` at some widths."""
    return TeacherSpec(
        model="synthetic",
        revision="1",
        prompt="{label}",
        mode="prompt",
        layer=-1,
        pooling="mean",
        crop_margin=0.0,
        crop_size=16,
        dtype="float32",
        visual="tower",
        visual_revision="1",
        max_new_tokens=0,
        num_beams=1,
        hidden_dim=hidden_dim,
        visual_dim=visual_dim,
    )


def synthetic_table(images: int, *, most: int, seed: int = 0) -> RegionTable:
    """A table of I images with 1 to `most` random regions each."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, most, images, endpoint=True)
    first_row = np.cumsum([0, *counts], dtype=np.int64)
    rows = int(first_row[-1])
    corners = generator.uniform(0, _PICTURE / 2, (rows, 2)).astype(np.float32)
    digests = generator.bytes(16 * images).hex()
    table = RegionTable(
        class_names=CLASS_NAMES,
        image_names=tuple(f"images/train/{index:08d}.png" for index in range(images)),
        image_digests=tuple(digests[start : start + 32] for start in range(0, len(digests), 32)),
        image_sizes=np.full((images, 2), _PICTURE, np.int32),
        first_row=first_row,
        xyxy=np.concatenate([corners, corners + _PICTURE / 2], axis=1),
        class_ids=generator.integers(0, len(CLASS_NAMES), rows).astype(np.int32),
        keys=np.zeros(rows, "S32"),
    )
    return replace(table, keys=recompute_keys(table))


def synthetic_source(table: RegionTable, folder: Path) -> DetectionSource:
    """A source for a synthetic table. All its images are the same small file, which is written to `folder`."""
    path = folder / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (_PICTURE, _PICTURE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    spans = list(zip(table.first_row[:-1].tolist(), table.first_row[1:].tolist(), strict=True))
    records = tuple(
        ImageRecord(
            path=path,
            name=name,
            width=_PICTURE,
            height=_PICTURE,
            xyxy=table.xyxy[start:stop],  # type: ignore[arg-type]  # float32 suffices, and saves a copy
            class_ids=table.class_ids[start:stop],  # type: ignore[arg-type]
        )
        for name, (start, stop) in zip(table.image_names, spans, strict=True)
    )
    return DetectionSource(root=folder, split="train", class_names=table.class_names, records=records)


def synthetic_cache(
    folder: Path, table: RegionTable, *, hidden_dim: int, visual_dim: int, dim: int, seed: int = 0
) -> RegionCache:
    """A complete cache of random numbers, projection included, written as a build writes it."""
    generator = np.random.default_rng(seed)
    plan, spec = ShardPlan.for_rows(len(table)), synthetic_spec(hidden_dim=hidden_dim, visual_dim=visual_dim)
    create_group(folder, plan=plan, spec=spec, table=table)
    projection = Projection(
        mean=np.zeros(hidden_dim + visual_dim),
        components=generator.standard_normal((dim, hidden_dim + visual_dim)),
        eigenvalues=np.ones(hidden_dim + visual_dim),
        hidden_dim=hidden_dim,
        rows=len(table),
    )
    projection.save(folder / PROJECTION_NAME)
    digest = file_digest(folder / PROJECTION_NAME)
    create_array_atomically(folder, "targets", plan, dim, {"projection_digest": digest})
    for name, width in (("hidden", hidden_dim), ("visual", visual_dim), ("targets", dim)):
        for shard in range(len(plan)):
            start, stop = plan.span(shard)
            values = generator.standard_normal((stop - start, width), np.float32)
            write_shard(folder / name, plan, shard, values.astype(np.float16))
    consolidate(folder)
    return RegionCache.open(folder)


@dataclass(frozen=True, slots=True)
class Look:
    """One line of a teacher's log: when which process looked at which region."""

    time_ns: int
    """On the clock that all processes of a machine share."""
    process: int
    region: str
    """`region_name` of its crop and class."""


@dataclass
class CheapTeacher:
    """A `Teacher` without a model: fixed random maps of a crop's mean colours.

    The embedding of a crop is the same in any batch.
    """

    spec: TeacherSpec
    log: Path | None = None
    """File to which a line is added for each region before the region is embedded. Processes may share it."""

    def embed(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> RegionEmbeddings:
        """See `Teacher.embed`."""
        if self.log is not None:
            self._note(crops, class_names)
        cells_nC = np.stack([_cells(crop, name) for crop, name in zip(crops, class_names, strict=True)])
        generator = np.random.default_rng(0)
        hidden_CH, visual_CZ = (
            generator.standard_normal((cells_nC.shape[1], width), np.float32)
            for width in (self.spec.hidden_dim, self.spec.visual_dim)
        )
        # Row by row: the last bits of a larger product depend on the number of its rows.
        hidden, visual = ([cells_C @ weights for cells_C in cells_nC] for weights in (hidden_CH, visual_CZ))
        return RegionEmbeddings(hidden=np.tanh(hidden), visual=np.tanh(visual))

    def tokens(self, class_name: str) -> int:
        """One for each word."""
        return len(class_name.split())

    def _note(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> None:
        assert self.log is not None
        stamp = f"{time.monotonic_ns()} {os.getpid()}"
        lines = [f"{stamp} {region_name(crop, name)}\n" for crop, name in zip(crops, class_names, strict=True)]
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(descriptor, "".join(lines).encode())  # one call: a kill leaves all of it or nothing
        finally:
            os.close(descriptor)


def region_name(crop: NDArray[np.uint8], class_name: str) -> str:
    """Name of a region in a teacher's log."""
    return hashlib.blake2b(crop.tobytes() + class_name.encode(), digest_size=8).hexdigest()


def read_log(path: Path) -> list[Look]:
    """What a `CheapTeacher` logged, in order of time; empty if there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    parts = [line.split() for line in lines]
    return sorted((Look(int(when), int(who), what) for when, who, what in parts), key=lambda look: look.time_ns)


def _cells(crop: NDArray[np.uint8], class_name: str) -> NDArray[np.float32]:  # (S, S, 3) -> (C,)
    side = len(crop) // _CELLS
    means = crop.reshape(_CELLS, side, _CELLS, side, 3).mean(axis=(1, 3), dtype=np.float32).ravel() / 255 - 0.5
    code = np.frombuffer(hashlib.blake2b(class_name.encode(), digest_size=8).digest(), np.uint8) / 255 - 0.5
    return np.concatenate([means, code]).astype(np.float32)
