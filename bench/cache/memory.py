"""Peak memory of a build beside the bytes of its teacher's weights, on the CPU, in a process of its own.

The weights are random, two gigabytes in float32, in which the CPU computes. They lie on the disk in two ways: in
float32, whose files are mapped and used as they lie, or in bfloat16, as most checkpoints do: then the files, which are
mapped while they are converted, come on top. The system takes them back when it needs the room.
"""

import tempfile
from pathlib import Path

import torch

from bench.figures import Figure
from bench.gpu.pictures import picture_inputs
from bench.runs import in_a_process, memory_status
from bench.teachers.random_llava import Geometry, write_random_llava

IMAGES = 4
_FLOAT32 = 4  # bytes
_MIB = 2**20


def measure(root: Path, *, geometry: Geometry = "2-gigabytes") -> dict[str, Figure]:
    """One build of a few regions with each of the two checkpoints."""
    figures: dict[str, Figure] = {}
    root.mkdir(parents=True, exist_ok=True)
    for kept in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory(dir=root) as name:
            weights = in_a_process("checkpoint", _write, Path(name), geometry, kept)
            before, peak, rows = in_a_process("build", _build, Path(name))
        size = weights * _FLOAT32
        figures["build_peak_memory_vs_weights" + ("" if kept == "float32" else f"_{kept}_files")] = Figure(
            value=peak / size, target=1.5 if kept == "float32" else None, better="lower",
            note=f"{peak / _MIB:.0f} / {size / _MIB:.0f} MiB: whole process of a build of {rows} regions in batches of "
            f"16, {before / _MIB:.0f} MiB of it libraries; weights in float32, {kept} files",
        )  # fmt: skip
    return figures


def _write(folder: Path, geometry: Geometry, kept: str) -> int:
    return write_random_llava(folder / "teacher", geometry, getattr(torch, kept))


def _build(folder: Path) -> tuple[int, int, int]:
    """Memory before the teacher is loaded, the peak at the end, and the regions."""
    from mocha_pipe.teacher_cache.building.build import build_cache
    from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
    from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher

    config = TeacherConfig(model=str(folder / "teacher"), device="cpu")
    spec = describe_teacher(config)
    inputs = picture_inputs(folder / "data", images=IMAGES, side=320)
    before = memory_status("VmRSS")
    report = build_cache(
        inputs.source, inputs.table, folder / "cache", spec=spec, load_teacher=lambda: load_teacher(config)
    )
    assert report.embedded == report.rows
    return before, memory_status("VmHWM"), report.rows
