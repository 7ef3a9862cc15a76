"""What stages make of their settings: arguments of trainer and teacher, and digests of what a run starts from."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import TrainingConfig
from pipeline.errors import ConfigError
from pipeline.rundir import is_complete
from teacher_cache.config import TeacherConfig

if TYPE_CHECKING:
    from teacher_cache.cache import RegionCache

WORLD, CACHE, BASE, DISTILL, FEWSHOT = "miniature", "cache", "base", "distill", "fewshot"
"""Names of the stages, and of their folders under a root."""
MINIATURE_TEACHER = "miniature"
_METRIC = "metrics/mAP50-95(B)"
_OWN_FLAGS = {"epochs": "--epochs", "imgsz": "--imgsz", "batch": "--batch", "seed": "--seed", "device": "--device"}


def teacher_config(teacher: TeacherConfig) -> TeacherConfig:
    """The same teacher with the name `miniature` replaced by the folder of the shipped weights."""
    if teacher.model != MINIATURE_TEACHER:
        return teacher
    import teacher_cache.teachers

    return replace(teacher, model=str(Path(teacher_cache.teachers.__path__[0]) / MINIATURE_TEACHER))


def cache_digest(cache: "RegionCache") -> str:
    """Identity of a cache's targets: teacher, regions and projection."""
    from teacher_cache.cache import PROJECTION_NAME, file_digest

    parts = (cache.spec.digest(), cache.table_digest, file_digest(cache.path / PROJECTION_NAME))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def weights_digest(model: str) -> dict[str, str]:
    """Digest of the weights that a run starts from; the name itself where it starts from none."""
    from teacher_cache.cache import file_digest

    return {"model": file_digest(Path(model)) if Path(model).is_file() else model}


def base_run(model: str) -> str | None:
    """The folder of the pretraining that weights come from; None where they are from elsewhere."""
    run = Path(model).resolve().parents[2] if Path(model).is_file() and len(Path(model).resolve().parents) > 2 else None
    return str(run) if run and is_complete(run, stage=BASE) else None


def train_arguments(settings: TrainingConfig) -> dict[str, Any]:
    """What ultralytics' trainer is told and what decides the result."""
    for name in settings.train:
        if name in _OWN_FLAGS:
            raise ConfigError(f"{name} has a setting of its own: use {_OWN_FLAGS[name]} in place of --set {name}=...")
    own = {"epochs": settings.epochs, "imgsz": settings.image_size, "batch": settings.batch, "seed": settings.seed}
    return {**settings.train, **own}


def device_argument(settings: TrainingConfig) -> dict[str, str]:
    """The trainer's device, apart from the arguments above: it does not decide what is learned."""
    return {"device": settings.device} if settings.device else {}


def torch_device(name: str) -> str:
    """What torch calls a device; CUDA where there is one when the name is empty or `auto`."""
    import torch

    if name in ("", "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{name}" if name.isdigit() else name


def map50_95(metrics: Mapping[str, float]) -> float | None:
    """Points, 0 to 100; None where the run did not validate."""
    return round(100 * metrics[_METRIC], 3) if _METRIC in metrics else None
