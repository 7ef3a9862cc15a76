"""The stages in their order; read this file first.

    make_world            ROOT/miniature   scenes and a personal benchmark, where no data set was named
    build_teacher_cache   ROOT/cache       phase 1: the teacher sees every ground-truth box once
    pretrain_base         ROOT/base        phase 2: the base detector, a plain ultralytics run
    distill_student       ROOT/distill     phase 2: the student learns the cached targets; no teacher is loaded
    evaluate_fewshot      ROOT/fewshot     few-shot episodes, report.json and report.html

A sweep (sweep.py) repeats the fourth with other settings, and has a world of its own to measure on:

    make_validation_world ROOT/validation  a second personal benchmark, so that nothing is chosen on the first

Each stage takes a resolved `RunConfig`, makes what it needs and nobody named, writes its folder, and puts
`complete.json` there last. Called again it skips what is complete and goes on with what is not (rundir.py). The worlds
are made in run/datasets.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.markers import Completion, Identity, read_completion
from mocha_pipe.pipeline.run import inputs
from mocha_pipe.pipeline.run.datasets import make_world, named, splits, training_regions
from mocha_pipe.pipeline.run.devices import torch_device
from mocha_pipe.pipeline.rundir import require_own, run_shared_stage, run_stage
from mocha_pipe.pipeline.settings.sections import RunConfig

if TYPE_CHECKING:
    from mocha_pipe.pipeline.distillation import DistillInputs
    from mocha_pipe.teacher_cache.store.cache import RegionCache
    from mocha_pipe.teacher_cache.teachers.base import Teacher


_REPORTS = ("report.json", "report.html")


def run_demo(config: RunConfig) -> list[Completion]:
    """Every stage in order on the miniature world; what each did."""
    # A device that is not there, or a folder of somebody else's, should not show after minutes.
    inputs.teacher_config(config.teacher)
    torch_device(config.fewshot.device)
    for stage, training in ((inputs.BASE, config.pretrain), (inputs.DISTILL, config.distill)):
        inputs.device_argument(training)
        require_own(named(training.folder), stage, flag="--root")
    inputs.require_own_note(config.root)
    require_own(named(config.fewshot.folder), inputs.FEWSHOT, flag="--root", only=_shared_names(config))
    stages = (make_world, build_teacher_cache, pretrain_base, distill_student, evaluate_fewshot)
    return [make(config) for make in stages]


def build_teacher_cache(
    config: RunConfig, *, mend: Callable[[], object] | None = None, mend_with_teacher: bool = False
) -> Completion:
    """Phase 1: embed every ground-truth box of the training split, shard by shard, and project to targets.

    Args:
        config: resolved.
        mend: deletes files at fault from a cache that is there. It is called when that was found to be of these very
            boxes and this teacher, and not before.
        mend_with_teacher: load the teacher first, as what is deleted takes it to compute.

    Raises:
        CacheMismatchError: the folder holds another teacher's embeddings, or those of other boxes.
        TeacherError: the teacher cannot be loaded.
    """
    from mocha_pipe.teacher_cache.building.build import build_cache
    from mocha_pipe.teacher_cache.store.cache import RegionCache
    from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher

    settings, folder, part = config.cache, named(config.cache.folder), config.cache.part_numbers
    source, table = training_regions(config)
    teacher = inputs.teacher_config(config.teacher)
    spec, load = describe_teacher(teacher), partial(load_teacher, teacher)
    if mend:
        RegionCache.open(folder, expect_spec=spec, expect_table=table)
        if mend_with_teacher:
            load = partial(_itself, load())
        mend()

    def work() -> Mapping[str, Any]:
        report = build_cache(
            source, table, folder, spec=spec, load_teacher=load, dim=settings.dim,
            batch=teacher.batch, device=torch_device(teacher.device), reuse=settings.reuse, part=part,
            retry_failed=settings.retry_failed, engine=settings.engine, progress=inputs.is_first_rank(),
        )  # fmt: skip
        inputs.note_teacher(folder, config.teacher)
        digest = None if report.missing_shards else inputs.cache_digest(RegionCache.open(folder))
        return {**asdict(report), "set_aside": len(report.set_aside), "teacher": spec.model, "digest": digest}

    identity = Identity(
        stage=inputs.CACHE, config={"teacher": spec.to_json(), "dim": settings.dim}, inputs={"regions": table.digest}
    )
    # build_cache itself refuses, resumes or adapts what lies in the folder, and it sees a shard that is gone.
    done = run_shared_stage(
        folder, identity, work, again=settings.retry_failed,
        is_whole=lambda: inputs.is_first_rank() and _is_whole(RegionCache.open(folder)),
    )  # fmt: skip
    nothing = dict.fromkeys(("embedded", "reused", "duplicates", "computed_shards"), 0) | {"forecast": None}
    return replace(done, outputs={**done.outputs, **nothing}) if done.skipped else done


def _is_whole(cache: "RegionCache") -> bool:
    """Whether nothing is left to build; a cache whose lists of what was set aside are lost is refused."""
    if not cache.is_complete:
        return False
    cache.require_lists()
    return True


def _itself(teacher: "Teacher") -> "Teacher":
    return teacher


def pretrain_base(config: RunConfig) -> Completion:
    """Stage 1 of the paper: the base detector, trained by its own loss in a plain ultralytics run.

    Raises:
        ConfigError: the data set is a stream.
        StageMismatchError: the folder holds a run with other settings or other data.
    """
    from mocha_pipe.student.training.arguments import find_model
    from mocha_pipe.student.training.pretrain import pretrain

    if config.data.url:
        raise ConfigError(
            f"{config.data.url}: pretraining reads a data set on a disk, not a stream of shards: name one with --data, "
            "or a detector with --student"
        )
    sources = splits(config)
    settings, folder = config.pretrain, named(config.pretrain.folder)
    device = inputs.device_argument(settings)
    model, arguments = find_model(settings.model), inputs.train_arguments(settings)

    def work() -> Mapping[str, Any]:
        result = pretrain(model, sources, folder, {**arguments, **device}, resume=True)
        weights = result.weights.resolve().relative_to(folder.resolve())
        return {"weights": str(weights), "map50_95": inputs.map50_95(result.metrics), "curves": "train/results.csv"}

    digests = {name: source.fingerprint() for name, source in zip(("train", "val"), sources, strict=True)}
    identity = Identity(stage=inputs.BASE, config=arguments, inputs={**digests, **inputs.weights_digest(model)})
    weights = folder / "train" / "weights" / "best.pt"
    return run_stage(folder, identity, work, flag=f"--root, distil from it as it is with --student {weights}")


def distill_student(config: RunConfig) -> Completion:
    """Stage 2 of the paper: the detector learns the cached targets beside its own task.

    The few-shot stage evaluates what completed here last.

    Raises:
        CacheNotFoundError, CacheMismatchError, CacheIncompleteError: no cache of these very boxes.
        StageMismatchError: the folder holds a run with other settings or other inputs.
    """
    from mocha_pipe.pipeline.distillation import distill_from

    inputs.require_own_note(config.root)
    done = distill_from(distill_inputs(config), config, flag="--run")
    inputs.remember_distillation(config.root, done.folder)
    return done


def distill_inputs(config: RunConfig) -> "DistillInputs":
    """What distillations start from; without a named student the base detector, pretrained first where it is missing.

    Raises:
        CacheNotFoundError, CacheMismatchError, CacheIncompleteError: no cache of these very boxes.
    """
    from mocha_pipe.pipeline.distillation import cache_place, open_inputs

    cache = cache_place(config)  # a missing cache should not show after an hour of pretraining
    student = config.distill.student
    return open_inputs(config, cache, str(pretrain_base(config).path("weights")) if student is None else student)


def evaluate_fewshot(config: RunConfig) -> Completion:
    """Stage 3 of the paper: prototypes from a few images of each personal object, student against base detector.

    Raises:
        StageMissingError: no distillation was completed.
        DatasetNotFoundError: there is no benchmark in the named folder.
    """
    from mocha_pipe.pipeline.evaluation.fewshot import evaluate, fewshot_identity

    distilled = config.fewshot.run or inputs.last_distillation(config.root)
    run = read_completion(
        distilled, stage=inputs.DISTILL, command=inputs.DISTILL_COMMAND, outputs=inputs.DISTILL_OUTPUTS
    )
    folder, identity = named(config.fewshot.folder), fewshot_identity(config, run)
    # Evaluating costs seconds, so another question replaces the last answer instead of refusing.
    return run_stage(
        folder, identity, lambda: evaluate(config, run, identity.inputs), flag="--out", replace=True,
        is_whole=lambda: all((folder / name).is_file() for name in _REPORTS), only=_shared_names(config),
    )  # fmt: skip


def _shared_names(config: RunConfig) -> tuple[str, ...]:
    """What the few-shot stage writes, where that lies in the root, beside the folders of other stages."""
    return _REPORTS if named(config.fewshot.folder).resolve() == config.root.resolve() else ()
