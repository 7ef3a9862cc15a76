"""What a team does with a teacher cache beside building it: forecast, repair, audit, merge."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.files import is_vacant
from pipeline.config import RunConfig
from pipeline.datasets import training_regions
from pipeline.inputs import teacher_config, teacher_of_cache, torch_device
from pipeline.stages import build_teacher_cache
from teacher_cache.cache import RegionCache
from teacher_cache.forecast import Forecast

if TYPE_CHECKING:
    from pipeline.rundir import Completion
    from teacher_cache.audit import AuditReport
    from teacher_cache.sharing import TransferReport
    from teacher_cache.spec import TeacherSpec
    from teacher_cache.verify import VerifyReport


@dataclass(frozen=True, kw_only=True)
class CachePlan:
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


def plan_cache(config: RunConfig, sample: int) -> CachePlan:
    """Count what a build would do, and time the teacher on random images of this very data set.

    Raises:
        DatasetError, TeacherError, CacheMismatchError: as the build would.
    """
    from teacher_cache.forecast import time_projection, time_teacher
    from teacher_cache.layout import ShardPlan, shard_bytes
    from teacher_cache.schedule import rows_to_embed
    from teacher_cache.teachers.base import describe_teacher, load_teacher

    source, table = training_regions(config)
    folder = config.cache.folder
    assert folder is not None, "the configuration is resolved"
    teacher = teacher_config(config.teacher)
    spec = describe_teacher(teacher)
    to_embed, plan = table.num_distinct, ShardPlan.for_rows(len(table))
    if not is_vacant(folder):
        cache = RegionCache.open(folder, expect_spec=spec, expect_table=table)
        to_embed, plan = rows_to_embed(cache, table, None, ()), cache.plan
    dim = config.cache.dim or default_target_dim(spec, len(table))
    windows = time_teacher(source, table, load_teacher(teacher), sample=sample, batch=teacher.batch)
    joint_dim = spec.hidden_dim + spec.visual_dim
    return CachePlan(
        cache=folder,
        teacher=config.teacher.model,
        mode=spec.mode,
        images=len(source.records),
        distinct_images=table.num_distinct_images,
        regions=len(table),
        distinct_regions=table.num_distinct,
        to_embed=to_embed,
        shards=len(plan),
        rows_per_shard=plan.rows_per_shard,
        bytes={
            "hidden": shard_bytes(plan, spec.hidden_dim),
            "visual": shard_bytes(plan, spec.visual_dim),
            "targets": shard_bytes(plan, dim),
            "other": 64 * len(table) + 8 * joint_dim * (dim + 2),
        },
        sample=sum(regions for regions, _ in windows),
        device=torch_device(teacher.device),
        teacher_time=Forecast.of(to_embed, windows),
        projection_seconds=time_projection(len(table), joint_dim, torch_device(teacher.device)),
    )


def default_target_dim(spec: "TeacherSpec", rows: int) -> int:
    """Width of a target when nobody asks for one."""
    from teacher_cache.projection import default_dim

    return default_dim(spec.hidden_dim + spec.visual_dim, rows)


def repair_cache(config: RunConfig, report: "VerifyReport", *, teacher_is_named: bool) -> "Completion":
    """Delete the files at fault and build again, which computes just these, in the widths that are there.

    Raises:
        CacheCorruptError: something is at fault that cannot be computed again.
    """
    from teacher_cache.verify import remove_faults

    folder = config.cache.folder
    assert folder is not None, "the configuration is resolved"
    cache = RegionCache.open(folder)
    named = config.teacher.model if teacher_is_named else None
    teacher = teacher_of_cache(cache, named, device=config.teacher.device, batch=config.teacher.batch)
    remove_faults(folder, report)
    return build_teacher_cache(replace(config, teacher=teacher, cache=replace(config.cache, dim=None)))


def audit(config: RunConfig, rows: int, seed: int, *, teacher_is_named: bool) -> "AuditReport":
    """Compare random rows of a cache with what the live teacher says now.

    Raises:
        CacheMismatchError: the data set or the teacher is another one.
    """
    from teacher_cache.audit import audit_cache
    from teacher_cache.teachers.base import load_teacher

    source, table = training_regions(config)
    folder = config.cache.folder
    assert folder is not None, "the configuration is resolved"
    cache = RegionCache.open(folder, expect_table=table)
    named = config.teacher.model if teacher_is_named else None
    teacher = teacher_of_cache(cache, named, device=config.teacher.device, batch=config.teacher.batch)
    return audit_cache(cache, source, load_teacher(teacher_config(teacher)), rows=rows, seed=seed, progress=True)


def merge_caches(into: Path, sources: Sequence[str], dim: int | None) -> "TransferReport":
    """Join the shards of several caches, and derive projection and targets when none is missing any more."""
    from teacher_cache.claims import ShardClaims
    from teacher_cache.derive import derive_targets
    from teacher_cache.sharing import merge

    report = merge(into, sources, progress=True)
    cache = RegionCache.open(into)
    if not cache.missing_teacher_shards():
        with ShardClaims(into) as claims:
            derive_targets(cache, claims, dim, device=torch_device("auto"), progress=True)
    return report
