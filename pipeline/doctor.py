"""Checks of the machine before a run: each is one line, ok, warn or fail, with the remedy."""

import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import write_json
from mocha_pipe.pipeline.run.inputs import MINIATURE_TEACHER, teacher_config
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

_GIB = 2**30
_PACKAGES = ("torch", "ultralytics", "transformers", "zarr")


@dataclass(frozen=True)
class Check:
    """One line of the doctor."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""
    """What to do; empty when ok."""


def examine(root: Path, cache: Path) -> list[Check]:
    """Run every check.

    Args:
        root: the folder that runs write to.
        cache: the folder of the teacher cache.
    """
    packages = [_package(name) for name in _PACKAGES]
    machine = [_processor(), _memory(), _accelerator(), _disk(root), _writable(cache)]
    return [Check("python", "ok", platform.python_version()), *packages, *machine, _telemetry(), _teacher()]


def _package(name: str) -> Check:
    try:
        return Check(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        # Phase 2 does without transformers by design: only the teacher needs it.
        return Check(name, "warn" if name == "transformers" else "fail", "not installed", f"pip install {name}")


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return Check("CPU", "warn", "1 core", "the demo's duration is for two cores")
    return Check("CPU", "ok", f"{cores} cores")


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    except (ValueError, OSError, AttributeError):
        return Check("memory", "warn", "unknown", "the demo needs about 4 GiB")
    if total < 4:
        return Check("memory", "warn", f"{total:.1f} GiB", "the demo needs about 4 GiB")
    return Check("memory", "ok", f"{total:.1f} GiB")


def _accelerator() -> Check:
    try:
        import torch
    except ImportError:
        return Check("CUDA", "fail", "torch does not import", "pip install torch")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not names:
        return Check("CUDA", "warn", "no device", "the miniature runs without one; a real teacher wants a GPU")
    return Check("CUDA", "ok", ", ".join(names))


def _disk(root: Path) -> Check:
    free = shutil.disk_usage(_existing(root)).free / _GIB
    if free < 1:
        remedy = f"free some space, or name another folder with --root (here: {root})"
        return Check("disk", "fail", f"{free:.1f} GiB free", remedy)
    return Check("disk", "ok", f"{free:.0f} GiB free")


def _writable(cache: Path) -> Check:
    folder = _existing(cache)
    probe = folder / f".mocha-pipe-doctor-{os.getpid()}.json"
    try:
        write_json(probe, {})
        probe.unlink()
    except OSError as error:
        remedy = f"make {folder} writable, or name another folder with --cache"
        return Check("cache folder", "fail", f"{cache}: {error.strerror}", remedy)
    return Check("cache folder", "ok", f"{cache} can be written")


def _telemetry() -> Check:
    import mocha_pipe.student.environment  # noqa: F401  (sets it for every process that trains)

    if os.environ.get("YOLO_OFFLINE") == "1":
        return Check("telemetry", "ok", "ultralytics' is off")
    return Check("telemetry", "fail", "ultralytics' is on", "export YOLO_OFFLINE=1")


def _teacher() -> Check:
    from mocha_pipe.teacher_cache.teachers.loading import load_teacher

    name = "miniature teacher"
    try:
        spec = load_teacher(teacher_config(TeacherConfig(model=MINIATURE_TEACHER, device="cpu"))).spec
    except (MochaError, ImportError) as error:
        remedy = "install mocha-pipe again: pip install --force-reinstall --no-deps -e ."
        return Check(name, "fail", str(error), remedy)
    return Check(name, "ok", f"loads, {spec.hidden_dim} + {spec.visual_dim} dimensions")


def _existing(folder: Path) -> Path:
    """The nearest ancestor that is there: a check must not make folders."""
    folder = folder.resolve()
    return next(place for place in (folder, *folder.parents) if place.exists())
