"""The stages in their order; read this file first.

    make_world            ROOT/miniature   scenes and a personal benchmark, where no data set was named
    build_teacher_cache   ROOT/cache       phase 1: the teacher sees every ground-truth box once
    pretrain_base         ROOT/base        phase 2: the base detector, a plain ultralytics run
    distill_student       ROOT/distill     phase 2: the student learns the cached targets; no teacher is loaded
    evaluate_fewshot      ROOT/fewshot     few-shot episodes, report.json and report.html

Each stage makes what it needs and nobody named, writes its folder, and puts `complete.json` there last. Called again it
skips what is complete and goes on with what is not (pipeline/rundir.py). All of them take a resolved `RunConfig`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from data.errors import DatasetError
from data.files import exclusive, write_json
from data.miniature import make_miniature
from data.readers import is_packed, read_place
from data.regions import RegionTable
from data.remote import RemoteShard, copy_split, open_shards
from data.source import open_source
from data.types import DetectionSource
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, StageMissingError
from pipeline.inputs import (
    BASE,
    CACHE,
    DISTILL,
    WORLD,
    base_run,
    cache_digest,
    device_argument,
    is_first_rank,
    map50_95,
    part_of,
    remote_copy,
    teacher_config,
    torch_device,
    train_arguments,
    weights_digest,
)
from pipeline.rundir import BEGUN, COMPLETE, Completion, Identity, read_completion, read_json, run_stage

LAST_DISTILL = "last-distill.json"
_WORLD_ENTRIES = {"images", "labels", "data.yaml", "benchmark", BEGUN, COMPLETE}


def run_demo(config: RunConfig) -> list[Completion]:
    """Every stage in order on the miniature world; what each did."""
    stages = (make_world, build_teacher_cache, pretrain_base, distill_student, evaluate_fewshot)
    return [stage(config) for stage in stages]


def make_world(config: RunConfig) -> Completion:
    """Write the miniature world: a detection data set in YOLO layout, and its personal benchmark beside it.

    Raises:
        DatasetError: the folder holds something else.
        StageMismatchError: it holds a world of another size or seed.
    """
    folder = config.miniature_folder
    with exclusive(folder.with_name(f".{folder.name}.lock")):  # the processes of one job all start here
        return _make_world(config, folder)


def _make_world(config: RunConfig, folder: Path) -> Completion:
    strangers = sorted({entry.name for entry in folder.iterdir()} - _WORLD_ENTRIES) if folder.is_dir() else []
    if strangers:
        raise DatasetError(
            f"{folder} holds something else than a miniature world ({strangers[0]}): name an empty or new folder"
        )
    settings = {"size": asdict(config.miniature.size), "seed": config.miniature.seed}

    def work() -> Mapping[str, Any]:
        make_miniature(folder, config.miniature.size, seed=config.miniature.seed)
        return {"data": "data.yaml", "benchmark": "benchmark"}

    return run_stage(folder, Identity(stage=WORLD, config=settings, inputs={}), work, flag="--root")


def build_teacher_cache(config: RunConfig) -> Completion:
    """Phase 1: embed every ground-truth box of the training split, shard by shard, and project to targets.

    Raises:
        CacheMismatchError: the folder holds another teacher's embeddings, or those of other boxes.
        TeacherError: the teacher cannot be loaded.
    """
    from teacher_cache.build import build_cache
    from teacher_cache.cache import RegionCache
    from teacher_cache.teachers.base import describe_teacher, load_teacher

    settings = config.cache
    source, table = training_regions(config)
    teacher = teacher_config(config.teacher)
    spec = describe_teacher(teacher)
    folder = _named(settings.folder)
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
    from student.pretrain import find_model, pretrain

    data = _data(config)
    if config.data.url or data.suffix in (".json", ".tar"):
        what = "shards" if config.data.url or is_packed(data) else "a COCO json"
        raise ConfigError(
            f"{config.data.url or data}: pretraining is a plain ultralytics run and reads a data.yaml, not {what}: "
            "write a data.yaml, or name a detector with --student"
        )
    settings = config.pretrain
    model = find_model(settings.model)
    folder = _named(settings.folder)
    arguments = train_arguments(settings)

    def work() -> Mapping[str, Any]:
        result = pretrain(model, data, folder, {**arguments, **device_argument(settings)}, resume=True)
        weights = result.weights.resolve().relative_to(folder.resolve())
        return {"weights": str(weights), "map50_95": map50_95(result.metrics), "curves": "train/results.csv"}

    identity = Identity(
        stage=BASE,
        config=arguments,
        inputs={**_split_digests(config), **weights_digest(model)},
    )
    weights = folder / "train" / "weights" / "best.pt"
    return run_stage(folder, identity, work, flag=f"--root, distil from it as it is with --student {weights}")


def distill_student(config: RunConfig) -> Completion:
    """Stage 2 of the paper: the detector learns the cached targets beside its own task.

    Without a named student it starts from the base detector, which is pretrained first where that was not done.

    Raises:
        CacheNotFoundError, CacheMismatchError, CacheIncompleteError: no cache of these very boxes.
        StageMismatchError: the folder holds a run with other settings or other inputs.
    """
    from student.pretrain import find_model
    from student.trainer import DistillSettings, distill
    from teacher_cache.cache import RegionCache
    from teacher_cache.sharing import mirror

    settings = config.distill
    _data(config)
    cache_folder = _named(config.cache.folder)
    if config.cache.url:
        cache_folder = mirror(config.cache.url, config.root / "remote", progress=True)
    RegionCache.open(cache_folder)  # a missing cache should not show after an hour of pretraining
    base = pretrain_base(config) if settings.student is None else None
    model = find_model(str(base.folder / base.outputs["weights"]) if base else str(settings.student))
    train, table, val, shards = _distill_data(config)
    cache = RegionCache.open(cache_folder, expect_table=table)
    targets = cache.targets()
    folder = _named(settings.folder)
    arguments = train_arguments(settings)
    made_from = {"teacher": cache.spec.digest(), "regions": table.digest, "cache": cache_digest(cache)}

    def work() -> Mapping[str, Any]:
        result = distill(
            DistillSettings(
                levels=settings.levels, lambda_dist=settings.lambda_dist, lambda_emb=settings.lambda_emb,
                objective=settings.objective, window=config.data.window,
                train_arguments={**arguments, **device_argument(settings)},
            ),
            model=model, train=train, val=val, targets=targets, first_row=table.first_row, run=folder, shards=shards,
            resume=True, meta=made_from,
        )  # fmt: skip
        return {
            "student": str(result.folder.resolve().relative_to(folder.resolve())),
            "map50_95": map50_95(result.metrics),
            "curves": "train/results.csv",
            "base_run": base_run(model),
            "base": model if model.endswith(".pt") else None,
            "cache": str(cache_folder.resolve()),
        }

    losses = {name: getattr(settings, name) for name in ("levels", "objective", "lambda_dist", "lambda_emb")}
    identity = Identity(
        stage=DISTILL,
        config={**losses, **arguments, **({"window": config.data.window} if shards else {})},
        inputs={**made_from, "val": val.fingerprint(), **weights_digest(model)},
    )
    done = run_stage(folder, identity, work, flag="--run")
    write_json(config.root / LAST_DISTILL, {"run": os.path.relpath(folder, config.root)})
    return done


def evaluate_fewshot(config: RunConfig) -> Completion:
    """Stage 3 of the paper: prototypes from a few images of each personal object, student against base detector.

    Raises:
        StageMissingError: no distillation was completed.
        DatasetNotFoundError: there is no benchmark in the named folder.
    """
    from pipeline.fewshot import evaluate, fewshot_identity

    run = read_completion(config.fewshot.run or last_distillation(config.root), stage=DISTILL, command=_DISTILL_COMMAND)
    folder = _named(config.fewshot.folder)
    # Evaluating costs seconds, so another question replaces the last answer instead of refusing.
    return run_stage(
        folder, fewshot_identity(config, run), lambda: evaluate(config, run), flag="--out", replace=True,
        is_whole=lambda: all((folder / name).is_file() for name in ("report.json", "report.html")),
    )  # fmt: skip


_DISTILL_COMMAND = "mocha-pipe distill"


def last_distillation(root: Path) -> Path:
    """Folder of the distillation that completed last under a root.

    Raises:
        StageMissingError: none did.
    """
    pointer = read_json(root / LAST_DISTILL)
    if "run" not in pointer:
        raise StageMissingError(
            f"no distillation was completed under {root}: run {_DISTILL_COMMAND}, or name its folder with --run"
        )
    return root / str(pointer["run"])


def _data(config: RunConfig) -> Path:
    """The data set; the miniature world is made where it is wanted and not there."""
    if config.uses_miniature:
        make_world(config)
    return _named(config.data.path)


def training_regions(config: RunConfig) -> tuple[DetectionSource, RegionTable]:
    """The training split and its region table; an image that cannot be decoded keeps its place in both."""
    data = _data(config)
    if is_packed(data):
        read_place(data).check_split(config.data.train)
    source = open_source(data, config.data.train, keep_unreadable=True, progress=is_first_rank())
    return source, RegionTable.build(source, progress=is_first_rank())


def _distill_data(
    config: RunConfig,
) -> tuple[DetectionSource, RegionTable, DetectionSource, Sequence[RemoteShard]]:
    """Training images, their regions, validation images, and the shards to stream the training images from, if any."""
    if not config.data.url:
        train, table = training_regions(config)
        return train, table, open_source(_data(config), config.data.val, keep_unreadable=True, progress=True), ()
    copy = remote_copy(config)
    remote = open_shards(config.data.url, copy, config.data.train)
    val = copy_split(config.data.url, copy, config.data.val, progress=True)
    return remote.source, remote.table, open_source(val, config.data.val, keep_unreadable=True), remote.shards


def _split_digests(config: RunConfig) -> dict[str, str]:
    data = _named(config.data.path)
    splits = {"train": config.data.train, "val": config.data.val}
    return {name: open_source(data, split, progress=True).fingerprint() for name, split in splits.items()}


def _named(path: Path | None) -> Path:
    assert path is not None, "the configuration is resolved"
    return path
