"""Speed of phase 1 against the model's forward passes alone, and against a loop over boxes with one file per image."""

import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.figures import Figure
from bench.inputs import BenchInputs, bench_inputs, shipped_teacher
from bench.timing import processor_seconds, seconds
from mocha_pipe.teacher_cache.building.build import build_cache
from mocha_pipe.teacher_cache.building.feed import BATCHES_AHEAD, CropFeed
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher, PreparedBatch

ROUNDS = 5
_LOOP_IMAGES = 60


def measure(root: Path) -> dict[str, Figure]:
    """Throughput of `build_cache` as a share of the model's, and as a multiple of the plain loop's."""
    inputs, teacher = bench_inputs(root), shipped_teacher()
    batches = _prepared(inputs, teacher)
    regions = len(inputs.table)
    share = _processor_share(inputs, teacher, batches)
    against_forward, against_loop = [], []
    for _ in range(ROUNDS):
        build = seconds(lambda: _build(inputs, teacher)) / regions
        forward = seconds(lambda: [teacher.forward(batch) for batch in batches]) / regions
        loop, looped = _plain_loop(inputs, teacher)
        against_forward.append(forward / build)
        against_loop.append(loop / looped / build)
    return {
        "cache_build_vs_forward": Figure(
            value=statistics.median(against_forward), target=0.92, better="higher",
            note=f"regions/s of a whole build / of the forward passes on ready batches; {regions} regions",
        ),
        "cache_build_forward_share": Figure(
            value=share, target=None, better="higher",
            note="processor time of the forward passes / of a whole build, one thread for the model; other programs "
            "hardly change it, and cores that are never idle cannot do better",
        ),
        "cache_build_vs_plain_loop": Figure(
            value=statistics.median(against_loop), target=1.0, better="higher",
            note="regions/s of a build / of a loop that embeds one box at a time and saves one .pth per image",
        ),
    }  # fmt: skip


def _processor_share(inputs: BenchInputs, teacher: LlavaTeacher, batches: list[PreparedBatch]) -> float:
    """The model's part of all that a build computes, median of rounds."""
    threads, shares = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(ROUNDS):
            forward = processor_seconds(lambda: [teacher.forward(batch) for batch in batches])
            shares.append(forward / processor_seconds(lambda: _build(inputs, teacher)))
    finally:
        torch.set_num_threads(threads)
    return statistics.median(shares)


def _prepared(inputs: BenchInputs, teacher: LlavaTeacher) -> list[PreparedBatch]:
    """The batches of a build, on the device, before any clock runs."""
    table = inputs.table
    batches: list[PreparedBatch] = []
    with CropFeed(inputs.source, table, teacher.spec) as feed:
        for window in feed.windows(np.arange(len(table)), 16 * BATCHES_AHEAD):
            names = [table.class_name(crop.row) for crop in window]
            batches += teacher.prepare([crop.required() for crop in window], names)
    teacher.forward(batches[0])
    return batches


def _build(inputs: BenchInputs, teacher: LlavaTeacher) -> None:
    folder = Path(tempfile.mkdtemp()) / "cache"
    try:
        build_cache(inputs.source, inputs.table, folder, spec=teacher.spec, load_teacher=lambda: teacher)
    finally:
        shutil.rmtree(folder.parent)


def _plain_loop(inputs: BenchInputs, teacher: LlavaTeacher) -> tuple[float, int]:
    """Seconds and regions of the usual loop on some images: no batches, nothing read ahead, torch.save per image."""
    spec, num_regions = teacher.spec, 0
    with tempfile.TemporaryDirectory() as folder:

        def loop() -> None:
            nonlocal num_regions
            for index, record in enumerate(inputs.source.records[:_LOOP_IMAGES]):
                image = np.asarray(Image.open(record.path).convert("RGB"))
                boxes = []
                for box, class_id in zip(record.xyxy, record.class_ids, strict=True):
                    crop = cut_crop(image, box, spec.crop_margin, spec.crop_size)
                    found = teacher.embed([crop], [inputs.source.class_names[class_id]])
                    hidden, visual = (torch.from_numpy(rows[0]).half() for rows in (found.hidden, found.visual))
                    boxes.append({"hidden": hidden, "visual": visual})
                torch.save(boxes, Path(folder) / f"{index}.pth")
                num_regions += len(boxes)

        return seconds(loop), num_regions
