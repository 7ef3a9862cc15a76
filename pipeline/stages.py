"""The stages in their order; read this file first.

    make_world            ROOT/miniature   scenes and a personal benchmark, where no data set was named
    build_teacher_cache   ROOT/cache       phase 1: the teacher sees every ground-truth box once
    pretrain_base         ROOT/base        phase 2: the base detector, a plain ultralytics run
    distill_student       ROOT/distill     phase 2: the student learns the cached targets; no teacher is loaded
    evaluate_fewshot      ROOT/fewshot     few-shot episodes, report.json and report.html

A sweep (pipeline/sweep.py) repeats the fourth with other settings, and has a world of its own to measure on:

    make_validation_world ROOT/validation  a second personal benchmark, so that nothing is chosen on the first

Each stage makes what it needs and nobody named, writes its folder, and puts `complete.json` there last. Called again it
skips what is complete and goes on with what is not (pipeline/rundir.py). All of them take a resolved `RunConfig`. The
worlds are made in pipeline/run/datasets.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocha_pipe.data.packing.remote import RemoteShard
from mocha_pipe.data.readers.packed import is_packed
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource, RegionTargets
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.run.datasets import data_path, distill_data, make_world, named, split_digests, training_regions
from mocha_pipe.pipeline.run.inputs import (
    BASE,
    CACHE,
    DISTILL,
    base_run,
    cache_digest,
    device_argument,
    is_first_rank,
    map50_95,
    part_of,
    teacher_config,
    torch_device,
    train_arguments,
    weights_digest,
)
from mocha_pipe.pipeline.run.last import DISTILL_COMMAND, last_distillation, remember_distillation
from mocha_pipe.pipeline.rundir import COMPLETE, Completion, Identity, read_completion, run_stage
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.student.choices import BEST_OBJECTIVE

if TYPE_CHECKING:
    from mocha_pipe.teacher_cache.store.cache import RegionCache


def run_demo(config: RunConfig) -> list[Completion]:
    """Every stage in order on the miniature world; what each did."""
    stages = (make_world, build_teacher_cache, pretrain_base, distill_student, evaluate_fewshot)
    return [stage(config) for stage in stages]


def build_teacher_cache(config: RunConfig) -> Completion:
    """Phase 1: embed every ground-truth box of the training split, shard by shard, and project to targets.

    Raises:
        CacheMismatchError: the folder holds another teacher's embeddings, or those of other boxes.
        TeacherError: the teacher cannot be loaded.
    """
    from mocha_pipe.teacher_cache.building.build import build_cache
    from mocha_pipe.teacher_cache.store.cache import RegionCache
    from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher

    settings = config.cache
    source, table = training_regions(config)
    teacher = teacher_config(config.teacher)
    spec = describe_teacher(teacher)
    folder = named(settings.folder)
    part = part_of(settings.part)

    def work() -> Mapping[str, Any]:
        report = build_cache(
            source, table, folder, spec=spec, load_teacher=partial(load_teacher, teacher), dim=settings.dim,
            batch=teacher.batch, device=torch_device(teacher.device), reuse=settings.reuse, part=part,
            retry_failed=settings.retry_failed, engine=settings.engine, progress=is_first_rank(),
        )  # fmt: skip
        named = Path(config.teacher.model)
        figures = {**asdict(report), "set_aside": len(report.set_aside)}
        digest = None if report.missing_shards else cache_digest(RegionCache.open(folder))
        return {
            **figures,
            "teacher": str(named.resolve()) if named.is_dir() else config.teacher.model,
            "digest": digest,
        }

    identity = Identity(
        stage=CACHE, config={"teacher": spec.to_json(), "dim": settings.dim}, inputs={"regions": table.digest}
    )
    if settings.retry_failed:
        (folder / COMPLETE).unlink(missing_ok=True)
    # build_cache itself refuses, resumes or adapts what lies in the folder, and it sees a shard that is gone.
    return run_stage(
        folder, identity, work, flag="--cache", replace=True,
        is_whole=lambda: is_first_rank() and RegionCache.open(folder).is_complete,
    )  # fmt: skip


def pretrain_base(config: RunConfig) -> Completion:
    """Stage 1 of the paper: the base detector, trained by its own loss in a plain ultralytics run.

    Raises:
        StageMismatchError: the folder holds a run with other settings or other data.
    """
    from mocha_pipe.student.training.pretrain import pretrain
    from mocha_pipe.student.training.starting_model import find_model

    data = data_path(config)
    if config.data.url or data.suffix in (".json", ".tar"):
        what = "shards" if config.data.url or is_packed(data) else "a COCO json"
        raise ConfigError(
            f"{config.data.url or data}: pretraining is a plain ultralytics run and reads a data.yaml, not {what}: "
            "write a data.yaml, or name a detector with --student"
        )
    settings = config.pretrain
    model = find_model(settings.model)
    folder = named(settings.folder)
    arguments = train_arguments(settings)

    def work() -> Mapping[str, Any]:
        result = pretrain(model, data, folder, {**arguments, **device_argument(settings)}, resume=True)
        weights = result.weights.resolve().relative_to(folder.resolve())
        return {"weights": str(weights), "map50_95": map50_95(result.metrics), "curves": "train/results.csv"}

    identity = Identity(
        stage=BASE,
        config=arguments,
        inputs={**split_digests(config), **weights_digest(model)},
    )
    weights = folder / "train" / "weights" / "best.pt"
    return run_stage(folder, identity, work, flag=f"--root, distil from it as it is with --student {weights}")


def distill_student(config: RunConfig) -> Completion:
    """Stage 2 of the paper: the detector learns the cached targets beside its own task.

    Without a named student it starts from the base detector, which is pretrained first where that was not done. The
    few-shot stage evaluates what completed here last.

    Raises:
        CacheNotFoundError, CacheMismatchError, CacheIncompleteError: no cache of these very boxes.
        StageMismatchError: the folder holds a run with other settings or other inputs.
    """
    done = distill_from(distill_inputs(config), config, flag="--run")
    remember_distillation(config.root, done.folder)
    return done


@dataclass(frozen=True, kw_only=True, eq=False)
class DistillInputs:
    """What distillations start from, opened once, however many there are."""

    model: str
    """Detector to start from."""
    cache: "RegionCache"
    targets: RegionTargets
    train: DetectionSource
    table: RegionTable
    val: DetectionSource
    shards: Sequence[RemoteShard]
    """Where the training images are streamed from; empty where they lie on a disk."""


def distill_inputs(config: RunConfig) -> DistillInputs:
    """Open data and cache, and find the detector to start from; the base detector is pretrained where that is missing.

    Raises:
        CacheNotFoundError, CacheMismatchError, CacheIncompleteError: no cache of these very boxes.
    """
    from mocha_pipe.student.training.starting_model import find_model
    from mocha_pipe.teacher_cache.sharing import mirror
    from mocha_pipe.teacher_cache.store.cache import RegionCache

    data_path(config)
    cache_folder = named(config.cache.folder)
    if config.cache.url:
        cache_folder = mirror(config.cache.url, config.root / "remote", progress=True)
    RegionCache.open(cache_folder)  # a missing cache should not show after an hour of pretraining
    student = config.distill.student
    base = pretrain_base(config) if student is None else None
    model = find_model(str(base.folder / base.outputs["weights"]) if base else str(student))
    train, table, val, shards = distill_data(config)
    cache = RegionCache.open(cache_folder, expect_table=table)
    return DistillInputs(
        model=model, cache=cache, targets=cache.targets(), train=train, table=table, val=val, shards=shards
    )


def distill_from(inputs: DistillInputs, config: RunConfig, *, flag: str) -> Completion:
    """One distillation in `config.distill.folder`; `flag` is the one that names another folder.

    Raises:
        StageMismatchError: the folder holds a run with other settings or other inputs.
    """
    from mocha_pipe.student.distil.settings import DistillSettings
    from mocha_pipe.student.distil.trainer import distill
    from mocha_pipe.student.fewshot.strangers import STRANGERS_FILE

    settings, cache, model = config.distill, inputs.cache, inputs.model
    objective = BEST_OBJECTIVE if settings.objective == "best" else settings.objective
    folder = named(settings.folder)
    arguments = train_arguments(settings)
    made_from = {"teacher": cache.spec.digest(), "regions": inputs.table.digest, "cache": cache_digest(cache)}

    def work() -> Mapping[str, Any]:
        result = distill(
            DistillSettings(
                features=settings.features, lambda_dist=settings.lambda_dist, lambda_emb=settings.lambda_emb,
                objective=objective, schedule=settings.schedule, window=config.data.window,
                train_arguments={**arguments, **device_argument(settings)},
            ),
            model=model, train=inputs.train, val=inputs.val, targets=inputs.targets, first_row=inputs.table.first_row,
            run=folder, shards=inputs.shards, resume=True, meta=made_from,
        )  # fmt: skip
        return {
            "student": str(result.folder.resolve().relative_to(folder.resolve())),
            "map50_95": map50_95(result.metrics),
            "curves": "train/results.csv",
            "base_run": base_run(model),
            "base": model if model.endswith(".pt") else None,
            "cache": str(cache.path.resolve()),
        }

    names = ("features", "schedule", "lambda_dist", "lambda_emb")
    losses = {"objective": objective, **{name: getattr(settings, name) for name in names}}
    identity = Identity(
        stage=DISTILL,
        config={**losses, **arguments, **({"window": config.data.window} if inputs.shards else {})},
        inputs={**made_from, "val": inputs.val.fingerprint(), **weights_digest(model)},
    )
    return run_stage(
        folder, identity, work, flag=flag,
        is_whole=lambda: (folder / "student" / STRANGERS_FILE).is_file(),  # written after all others
    )  # fmt: skip


def evaluate_fewshot(config: RunConfig) -> Completion:
    """Stage 3 of the paper: prototypes from a few images of each personal object, student against base detector.

    Raises:
        StageMissingError: no distillation was completed.
        DatasetNotFoundError: there is no benchmark in the named folder.
    """
    from mocha_pipe.pipeline.evaluation.fewshot import evaluate, fewshot_identity

    run = read_completion(config.fewshot.run or last_distillation(config.root), stage=DISTILL, command=DISTILL_COMMAND)
    folder = named(config.fewshot.folder)
    # Evaluating costs seconds, so another question replaces the last answer instead of refusing.
    identity = fewshot_identity(config, run)
    return run_stage(
        folder, identity, lambda: evaluate(config, run, identity.inputs), flag="--out", replace=True,
        is_whole=lambda: all((folder / name).is_file() for name in ("report.json", "report.html")),
    )  # fmt: skip
