"""What reading a cache costs a training step, and what the usual way, one .pth file per image, would cost."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.cfg import get_cfg

from bench.figures import Figure
from bench.inputs import BenchInputs, bench_inputs
from bench.synthetic import synthetic_cache, synthetic_table
from bench.timing import seconds
from mocha_pipe.data.types import RegionTargets
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.training.dataset import RegionDataset
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS

STEP_IMAGES = 16
HIDDEN_DIM, VISUAL_DIM, DIM = 4096, 1024, 512
MODEL, IMAGE_SIZE = "yolov8n.yaml", 160
STEPS, WARM_UP = 15, 2
READ_IMAGES, READ_STEPS, ROUNDS = 500, 40, 7


def measure(
    root: Path,
    *,
    model: str = MODEL,
    image_size: int = IMAGE_SIZE,
    steps: int = STEPS,
    images: int = READ_IMAGES,
    inputs: BenchInputs | None = None,
) -> dict[str, Figure]:
    """Target fetch within real training steps, and random reads of the widest array."""
    inputs = inputs or bench_inputs(root)
    with tempfile.TemporaryDirectory(dir=root) as name:
        fetch = _target_fetch(inputs, Path(name) / "targets", model, image_size, steps)
        return {"target_fetch_overhead": fetch, "random_read_vs_pth": _random_reads(Path(name), images)}


class _TimedTargets:
    """A cache's targets that note how long the last look-up took (a `data.types.RegionTargets`)."""

    def __init__(self, targets: RegionTargets) -> None:
        self._targets = targets
        self.dim, self.set_aside = targets.dim, targets.set_aside
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._targets)

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `RegionTargets.lookup`."""
        started = perf_counter()
        found = self._targets.lookup(rows)
        self.seconds = perf_counter() - started
        return found


def _target_fetch(inputs: BenchInputs, folder: Path, model_name: str, image_size: int, steps: int) -> Figure:
    """Steps as a trainer without loader workers takes them: nothing hides the fetch behind other work."""
    cache = synthetic_cache(folder, inputs.table, hidden_dim=32, visual_dim=32, dim=DIM)
    arguments: Any = get_cfg(overrides={"imgsz": image_size, "task": "detect"})
    targets = _TimedTargets(cache.targets())
    dataset = RegionDataset(
        inputs.source, first_row=inputs.table.first_row, targets=targets, imgsz=image_size,
        batch_size=STEP_IMAGES, augment=True, hyp=arguments, task="detect",
        data={"names": dict(enumerate(inputs.table.class_names)), "channels": 3},
    )  # fmt: skip
    model: Any = DistillModel(model_name, num_classes=len(inputs.table.class_names), features="fine", target_dim=DIM)
    model.args = arguments
    model.train()
    optimizer = torch.optim.AdamW(model.parameters())
    generator = np.random.default_rng(0)

    def step() -> None:
        chosen = generator.choice(len(dataset), STEP_IMAGES, replace=False).tolist()
        batch = dataset.collate_fn([dataset[index] for index in chosen])
        loss, _ = model.loss({**batch, "img": batch["img"].float() / 255})
        optimizer.zero_grad()
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    whole, fetch = [], []
    for _ in range(WARM_UP + steps):
        whole.append(seconds(step))
        fetch.append(targets.seconds)
    ratios = [step / (step - fetched) for step, fetched in zip(whole[WARM_UP:], fetch[WARM_UP:], strict=True)]
    return Figure(
        value=statistics.median(ratios), target=1.01, better="lower",
        note=f"training step of {STEP_IMAGES} images / the same less its fetch: {1e6 * statistics.median(fetch):.0f} "
        f"us of {1e3 * statistics.median(whole):.0f} ms; {Path(model_name).stem}, {image_size} px, {DIM} targets, no "
        "loader workers",
    )  # fmt: skip


def _random_reads(folder: Path, images: int) -> Figure:
    """Rows of random images as one block, warm; all ways give the same numbers."""
    table = synthetic_table(images, most=15)
    cache = synthetic_cache(folder / "cache", table, hidden_dim=HIDDEN_DIM, visual_dim=VISUAL_DIM, dim=DIM)
    hidden, visual = (cache.rows(name) for name in TEACHER_ARRAYS)
    rows = [np.arange(start, stop) for start, stop in pairwise(table.first_row.tolist())]
    for index, own in enumerate(rows):
        values = {"hidden": torch.from_numpy(hidden.lookup(own)), "visual": torch.from_numpy(visual.lookup(own))}
        # A loop over boxes has a list of records at the end of an image. Stacked arrays are the best it could save.
        boxes = [{name: array[box].clone() for name, array in values.items()} for box in range(len(own))]
        torch.save(boxes, folder / f"{index}.pth")
        torch.save(values, folder / f"{index}-stacked.pth")

    def cached(chosen: Sequence[int]) -> NDArray[Any]:
        return hidden.lookup(np.concatenate([rows[index] for index in chosen]))

    def box_by_box(chosen: Sequence[int]) -> NDArray[Any]:
        files = [torch.load(folder / f"{index}.pth", weights_only=True) for index in chosen]
        return torch.stack([box["hidden"] for boxes in files for box in boxes]).numpy()

    def stacked(chosen: Sequence[int]) -> NDArray[Any]:
        return torch.cat(
            [torch.load(folder / f"{index}-stacked.pth", weights_only=True)["hidden"] for index in chosen]
        ).numpy()

    times = _paired([cached, box_by_box, stacked], images)
    ours, usual, best = (1e3 * statistics.median(found) / READ_STEPS for found in times)
    return Figure(
        value=statistics.median(slow / fast for fast, slow in zip(times[0], times[1], strict=True)), target=40.0,
        better="higher",
        note=f"{STEP_IMAGES} random images of {len(table) / images:.0f} boxes a step, {HIDDEN_DIM} wide, warm: "
        f"torch.load of one .pth per image with a record per box {usual:.2f} ms, with stacked boxes {best:.2f} ms, "
        f"the cache {ours:.3f} ms",
    )  # fmt: skip


def _paired(ways: Sequence[Callable[[Sequence[int]], NDArray[Any]]], images: int) -> list[list[float]]:
    """Seconds of each way for the same steps, round by round."""
    for index in range(images):  # warms all ways up, and shows that they read the same rows
        found = [way([index]) for way in ways]
        assert all(np.array_equal(found[0], other) for other in found[1:])
    generator = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        steps = [generator.choice(images, min(STEP_IMAGES, images), replace=False).tolist() for _ in range(READ_STEPS)]
        for way, kept in zip(ways, times, strict=True):
            kept.append(seconds(lambda way=way, steps=steps: [way(chosen) for chosen in steps]))  # type: ignore[misc]
    return times
