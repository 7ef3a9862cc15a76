"""What a build would do and cost, before anybody pays for it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mocha_pipe.data.files import is_vacant
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.feed import BATCHES_AHEAD, CropFeed, RegionCrop
from mocha_pipe.teacher_cache.building.forecast import SAMPLE_WINDOWS, Forecast
from mocha_pipe.teacher_cache.building.shard_order import check_regions, rows_to_embed
from mocha_pipe.teacher_cache.projecting.whitening import Moments, exact_device
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import ShardPlan, shard_bytes
from mocha_pipe.teacher_cache.store.projection import default_dim
from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher

_PROJECTION_ROWS, _EIGEN_SIDE = 1024, 512
"""Rows and width of what is timed for the projection."""


@dataclass(frozen=True, kw_only=True)
class RegionCost:
    """What a teacher spends on one region, and what it leaves on disk."""

    tokens: float
    """Mean over the regions of what the language model reads, picture and prompt together; 0 where there is none."""
    image_tokens: int
    """Of these the picture's, where the spec says them."""
    operations: float
    """Floating-point operations of one region alone, a multiplication and an addition being two."""
    bytes: int
    """Of its rows in the teacher's arrays."""


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a build would do and cost."""

    cache: Path
    teacher: str
    mode: str
    images: int
    distinct_images: int
    regions: int
    distinct_regions: int
    """Equal regions are embedded once."""
    to_embed: int
    """Distinct regions that the cache in that folder does not hold yet."""
    shards: int
    rows_per_shard: int
    bytes: dict[str, int]
    """Size of each array, and of the region table and the projection together (`other`)."""
    region: RegionCost
    """What one region costs."""
    sample: int
    """Regions that were timed."""
    device: str
    teacher_time: Forecast
    """The teacher's part, crops included, on this machine alone."""
    projection_seconds: float
    """Covariance, eigenvectors and targets."""


def plan_build(
    source: DetectionSource,
    table: RegionTable,
    folder: Path,
    teacher: TeacherConfig,
    *,
    dim: int | None,
    sample: int,
    device: str,
) -> BuildPlan:
    """Count what a build would do, and time the teacher on random images of this very data set.

    Arguments and errors are those of `build_cache`; `sample` is how many regions to time, at least.
    """
    check_regions(source, table)
    spec = describe_teacher(teacher)
    to_embed, shards = table.num_distinct, ShardPlan.for_rows(len(table))
    if not is_vacant(folder):
        cache = RegionCache.open(folder, expect_spec=spec, expect_table=table)
        to_embed, shards = rows_to_embed(cache, table, None, ()), cache.plan
    loaded = load_teacher(teacher)
    windows = time_teacher(source, table, loaded, sample=sample, batch=teacher.batch)
    joint_dim = sum(spec.arrays.values())
    dim = dim or default_dim(joint_dim, len(table))
    return BuildPlan(
        cache=folder,
        teacher=teacher.model,
        mode=spec.mode,
        images=len(source.records),
        distinct_images=table.num_distinct_images,
        regions=len(table),
        distinct_regions=table.num_distinct,
        to_embed=to_embed,
        shards=len(shards),
        rows_per_shard=shards.rows_per_shard,
        bytes={
            **{name: shard_bytes(shards, width) for name, width in spec.arrays.items()},
            "targets": shard_bytes(shards, dim),
            "other": 64 * len(table) + 8 * joint_dim * (dim + 2),
        },
        region=cost_of_region(table, loaded),
        sample=sum(regions for regions, _ in windows),
        device=device,
        teacher_time=Forecast.of(to_embed, windows),
        projection_seconds=time_projection(len(table), joint_dim, exact_device(device)),
    )


def time_teacher(
    source: DetectionSource, table: RegionTable, teacher: Teacher, *, sample: int, batch: int
) -> list[tuple[int, float]]:
    """Embed the regions of random images, as a build would, and time window after window.

    Args:
        source: the images that the table was built from.
        table: the regions.
        teacher: loaded; one more window goes before the timed ones, to warm it up.
        sample: regions to time at least, where there are so many. Equal samples take the same images.
        batch: crops per forward pass.

    Returns:
        Regions and seconds of each window.
    """
    images = np.random.default_rng(0).permutation(np.flatnonzero(np.diff(table.first_row)))
    counts = np.diff(table.first_row)[images]
    images = np.sort(images[: int(np.searchsorted(np.cumsum(counts), sample)) + 1])
    rows = np.concatenate([np.arange(table.first_row[image], table.first_row[image + 1]) for image in images])
    # Small samples are cut finer than a build's windows, so that their scatter shows.
    size = max(1, min(batch * BATCHES_AHEAD, -(-len(rows) // SAMPLE_WINDOWS)))
    timed: list[tuple[int, float]] = []
    with CropFeed(source, table, teacher.spec) as feed:
        _embed(teacher, table, next(feed.windows(rows[:size], size)))
        last = time.perf_counter()
        for window in feed.windows(rows, size):
            _embed(teacher, table, window)
            now = time.perf_counter()
            timed.append((len(window), now - last))
            last = now
    return timed


def _embed(teacher: Teacher, table: RegionTable, window: Sequence[RegionCrop]) -> None:
    seen = [(crop.pixels, crop.row) for crop in window if crop.pixels is not None]
    if seen:
        names = [table.class_name(row) for _, row in seen]
        teacher.embed([pixels for pixels, _ in seen], names)


def cost_of_region(table: RegionTable, teacher: Teacher) -> RegionCost:
    """Tokens, operations and bytes of one region. The operations are counted while a blank crop is embedded.

    They are those of the commonest class; others differ by the length of their names.
    """
    counts = np.bincount(table.class_ids, minlength=len(table.class_names))
    lengths = np.array(
        [teacher.tokens(name) if count else 0 for name, count in zip(table.class_names, counts, strict=True)]
    )
    commonest = table.class_names[int(counts.argmax())]
    blank = np.zeros((teacher.spec.crop_size, teacher.spec.crop_size, 3), np.uint8)
    # Fused attention has no rule in torch's counter on the CPU and would count nothing; plain products have one.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        teacher.embed([blank], [commonest])
    return RegionCost(
        tokens=float((lengths * counts).sum() / counts.sum()),
        image_tokens=teacher.spec.image_tokens,
        operations=counter.get_total_flops(),
        bytes=2 * sum(teacher.spec.arrays.values()),
    )


def time_projection(rows: int, joint_dim: int, device: str) -> float:
    """Seconds that covariance, eigenvectors and targets of N rows will take, from a small piece of each."""
    block = torch.randn(_PROJECTION_ROWS, joint_dim, dtype=torch.float64, device=device)
    started = time.perf_counter()
    Moments(joint_dim, device).add(block)
    covariance_seconds = time.perf_counter() - started
    side = min(joint_dim, _EIGEN_SIDE)
    started = time.perf_counter()
    torch.linalg.eigh(block[:, :side].T @ block[:, :side])
    eigen_seconds = time.perf_counter() - started
    return covariance_seconds * rows / _PROJECTION_ROWS + eigen_seconds * (joint_dim / side) ** 3
