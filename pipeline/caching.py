"""What a team does with a teacher cache beside building it: forecast, repair, audit, merge."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.markers import COMPLETE, is_complete
from mocha_pipe.pipeline.run.datasets import named, training_regions
from mocha_pipe.pipeline.run.devices import torch_device
from mocha_pipe.pipeline.run.inputs import WORLD, teacher_config, teacher_of_cache
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache
from mocha_pipe.teacher_cache.building.plan import BuildPlan, plan_build
from mocha_pipe.teacher_cache.errors import naming_data
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.disk import make_way
from mocha_pipe.teacher_cache.teachers.config import TEACHER_NOTE, TeacherConfig

if TYPE_CHECKING:
    from mocha_pipe.pipeline.markers import Completion
    from mocha_pipe.teacher_cache.checking.audit import AuditReport
    from mocha_pipe.teacher_cache.checking.findings import VerifyReport
    from mocha_pipe.teacher_cache.sharing import TransferReport


def plan_cache(config: RunConfig, sample: int) -> BuildPlan:
    """Count what a build would do, and time the teacher on random images of this very data set.

    Raises:
        DatasetError, TeacherError, CacheMismatchError: as the build would.
    """
    source, table = training_regions(config)
    teacher = teacher_config(config.teacher)
    plan = plan_build(
        source, table, named(config.cache.folder), teacher, dim=config.cache.dim, sample=sample,
        device=torch_device(teacher.device),
    )  # fmt: skip
    return replace(plan, teacher=config.teacher.model)


def repair_cache(config: RunConfig, report: "VerifyReport", teacher: str | None) -> "Completion":
    """Write anew what follows from the data set, delete the other files at fault, and build again.

    The build computes just these, in the widths that are there. Nothing is deleted before data set and teacher are
    known to be the cache's, and the teacher is loaded if need be.

    Args:
        config: resolved; names the cache, its data set, and the teacher's device and batch.
        report: what is at fault.
        teacher: hub id or folder of the teacher that made the cache; None finds it.

    Raises:
        CacheFormatError: another program laid an array out anew.
        CacheCorruptError: the cache came from a lossy archive.
        CacheMismatchError: the data set or the teacher is another one.
        ConfigError: no data set was named, and there is no miniature world.
    """
    from mocha_pipe.teacher_cache.checking.mending import remove_faults, require_mendable, restore

    folder = named(config.cache.folder)
    require_mendable(folder)
    _require_data(config)
    for finding in report.findings:  # notes of where the teacher lies that cannot be read tell nothing
        if finding.file in (COMPLETE, TEACHER_NOTE):
            make_way(folder / finding.file)
    restore(folder, report, training_regions(config)[1])
    loadable = _teacher(config, RegionCache.open(folder), teacher)
    build = replace(config, teacher=loadable, cache=replace(config.cache, dim=None))
    with_teacher = any(finding.shard is not None and finding.array != "targets" for finding in report.findings)
    return build_teacher_cache(build, mend=lambda: remove_faults(folder, report), mend_with_teacher=with_teacher)


def audit(config: RunConfig, rows: int, seed: int, teacher: str | None) -> "AuditReport":
    """Compare random rows of a cache with what the live teacher says now.

    Args:
        config: resolved; names the cache, its data set, and the teacher's device and batch.
        rows: how many.
        seed: of their choice.
        teacher: as for `repair_cache`.

    Raises:
        CacheMismatchError: the data set or the teacher is another one.
    """
    from mocha_pipe.teacher_cache.checking.audit import audit_cache
    from mocha_pipe.teacher_cache.teachers.loading import load_teacher

    _require_data(config)
    source, table = training_regions(config)
    cache = RegionCache.open(named(config.cache.folder), expect_table=table)
    live = load_teacher(teacher_config(_teacher(config, cache, teacher)))
    with naming_data(config.data.path):
        return audit_cache(cache, source, live, rows=rows, seed=seed, progress=True)


def _require_data(config: RunConfig) -> None:
    """Refuse to make the miniature world for a cache that is there: it is of other data, or its world is gone."""
    if config.uses_miniature and not is_complete(config.miniature_folder, stage=WORLD):
        raise ConfigError(
            f"the pictures that {named(config.cache.folder)} was made from are needed, found no data set at "
            f"{named(config.data.path)}: name it with --data"
        )


def _teacher(config: RunConfig, cache: RegionCache, name: str | None) -> TeacherConfig:
    return teacher_of_cache(cache, name, device=config.teacher.device, batch=config.teacher.batch)


def merge_caches(into: Path, sources: Sequence[str], dim: int | None) -> "TransferReport":
    """Join the shards of several caches, and derive projection and targets when none is missing any more.

    A cache that is complete keeps its targets, of whatever width, and nothing is written to it.
    """
    from mocha_pipe.teacher_cache.projecting.derive import derive_targets
    from mocha_pipe.teacher_cache.sharing import merge
    from mocha_pipe.teacher_cache.store.claims import ShardClaims

    report = merge(into, sources, progress=True)
    cache = RegionCache.open(into)
    if not cache.missing_teacher_shards() and not cache.is_complete:
        with ShardClaims(into) as claims:
            derive_targets(cache, claims, dim, device=torch_device("auto"), progress=True)
    return report
