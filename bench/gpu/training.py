"""Phase 2 on a GPU: what a training step costs, how much memory it takes, and how long the device stands idle.

    plain           ultralytics' own trainer
    distill_model   its own distillation: a larger detector looks at every batch
    ours            distillation of cached targets, 512 wide

Each run is a process of its own with the same random weights, images and arguments; JPEGs of noise are decoded and
augmented by the loader as in any training. How the steps are timed stands in watched_steps.py.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from bench.figures import Figure
from bench.gpu.pictures import picture_inputs
from bench.gpu.watched_steps import StepWatch, TrainingRun, Window
from bench.inputs import BenchInputs
from bench.runs import in_a_process, make_trainer
from bench.synthetic import synthetic_cache
from mocha_pipe.teacher_cache.store.cache import RegionCache

Kind = Literal["plain", "distill_model", "ours"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TITLES: Mapping[Kind, str] = {"plain": "plain", "distill_model": "ultralytics' `distill_model`", "ours": "ours"}
TARGET_DIM = 512


@dataclass(frozen=True)
class Pair:
    """A detector to train, and the one that ultralytics' distillation lets it learn from."""

    student: str
    teacher: str
    """Both names or files of models that start from random weights."""

    @property
    def name(self) -> str:
        """Of the student, without its suffix."""
        return Path(self.student).stem


PAIRS = (Pair("yolov8n.yaml", "yolov8s.yaml"),)
"""What is trained unless others are named; each takes three trainings, about two minutes on an H100."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What is trained, and for how many steps."""

    pairs: Sequence[Pair]
    device: str
    image_size: int
    batch: int
    workers: int
    """Of the loader; ultralytics takes no more than there are cores."""
    window: Window


Runs = Mapping[Pair, Mapping[Kind, TrainingRun]]


def measure(root: Path, settings: TrainingSettings) -> Runs:
    """One run after the other, on a data set and a cache that are written once and deleted at the end."""
    folder = root / "bench-gpu-training"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        inputs = picture_inputs(
            folder / "data", images=settings.window.steps * settings.batch, side=settings.image_size
        )
        # Widths of what the targets were made from do not matter: training opens the targets alone.
        synthetic_cache(folder / "cache", inputs.table, hidden_dim=8, visual_dim=8, dim=TARGET_DIM)
        runs: dict[Pair, dict[Kind, TrainingRun]] = {pair: {} for pair in settings.pairs}
        for pair, kind in product(settings.pairs, KINDS):
            what = f"{pair.name} {kind}"
            runs[pair][kind] = in_a_process(what, _train, kind, pair, inputs, folder, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return runs


def _train(kind: Kind, pair: Pair, inputs: BenchInputs, folder: Path, settings: TrainingSettings) -> TrainingRun:
    from mocha_pipe.student.training.resumable import quiet_ultralytics

    targets = RegionCache.open(folder / "cache").targets() if kind == "ours" else None
    more: dict[str, Any] = (
        {"distill_model": str(_random_teacher(pair.teacher, folder))} if kind == "distill_model" else {}
    )
    trainer = make_trainer(
        inputs, targets, folder, name=f"{pair.name}-{kind}", model=pair.student, image_size=settings.image_size,
        batch=settings.batch, steps=settings.window.steps, device=settings.device, workers=settings.workers, **more,
    )  # fmt: skip
    watch = StepWatch(trainer, settings.window)
    with quiet_ultralytics():
        trainer.train()
    return watch.result(folder / "trace.json")


def _random_teacher(model: str, folder: Path) -> Path:
    """A checkpoint of random weights, as ultralytics wants its teacher."""
    import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

    # isort: split

    from ultralytics import YOLO

    path = folder / f"{Path(model).stem}-teacher.pt"
    YOLO(model).save(path)
    return path


def figures(runs: Runs, settings: TrainingSettings) -> dict[str, Figure]:
    """The measured; nothing has a target, and what needs a GPU is left out where there is none."""
    found: dict[str, Figure] = {}
    what = f"{settings.image_size} px, batch {settings.batch}, {settings.device}"
    for pair, kinds in runs.items():
        for kind, run in kinds.items():
            name, note = f"gpu_{pair.name}_{kind}", f"{_title(kind, pair)}; {what}"
            found[f"{name}_images_per_s"] = Figure(value=settings.batch / run.mean, better="higher", note=note)
            if run.peak_bytes is not None:
                found[f"{name}_peak_mib"] = Figure(value=run.peak_bytes / 2**20, better="lower", note=note)
            if run.idle is not None:
                found[f"{name}_idle_share"] = Figure(value=run.idle, better="lower", note=note)
            if kind != "plain":
                found[f"{name}_step_vs_plain"] = Figure(
                    value=run.step / kinds["plain"].step, better="lower",
                    note=f"{1e3 * run.step:.0f} ms / {1e3 * kinds['plain'].step:.0f} ms a step; {note}",
                )  # fmt: skip
    return found


def markdown(runs: Runs, settings: TrainingSettings, device_name: str) -> str:
    """The table for docs/benchmarks.md."""
    window = settings.window
    mixed = all(run.mixed for kinds in runs.values() for run in kinds.values())
    rows = [
        f"| {pair.name} | {_title(kind, pair)} | {settings.batch / run.mean:.0f} | {1e3 * run.step:.1f} ms "
        f"| {run.step / kinds['plain'].step:.2f} | {_percent(run.waiting)} | {_mib(run.peak_bytes)} "
        f"| {_percent(run.idle)} |"
        for pair, kinds in runs.items()
        for kind, run in kinds.items()
    ]
    lines = [
        f"{settings.image_size} px, batch {settings.batch}, {'mixed precision' if mixed else 'float32'}, random "
        f"weights, targets {TARGET_DIM} wide, at most {settings.workers} loader workers, {device_name}, torch "
        f"{torch.__version__}; {window.timed} steps after {window.warm_up} of warm-up, loading included.",
        "",
        "| model | training | images/s | median step | against plain | waits for images | peak GPU memory | GPU idle |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Idle: share of the timed steps' wall time without a kernel or copy on the device. How long those take comes "
        f"from {window.profiled} further steps under the profiler.",
    ]
    return "\n".join(lines)


def _title(kind: Kind, pair: Pair) -> str:
    return f"{_TITLES[kind]} with {Path(pair.teacher).stem}" if kind == "distill_model" else _TITLES[kind]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _mib(memory: int | None) -> str:
    return "-" if memory is None else f"{memory / 2**20:.0f} MiB"
