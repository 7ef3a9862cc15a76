"""What stages make of their settings: arguments of trainer and teacher, and digests of what a run starts from."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocha_pipe.data.files import file_digest
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.rundir import COMPLETE, is_complete, read_json
from mocha_pipe.pipeline.settings.sections import RunConfig, TrainingConfig
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

if TYPE_CHECKING:
    from mocha_pipe.teacher_cache.store.cache import RegionCache

WORLD, CACHE, BASE, DISTILL, FEWSHOT = "miniature", "cache", "base", "distill", "fewshot"
VALIDATION, EVALUATION = "validation", "evaluation"
"""Names of the stages, and of their folders."""
MINIATURE_TEACHER = "miniature"
_METRIC = "metrics/mAP50-95(B)"
_OWN_FLAGS = {"epochs": "--epochs", "imgsz": "--imgsz", "batch": "--batch", "seed": "--seed", "device": "--device"}


def teacher_config(teacher: TeacherConfig) -> TeacherConfig:
    """The same teacher on this process's device, the name `miniature` replaced by the folder of the shipped weights."""
    if teacher.device == "auto" and "LOCAL_RANK" in os.environ and torch_device("auto") == "cuda":
        teacher = replace(teacher, device=f"cuda:{os.environ['LOCAL_RANK']}")
    if teacher.model != MINIATURE_TEACHER:
        return teacher
    import mocha_pipe.teacher_cache.teachers

    return replace(teacher, model=str(Path(mocha_pipe.teacher_cache.teachers.__path__[0]) / MINIATURE_TEACHER))


def is_first_rank() -> bool:
    """Whether this process speaks for its job; torchrun numbers the processes that it starts."""
    return os.environ.get("RANK", "0") == "0"


def part_of(text: str | None) -> tuple[int, int] | None:
    """Index and count of `2/8`.

    Raises:
        ConfigError: it is something else.
    """
    if text is None:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(
            f"a part is INDEX/COUNT, counted from 0; found {text!r}: write --part 0/8 to --part 7/8 for eight parts"
        )
    return int(index), int(count)


def teacher_of_cache(
    cache: "RegionCache", named: str | None, *, device: str = "auto", batch: int = 16
) -> TeacherConfig:
    """How to load the teacher that made a cache: its spec says all but where a local folder lies.

    Args:
        cache: the cache.
        named: hub id or folder; None takes what the build noted, or the spec's own name.
        device: torch device to load it on.
        batch: regions per forward pass.
    """
    spec = cache.spec
    model = named or read_json(cache.path / COMPLETE).get("outputs", {}).get("teacher", spec.model)
    is_folder = Path(teacher_config(TeacherConfig(model=model)).model).is_dir()
    return TeacherConfig(
        model=model, revision=None if is_folder else spec.revision, mode=spec.mode, prompt=spec.prompt,
        layer=spec.layer, crop_margin=spec.crop_margin, visual=spec.visual, dtype=spec.dtype,  # type: ignore[arg-type]
        device=device, batch=batch, max_new_tokens=max(spec.max_new_tokens, 1), num_beams=spec.num_beams,
    )  # fmt: skip


def cache_digest(cache: "RegionCache") -> str:
    """Identity of a cache's targets: teacher, regions and projection."""
    parts = (cache.spec.digest(), cache.table_digest, cache.projection_digest)
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def weights_digest(model: str) -> dict[str, str]:
    """Digest of the weights that a run starts from; the name itself where it starts from none."""
    return {"model": file_digest(Path(model)) if Path(model).is_file() else model}


def remote_copy(config: RunConfig) -> Path:
    """Where that lies which is copied of a data set behind a URL."""
    folder = config.data.url.rpartition("/")[0]
    return config.root / "remote" / f"data-{hashlib.blake2b(folder.encode(), digest_size=8).hexdigest()}"


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
