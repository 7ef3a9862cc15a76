"""`python -m bench.gpu`: both phases on a CUDA GPU with random weights. `make bench-gpu`.

    teacher     phase 1 at the size of LLaVA-1.5-7B and of Qwen3-VL-8B (teacher.py)
    training    phase 2 at 640 px, against ultralytics (training.py)

Each prints markdown for docs/benchmarks.md and adds its figures to ROOT/bench-gpu.json. Both together are made to fit
into ten minutes on one H100.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer

from bench.figures import Figure, Figures, exit_code, keep
from bench.gpu import teacher as gpu_teacher
from bench.gpu import training as gpu_training
from bench.gpu.device import device_name
from bench.gpu.teacher import GEOMETRIES, LARGE, TeacherSettings
from bench.gpu.training import Pair
from bench.gpu.watched_steps import Window
from mocha_pipe.data.files import write_json
from mocha_pipe.pipeline.markers import read_json

MOST_SECONDS = 600
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, kw_only=True)
class Place:
    """The device that is measured, and where its figures are kept."""

    device: str
    root: Path
    out: Path

    def keep(self, phase: str, figures: Figures, **facts: Any) -> None:
        """Add figures to the file, and what the phase ran on."""
        devices = {**read_json(self.out).get("devices", {}), phase: {"name": device_name(self.device), **facts}}
        keep(self.out, figures)
        write_json(self.out, {**read_json(self.out), "devices": devices})


@app.callback(invoke_without_command=True)
def bench_gpu(
    context: typer.Context,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cuda",
    root: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("work"),
    out: Annotated[Path | None, typer.Option(help="File of the figures [default: ROOT/bench-gpu.json].")] = None,
) -> None:
    """Measure both phases, or the one that is named."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter(f"--device {device}: torch finds no CUDA GPU; name another device, such as cpu")
    context.obj = Place(device=device, root=root, out=out or root / "bench-gpu.json")
    if context.invoked_subcommand is None:
        started = perf_counter()
        training(context)
        met = [_teach(context.obj, TeacherSettings(geometry=geometry, device=device)) for geometry in LARGE]
        seconds = perf_counter() - started
        took = Figure(value=seconds, target=MOST_SECONDS, better="lower", note="both phases, start to end")
        keep(context.obj.out, {"gpu_bench_s": took})
        typer.echo(f"Both phases took {seconds:.0f} s (aim: {MOST_SECONDS} s).")
        sys.exit(0 if all(met) and took.is_met else 1)


@app.command()
def teacher(
    context: typer.Context,
    geometry: Annotated[str, typer.Option(help=f"{' or '.join(GEOMETRIES)}.")] = LARGE[0],
    batch: Annotated[int, typer.Option(min=1, help="Regions per forward pass in prompt mode.")] = TeacherSettings.batch,
    generate_batch: Annotated[
        int, typer.Option(min=1, help="Regions per batch in generate mode.")
    ] = TeacherSettings.generate_batch,
    tokens: Annotated[int, typer.Option(min=1, help="Length of an answer.")] = TeacherSettings.tokens,
    batches: Annotated[int, typer.Option(min=1, help="Timed batches in prompt mode.")] = TeacherSettings.batches,
    loop_boxes: Annotated[
        int, typer.Option(min=1, help="Boxes that the loop is timed on.")
    ] = TeacherSettings.loop_boxes,
    matmul_side: Annotated[int, typer.Option(min=1, help="Side of the product.")] = TeacherSettings.matmul_side,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the teacher in prompt mode.")] = False,
) -> None:
    """Embed regions; exit code 1 when a target is missed."""
    if geometry not in GEOMETRIES:
        raise typer.BadParameter(f"--geometry is one of {', '.join(GEOMETRIES)}; found {geometry}")
    place: Place = context.obj
    settings = TeacherSettings(
        geometry=geometry,  # type: ignore[arg-type]
        device=place.device, batch=batch, generate_batch=generate_batch, tokens=tokens, batches=batches,
        loop_boxes=loop_boxes, matmul_side=matmul_side, compiled=compiled,
    )  # fmt: skip
    sys.exit(0 if _teach(place, settings) else 1)


def _teach(place: Place, settings: TeacherSettings) -> bool:
    """Measure one teacher, print and keep; whether its targets were met."""
    result = gpu_teacher.measure(settings)
    found = gpu_teacher.figures(result, settings)
    facts = {"matmul_flops_per_s": result.matmul, "peak_bytes": result.peak_bytes}
    place.keep("teacher" if settings.geometry == LARGE[0] else f"teacher {settings.geometry}", found, **facts)
    typer.echo(gpu_teacher.markdown(result, settings, device_name(place.device)))
    return exit_code(found) == 0


@app.command()
def training(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Student and teacher, as yolov8n.yaml:yolov8s.yaml [default: v8]."),
    ] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Pixels of an image's longer side.")] = 640,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.")] = 16,
    workers: Annotated[int, typer.Option(min=0, help="Of the loader, at most one per core.")] = 16,
    warm_up: Annotated[int, typer.Option(min=1, help="Steps before the first that is timed.")] = 40,
    timed: Annotated[int, typer.Option(min=1, help="Timed steps.")] = 80,
    profiled: Annotated[int, typer.Option(min=1, help="Steps under the profiler.")] = 10,
) -> None:
    """Train detectors: plain, with ultralytics' own distillation, and with ours."""
    place: Place = context.obj
    settings = gpu_training.TrainingSettings(
        pairs=[_pair(text) for text in model] if model else gpu_training.PAIRS,
        device=place.device, image_size=image_size, batch=batch, workers=workers,
        window=Window(warm_up=warm_up, timed=timed, profiled=profiled),
    )  # fmt: skip
    runs = gpu_training.measure(place.root, settings)
    place.keep("training", gpu_training.figures(runs, settings))
    typer.echo(gpu_training.markdown(runs, settings, device_name(place.device)))


def _pair(text: str) -> Pair:
    student, _, teacher = text.partition(":")
    if not (student and teacher):
        raise typer.BadParameter(f"--model names a student and its teacher, as a.yaml:b.yaml; found {text}")
    return Pair(student, teacher)


if __name__ == "__main__":
    app()
