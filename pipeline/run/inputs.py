"""What stages make of their settings: arguments of trainer and teacher, and what a run starts from."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mocha_pipe.data.files import bytes_digest, file_digest, write_json
from mocha_pipe.pipeline.errors import ConfigError, StageMismatchError, StageMissingError
from mocha_pipe.pipeline.markers import COMPLETE, read_json
from mocha_pipe.pipeline.run.devices import torch_device, trainer_device
from mocha_pipe.pipeline.settings.sections import TrainingConfig
from mocha_pipe.teacher_cache.teachers.config import TEACHER_NOTE, TeacherConfig

if TYPE_CHECKING:
    from mocha_pipe.teacher_cache.store.cache import RegionCache

WORLD, CACHE, BASE, DISTILL, FEWSHOT = "miniature", "cache", "base", "distill", "fewshot"
VALIDATION, EVALUATION, SWEEP = "validation", "evaluation", "sweep"
"""Names of the stages, and of their folders."""
MINIATURE_TEACHER = "miniature"
LAST_DISTILL = "last-distill.json"
"""Says, below a root, which distillation completed last: what `fewshot` and `personalize` take if none is named."""
DISTILL_COMMAND = "mocha-pipe distill"
DISTILL_OUTPUTS = ("student", "base", "base_run", "cache", "curves", "map50_95")
"""What a completed distillation tells of itself."""
_METRIC = "metrics/mAP50-95(B)"


def teacher_config(teacher: TeacherConfig) -> TeacherConfig:
    """The same teacher on this process's device, the name `miniature` replaced by the folder of the shipped weights.

    Raises:
        ConfigError: its device has no such name, or is not there.
    """
    if teacher.device not in ("", "auto"):
        teacher = replace(teacher, device=torch_device(teacher.device))
    elif "LOCAL_RANK" in os.environ and torch_device("auto") == "cuda":
        teacher = replace(teacher, device=f"cuda:{os.environ['LOCAL_RANK']}")
    if teacher.model != MINIATURE_TEACHER:
        return teacher
    import mocha_pipe.teacher_cache.teachers

    return replace(teacher, model=str(Path(mocha_pipe.teacher_cache.teachers.__path__[0]) / MINIATURE_TEACHER))


def is_first_rank() -> bool:
    """Whether this process speaks for its job; torchrun numbers the processes that it starts."""
    return os.environ.get("RANK", "0") == "0"


def teacher_of_cache(
    cache: "RegionCache", named: str | None, *, device: str = "auto", batch: int = 16
) -> TeacherConfig:
    """How to load the teacher that made a cache: its spec says all but where a local folder lies.

    Args:
        cache: the cache.
        named: hub id or folder; None takes what the build noted, or the spec's own name.
        device: torch device to load it on.
        batch: regions per forward pass.

    Raises:
        ConfigError: the spec holds what a teacher cannot be asked for.
    """
    spec, note = cache.spec, read_json(cache.path / TEACHER_NOTE)
    # Before there were notes, the marker told where the teacher lies.
    model = named or note.get("model") or read_json(cache.path / COMPLETE).get("outputs", {}).get("teacher", spec.model)
    is_folder = Path(teacher_config(TeacherConfig(model=model)).model).is_dir()
    try:
        return TeacherConfig(
            model=model, revision=None if is_folder else spec.revision,
            mode="prompt" if spec.mode == "visual" else spec.mode, prompt=spec.prompt or None,
            layer=spec.layer, crop_margin=spec.crop_margin,
            visual=note.get("visual", spec.visual), dtype=spec.dtype,  # type: ignore[arg-type]
            device=device, batch=batch, max_new_tokens=max(spec.max_new_tokens, 1), num_beams=spec.num_beams,
            sampling_seed=spec.sampling_seed, no_repeat_ngram=spec.no_repeat_ngram, all_beams=spec.all_beams,
        )  # fmt: skip
    except ValidationError as error:
        place, found = error.errors()[0]["loc"][0], error.errors()[0]["input"]
        raise ConfigError(
            f"{cache.path} was made by a teacher with {place} = {found!r}, which this version does not know: use the "
            "version of mocha-pipe that wrote the cache"
        ) from None


def note_teacher(cache: Path, teacher: TeacherConfig) -> None:
    """Write down where a teacher of local folders lies. The note stays on this machine: a cache is shared without."""
    built_in = {"model": MINIATURE_TEACHER, "visual": "tower"}  # words, even where a folder of that name lies here
    places = {name: getattr(teacher, name) for name, word in built_in.items() if getattr(teacher, name) != word}
    folders = {name: Path(place).expanduser().resolve() for name, place in places.items()}
    if note := {name: str(folder) for name, folder in folders.items() if folder.is_dir()}:
        write_json(cache / TEACHER_NOTE, note)


def cache_digest(cache: "RegionCache") -> str:
    """Identity of a cache's targets: teacher, regions and projection."""
    parts = (cache.teacher_digest, cache.table_digest, cache.projection_digest)
    return bytes_digest("\n".join(parts).encode())


def weights_digest(model: str) -> dict[str, str]:
    """Digest of the weights that a run starts from; the name itself where it starts from none."""
    return {"model": file_digest(Path(model)) if Path(model).is_file() else model}


def require_own_note(root: Path) -> None:
    """Refuse a root where the note of the last distillation would take the place of another program's file.

    Raises:
        StageMismatchError: there is such a file.
    """
    path = root / LAST_DISTILL
    if path.exists() and "run" not in read_json(path):
        raise StageMismatchError(f"{path} was not written by mocha-pipe: name another folder with --root")


def remember_distillation(root: Path, folder: Path) -> None:
    """Note a completed distillation."""
    write_json(root / LAST_DISTILL, {"run": os.path.relpath(folder, root)})


def last_distillation(root: Path, instead: str = "its folder with --run") -> Path:
    """Folder of the distillation that completed last under a root.

    Raises:
        StageMissingError: none did; `instead` is what the user may name.
    """
    pointer = read_json(root / LAST_DISTILL)
    if "run" not in pointer:
        raise StageMissingError(f"no distillation was completed under {root}: run {DISTILL_COMMAND}, or name {instead}")
    return root / str(pointer["run"])


def train_arguments(settings: TrainingConfig) -> dict[str, Any]:
    """What ultralytics' trainer is told and what decides the result."""
    own = {"epochs": settings.epochs, "imgsz": settings.image_size, "batch": settings.batch, "seed": settings.seed}
    return {**settings.train, **own}


def device_argument(settings: TrainingConfig) -> dict[str, str]:
    """The trainer's device, apart from the arguments above: it does not decide what is learned.

    Raises:
        ConfigError: that is no name of a device, or this machine has no such device.
    """
    device = trainer_device(settings.device)
    return {"device": device} if device else {}


def map50_95(metrics: Mapping[str, float]) -> float | None:
    """Points, 0 to 100; None where the run did not validate."""
    return round(100 * metrics[_METRIC], 3) if _METRIC in metrics else None
