"""Distillations: what they start from, opened once, and one run from that. A sweep makes many (sweep.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from mocha_pipe.data.packing.remote import RemoteShard
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource, RegionTargets
from mocha_pipe.pipeline.markers import Completion, Identity, is_complete, told_path
from mocha_pipe.pipeline.run.datasets import distill_data, named, seen_in_training
from mocha_pipe.pipeline.run.inputs import (
    BASE,
    DISTILL,
    cache_digest,
    device_argument,
    map50_95,
    train_arguments,
    weights_digest,
)
from mocha_pipe.pipeline.rundir import run_stage
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.student.choices import BEST_OBJECTIVE
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.target_scale import ReferenceTargets
from mocha_pipe.student.distil.trainer import distill
from mocha_pipe.student.fewshot.strangers import STRANGERS_FILE
from mocha_pipe.student.training.arguments import find_model
from mocha_pipe.teacher_cache.errors import CacheNotFoundError, build_command, naming_data
from mocha_pipe.teacher_cache.sharing import mirror
from mocha_pipe.teacher_cache.store.cache import RegionCache

_RARELY_SET = {"target_scale": "whitened", "average": True, "warmup_steps": None}
"""Settings that a run says nothing of where they are as here, so that runs of earlier versions stay complete."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DistillInputs:
    """What distillations start from."""

    model: str
    """Detector to start from."""
    cache: RegionCache
    targets: RegionTargets
    train: DetectionSource
    table: RegionTable
    val: DetectionSource
    shards: Sequence[RemoteShard]
    """Where the training images are streamed from; empty where they lie on a disk."""


def cache_place(config: RunConfig) -> Path:
    """The folder of the cache to learn from; of one behind a URL, a copy of what distillation needs.

    Raises:
        CacheNotFoundError, CacheFormatError, CacheCorruptError, CacheIncompleteError: there is none to learn from.
    """
    folder = named(config.cache.folder)
    if config.cache.url:
        folder = mirror(config.cache.url, config.root / "remote", progress=True)
    elif not folder.exists() and not config.uses_miniature and config.data.path:
        command = build_command(folder, config.data.path)
        raise CacheNotFoundError(f"there is no teacher cache at {folder}; make it with `{command}` and your --teacher")
    return RegionCache.open(folder).path


def open_inputs(config: RunConfig, cache_folder: Path, model: str) -> DistillInputs:
    """Open what distillations of this data set start from.

    Args:
        config: resolved.
        cache_folder: of the teacher cache.
        model: detector to start from, `.pt` or `.yaml`.

    Raises:
        CacheMismatchError, CacheIncompleteError: it is no cache of these very boxes.
        StudentModelError, StudentModelNotFoundError: there is no such detector.
    """
    model = find_model(model)
    train, table, val, shards = distill_data(config)
    if warning := seen_in_training(train, val):
        LOGGER.warning(warning)
    cache = RegionCache.open(cache_folder, expect_table=table)
    with naming_data(config.data.path):
        targets = cache.targets()
    return DistillInputs(model=model, cache=cache, targets=targets, train=train, table=table, val=val, shards=shards)


def distill_from(inputs: DistillInputs, config: RunConfig, *, flag: str) -> Completion:
    """One distillation in `config.distill.folder`.

    Args:
        inputs: what it starts from.
        config: resolved; `[distill]` says how.
        flag: the command-line flag that names another folder, for the error's remedy.

    Raises:
        StageMismatchError: the folder holds a run with other settings or other inputs.
    """
    settings, cache, model = config.distill, inputs.cache, inputs.model
    folder = named(settings.folder)
    recipe: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("features", "objective", "schedule", "detector_rate", "lambda_dist", "lambda_emb")
    }
    if settings.objective == "best":
        recipe["objective"] = BEST_OBJECTIVE
    recipe |= {name: getattr(settings, name) for name, usual in _RARELY_SET.items() if getattr(settings, name) != usual}
    targets = inputs.targets
    if settings.target_scale == "reference":
        targets = ReferenceTargets(targets, cache.projection().eigenvalues[: targets.dim])
    arguments = train_arguments(settings)
    made_from = {"teacher": cache.teacher_digest, "regions": inputs.table.digest, "cache": cache_digest(cache)}
    if cache.spec.rounding:
        made_from["rounding"] = cache.spec.rounding

    def work() -> Mapping[str, Any]:
        result = distill(
            DistillSettings(
                **{name: value for name, value in recipe.items() if name != "target_scale"},
                window=config.data.window,
                train_arguments={**arguments, **device_argument(settings)},
            ),
            model=model, train=inputs.train, val=inputs.val, targets=targets, first_row=inputs.table.first_row,
            run=folder, shards=inputs.shards, resume=True, meta=made_from,
        )  # fmt: skip
        links = {
            "base_run": _base_run(model),
            "base": Path(model) if model.endswith(".pt") else None,
            "cache": cache.path,
        }
        return {
            "student": str(result.folder.resolve().relative_to(folder.resolve())),
            "map50_95": map50_95(result.metrics),
            "curves": "train/results.csv",
            **{name: path and told_path(path, folder=folder, root=config.root) for name, path in links.items()},
        }

    identity = Identity(
        stage=DISTILL,
        config={**recipe, **arguments, **({"window": config.data.window} if inputs.shards else {})},
        inputs={**made_from, "val": inputs.val.fingerprint(), **weights_digest(model)},
    )
    strangers = folder / "student" / STRANGERS_FILE  # written after all others
    return run_stage(folder, identity, work, flag=flag, is_whole=strangers.is_file)


def _base_run(model: str) -> Path | None:
    """The folder of the pretraining that weights come from; None where they are from elsewhere."""
    run = Path(model).resolve().parent.parent.parent
    return run if Path(model).is_file() and is_complete(run, stage=BASE) else None
