"""What a build would do and cost, before anybody pays for it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mocha_pipe.data.files import is_vacant
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.forecast import Forecast, time_projection, time_teacher
from mocha_pipe.teacher_cache.building.shard_order import rows_to_embed
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import ShardPlan, shard_bytes
from mocha_pipe.teacher_cache.store.projection import default_dim
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher


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
    sample: int
    """Regions that were timed."""
    device: str
    teacher_time: Forecast
    """The teacher's part, crops included, on this machine alone."""
    projection_seconds: float
    """Covariance, eigenvectors and targets."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return asdict(self)


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

    Args:
        source: the images.
        table: their regions.
        folder: where the cache would lie, or lies.
        teacher: which teacher, and how it embeds.
        dim: width of the targets; None for the one that a build would choose.
        sample: regions to time, at least.
        device: torch device of the projection.

    Raises:
        DatasetError, TeacherError, CacheMismatchError: as the build would.
    """
    spec = describe_teacher(teacher)
    to_embed, shards = table.num_distinct, ShardPlan.for_rows(len(table))
    if not is_vacant(folder):
        cache = RegionCache.open(folder, expect_spec=spec, expect_table=table)
        to_embed, shards = rows_to_embed(cache, table, None, ()), cache.plan
    windows = time_teacher(source, table, load_teacher(teacher), sample=sample, batch=teacher.batch)
    joint_dim = spec.hidden_dim + spec.visual_dim
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
            "hidden": shard_bytes(shards, spec.hidden_dim),
            "visual": shard_bytes(shards, spec.visual_dim),
            "targets": shard_bytes(shards, dim),
            "other": 64 * len(table) + 8 * joint_dim * (dim + 2),
        },
        sample=sum(regions for regions, _ in windows),
        device=device,
        teacher_time=Forecast.of(to_embed, windows),
        projection_seconds=time_projection(len(table), joint_dim, device),
    )
