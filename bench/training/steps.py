"""What distillation costs beside plain training, in time and memory, and what the cache saves.

    plain     ultralytics' own trainer, data set and model
    cached    distillation with targets from the cache
    live      the same distillation with the teacher in the loop: every batch's boxes are cut and embedded anew

Each run is a process of its own with the same model, images, batch and threads.
"""

import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.figures import Figure
from bench.inputs import BenchInputs, bench_inputs, shipped_teacher
from bench.runs import in_a_process, make_trainer, memory_status
from bench.timing import seconds
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import RegionTargets
from mocha_pipe.teacher_cache.building.build import build_cache
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.projecting.whitening import whiten
from mocha_pipe.teacher_cache.store.cache import RegionCache

Kind = Literal["plain", "cached", "live"]
MODEL, IMAGE_SIZE, BATCH = "yolov8n.yaml", 160, 16
ROUNDS, STEPS, WARM_UP = 5, 40, 5


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one process measured."""

    step_seconds: list[float]
    """From the end of one batch to the end of the next, loading included."""
    peak_bytes: int
    """Largest resident memory of the process."""

    @property
    def median(self) -> float:
        """Median seconds of a step, the first steps left out."""
        return statistics.median(self.step_seconds[WARM_UP:])


class LiveTargets:
    """Targets that the teacher computes when they are asked for (a `data.types.RegionTargets`)."""

    def __init__(self, inputs: BenchInputs, cache: RegionCache) -> None:
        self._source, self._table = inputs.source, inputs.table
        self._teacher, self._projection = shipped_teacher(), cache.projection()
        self.dim = self._projection.dim
        self.set_aside = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._table)

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:  # (n,) -> (n, d)
        """Cut the crops of these regions, embed them and project the result."""
        spec, table = self._teacher.spec, self._table
        images = table.image_of_rows(rows)
        pictures = {image: read_image(self._source.records[image].path) for image in np.unique(images).tolist()}
        crops = [
            cut_crop(pictures[image], table.xyxy[row], spec.crop_margin, spec.crop_size)
            for image, row in zip(images.tolist(), rows.tolist(), strict=True)
        ]
        found = self._teacher.embed(crops, [table.class_names[index] for index in table.class_ids[rows]])
        return whiten(self._projection, found.hidden, found.visual)


def measure(
    root: Path, *, model: str = MODEL, rounds: int = ROUNDS, steps: int = STEPS, inputs: BenchInputs | None = None
) -> dict[str, Figure]:
    """Each round runs the three kinds one after the other; ratios are taken within a round."""
    inputs = inputs or bench_inputs(root)
    folder = root / "bench-training"
    cache_seconds = seconds(lambda: build_bench_cache(inputs, folder / "cache"))
    kinds: tuple[Kind, ...] = ("plain", "cached", "live")
    runs: dict[Kind, list[Run]] = {kind: [] for kind in kinds}
    try:
        for _ in range(rounds):
            for kind in kinds:
                runs[kind].append(in_a_process(kind, _train, kind, inputs, folder, model, steps))
    finally:
        shutil.rmtree(folder)
    step = {kind: statistics.median(run.median for run in found) for kind, found in runs.items()}
    peak = {kind: statistics.median(run.peak_bytes for run in found) / 2**20 for kind, found in runs.items()}
    epoch_steps = -(-len(inputs.source.records) // BATCH)
    saved = (step["live"] - step["cached"]) * epoch_steps
    what = f"{Path(model).stem}, {IMAGE_SIZE} px, batch {BATCH}, CPU"
    return {
        "distill_step_vs_plain": Figure(
            value=_ratio(runs, "cached", "plain"), target=1.08, better="lower",
            note=f"{1e3 * step['cached']:.0f} ms / {1e3 * step['plain']:.0f} ms a step, loading included; {what}",
        ),
        "distill_memory_vs_plain": Figure(
            value=peak["cached"] / peak["plain"], target=1.10, better="lower",
            note=f"peak of the process, {peak['cached']:.0f} / {peak['plain']:.0f} MiB; {what}",
        ),
        "epoch_live_vs_cached": Figure(
            value=_ratio(runs, "live", "cached"), target=1.0, better="higher",
            note=f"an epoch with the miniature teacher in the loop / cached, {step['live'] * epoch_steps:.0f} / "
            f"{step['cached'] * epoch_steps:.0f} s; peak {peak['live']:.0f} / {peak['cached']:.0f} MiB; {what}",
        ),
        "break_even_epoch": Figure(
            value=cache_seconds / saved, target=float(100), better="lower",
            note=f"epochs after which the cache, built in {cache_seconds:.1f} s, has paid for itself",
        ),
    }  # fmt: skip


def _ratio(runs: Mapping[Kind, list[Run]], kind: Kind, other: Kind) -> float:
    return statistics.median(a.median / b.median for a, b in zip(runs[kind], runs[other], strict=True))


def build_bench_cache(inputs: BenchInputs, folder: Path) -> None:
    """Embed all boxes by the miniature teacher."""
    teacher = shipped_teacher()
    build_cache(inputs.source, inputs.table, folder, spec=teacher.spec, load_teacher=lambda: teacher)


def _train(kind: Kind, inputs: BenchInputs, folder: Path, model: str, steps: int) -> Run:
    targets: RegionTargets | None = None
    if kind != "plain":
        cache = RegionCache.open(folder / "cache")
        targets = cache.targets() if kind == "cached" else LiveTargets(inputs, cache)
    trainer = make_trainer(
        inputs, targets, folder, name=kind, model=model, image_size=IMAGE_SIZE, batch=BATCH, steps=steps, device="cpu"
    )
    return watched_run(trainer)


def watched_run(trainer: Any) -> Run:
    """Train to the end of the first epoch, with the time of each step and the most memory until then."""
    from mocha_pipe.student.training.resumable import quiet_ultralytics

    ends: list[float] = []
    trainer.add_callback("on_train_batch_end", lambda _: ends.append(perf_counter()))
    peaks: list[int] = []
    trainer.add_callback("on_train_epoch_end", lambda _: peaks.append(memory_status("VmHWM")))
    with quiet_ultralytics():
        trainer.train()
    return Run(step_seconds=np.diff(ends).tolist(), peak_bytes=peaks[0])
