"""Checks of the machine before a run: each is one line, ok, warn or fail, with the remedy."""

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import write_json
from mocha_pipe.pipeline.run.inputs import teacher_config
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

_GIB = 2**30
_PACKAGES = ("torch", "ultralytics", "transformers", "zarr")


@dataclass(frozen=True, kw_only=True)
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
    checks: list[Callable[[], Check]] = [_python]
    checks += [lambda name=name: _package(name) for name in _PACKAGES]  # type: ignore[misc]
    checks += [_processor, _memory, _accelerator, lambda: _disk(root), lambda: _writable(cache), _telemetry, _teacher]
    return [check() for check in checks]


def _python() -> Check:
    return Check(name="python", status="ok", found=platform.python_version())


def _package(name: str) -> Check:
    try:
        return Check(name=name, status="ok", found=metadata.version(name))
    except metadata.PackageNotFoundError:
        # Phase 2 does without transformers by design: only the teacher needs it.
        status: Literal["warn", "fail"] = "warn" if name == "transformers" else "fail"
        return Check(name=name, status=status, found="not installed", remedy=f"pip install {name}")


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return Check(name="CPU", status="warn", found="1 core", remedy="the demo's duration is for two cores")
    return Check(name="CPU", status="ok", found=f"{cores} cores")


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    except (ValueError, OSError, AttributeError):
        return Check(name="memory", status="warn", found="unknown", remedy="the demo needs about 4 GiB")
    if total < 4:
        return Check(name="memory", status="warn", found=f"{total:.1f} GiB", remedy="the demo needs about 4 GiB")
    return Check(name="memory", status="ok", found=f"{total:.1f} GiB")


def _accelerator() -> Check:
    try:
        import torch
    except ImportError:
        return Check(name="CUDA", status="fail", found="torch does not import", remedy="pip install torch")
    if not torch.cuda.is_available():
        remedy = "the miniature runs without one; a real teacher wants a GPU"
        return Check(name="CUDA", status="warn", found="no device", remedy=remedy)
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check(name="CUDA", status="ok", found=", ".join(names))


def _disk(root: Path) -> Check:
    free = shutil.disk_usage(_existing(root)).free / _GIB
    if free < 1:
        remedy = f"free some space, or name another folder with --root (here: {root})"
        return Check(name="disk", status="fail", found=f"{free:.1f} GiB free", remedy=remedy)
    return Check(name="disk", status="ok", found=f"{free:.0f} GiB free")


def _writable(cache: Path) -> Check:
    folder = _existing(cache)
    probe = folder / f".mocha-pipe-doctor-{os.getpid()}.json"
    try:
        write_json(probe, {})
        probe.unlink()
    except OSError as error:
        remedy = f"make {folder} writable, or name another folder with --cache"
        return Check(name="cache folder", status="fail", found=f"{cache}: {error.strerror}", remedy=remedy)
    return Check(name="cache folder", status="ok", found=f"{cache} can be written")


def _telemetry() -> Check:
    import mocha_pipe.student.environment  # noqa: F401  (sets it for every process that trains)

    if os.environ.get("YOLO_OFFLINE") == "1":
        return Check(name="telemetry", status="ok", found="ultralytics' is off")
    return Check(name="telemetry", status="fail", found="ultralytics' is on", remedy="export YOLO_OFFLINE=1")


def _teacher() -> Check:
    from mocha_pipe.teacher_cache.teachers.loading import load_teacher

    name = "miniature teacher"
    try:
        teacher = load_teacher(teacher_config(TeacherConfig(model="miniature", device="cpu")))
    except (MochaError, ImportError) as error:
        remedy = "install mocha-pipe again: pip install --force-reinstall --no-deps -e ."
        return Check(name=name, status="fail", found=str(error), remedy=remedy)
    return Check(
        name=name, status="ok", found=f"loads, {teacher.spec.hidden_dim} + {teacher.spec.visual_dim} dimensions"
    )


def _existing(folder: Path) -> Path:
    """The nearest ancestor that is there: a check must not make folders."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder
