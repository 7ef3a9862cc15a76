"""What a team does with a teacher cache beside building it: forecast, repair, audit, merge."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mocha_pipe.pipeline.run.datasets import training_regions
from mocha_pipe.pipeline.run.inputs import teacher_config, teacher_of_cache, torch_device
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache
from mocha_pipe.teacher_cache.building.plan import BuildPlan, plan_build
from mocha_pipe.teacher_cache.store.cache import RegionCache

if TYPE_CHECKING:
    from mocha_pipe.pipeline.rundir import Completion
    from mocha_pipe.teacher_cache.checking.audit import AuditReport
    from mocha_pipe.teacher_cache.checking.verify import VerifyReport
    from mocha_pipe.teacher_cache.sharing import TransferReport


def plan_cache(config: RunConfig, sample: int) -> BuildPlan:
    """Count what a build would do, and time the teacher on random images of this very data set.

    Raises:
        DatasetError, TeacherError, CacheMismatchError: as the build would.
    """
    source, table = training_regions(config)
    assert config.cache.folder is not None, "the configuration is resolved"
    teacher = teacher_config(config.teacher)
    plan = plan_build(
        source, table, config.cache.folder, teacher, dim=config.cache.dim, sample=sample,
        device=torch_device(teacher.device),
    )  # fmt: skip
    return replace(plan, teacher=config.teacher.model)


def repair_cache(config: RunConfig, report: "VerifyReport", *, teacher_is_named: bool) -> "Completion":
    """Delete the files at fault and build again, which computes just these, in the widths that are there.

    Raises:
        CacheCorruptError: something is at fault that cannot be computed again.
    """
    from mocha_pipe.teacher_cache.checking.verify import remove_faults

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
    from mocha_pipe.teacher_cache.checking.audit import audit_cache
    from mocha_pipe.teacher_cache.teachers.loading import load_teacher

    source, table = training_regions(config)
    folder = config.cache.folder
    assert folder is not None, "the configuration is resolved"
    cache = RegionCache.open(folder, expect_table=table)
    named = config.teacher.model if teacher_is_named else None
    teacher = teacher_of_cache(cache, named, device=config.teacher.device, batch=config.teacher.batch)
    return audit_cache(cache, source, load_teacher(teacher_config(teacher)), rows=rows, seed=seed, progress=True)


def merge_caches(into: Path, sources: Sequence[str], dim: int | None) -> "TransferReport":
    """Join the shards of several caches, and derive projection and targets when none is missing any more."""
    from mocha_pipe.teacher_cache.sharing import merge
    from mocha_pipe.teacher_cache.store.claims import ShardClaims
    from mocha_pipe.teacher_cache.store.derive import derive_targets

    report = merge(into, sources, progress=True)
    cache = RegionCache.open(into)
    if not cache.missing_teacher_shards():
        with ShardClaims(into) as claims:
            derive_targets(cache, claims, dim, device=torch_device("auto"), progress=True)
    return report
