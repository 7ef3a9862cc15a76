"""What a step of distillation costs beside plain training where the detector stays as it is: the way for photographs.

Both see the same images in the same batches, one picture a place (a detector that stays as it is gets no mosaic). What
features `deep` start from, a pass over the training images, counts for the memory and not for the steps.
"""

import shutil
import statistics
from pathlib import Path
from typing import Literal

from bench.figures import Figure
from bench.inputs import BenchInputs, bench_inputs
from bench.runs import in_a_process, make_trainer
from bench.training.steps import Run, build_bench_cache, watched_run
from mocha_pipe.teacher_cache.store.cache import RegionCache

Kind = Literal["plain", "frozen"]
MODEL, IMAGE_SIZE, BATCH = "yolov8n.yaml", 320, 16
ROUNDS, STEPS = 3, 20


def measure(
    root: Path, *, model: str = MODEL, rounds: int = ROUNDS, steps: int = STEPS, inputs: BenchInputs | None = None
) -> dict[str, Figure]:
    """Each round runs both kinds one after the other, each in a process of its own; medians over rounds."""
    inputs = inputs or bench_inputs(root)
    folder = root / "bench-frozen"
    runs: list[tuple[Run, Run]] = []
    try:
        build_bench_cache(inputs, folder / "cache")
        for _ in range(rounds):
            plain, frozen = (
                in_a_process(kind, _train, kind, inputs, folder, model, steps) for kind in ("plain", "frozen")
            )
            runs.append((plain, frozen))
    finally:
        shutil.rmtree(folder)
    step = [1e3 * statistics.median(pair[kind].median for pair in runs) for kind in (0, 1)]
    peak = [statistics.median(pair[kind].peak_bytes for pair in runs) / 2**20 for kind in (0, 1)]
    what = f"features deep; {Path(model).stem}, {IMAGE_SIZE} px, batch {BATCH}, CPU"
    return {
        "frozen_step_vs_plain": Figure(
            value=statistics.median(frozen.median / plain.median for plain, frozen in runs), target=0.55,
            better="lower", note=f"{step[1]:.0f} ms / {step[0]:.0f} ms a step, loading included; {what}",
        ),
        "frozen_memory_vs_plain": Figure(
            value=peak[1] / peak[0], target=0.6, better="lower",
            note=f"peak of the process, {peak[1]:.0f} / {peak[0]:.0f} MiB; {what}",
        ),
    }  # fmt: skip


def _train(kind: Kind, inputs: BenchInputs, folder: Path, model: str, steps: int) -> Run:
    from mocha_pipe.student.distil.settings import DistillSettings
    from mocha_pipe.student.training.arguments import DEEP_ARGUMENTS, FROZEN_ARGUMENTS

    trainer = make_trainer(
        inputs, RegionCache.open(folder / "cache").targets() if kind == "frozen" else None, folder, name=kind,
        model=model, image_size=IMAGE_SIZE, batch=BATCH, steps=steps, device="cpu",
        settings=DistillSettings(features="deep", schedule="frozen"), **{**DEEP_ARGUMENTS, **FROZEN_ARGUMENTS},
    )  # fmt: skip
    return watched_run(trainer)
