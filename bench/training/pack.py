"""Epochs of training images from tar shards, against the same epochs from the folder."""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader

from bench.figures import Figure
from bench.inputs import BenchInputs, bench_inputs
from bench.timing import seconds
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.packing.remote import open_shards
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.stream.dataset import StreamDataset
from mocha_pipe.student.distil.stream.loader import StreamLoader
from mocha_pipe.student.training.dataset import RegionDataset

ROUNDS = 7
_BATCH, _IMAGE_SIZE, _WORKERS, _SHARD_MB = 16, 160, 2, 1.0


def measure(root: Path) -> dict[str, Figure]:
    """Images/s from shards, as a share of those from the folder: the trainer's own loader, default augmentations."""
    inputs, shards = bench_inputs(root), root / "bench" / "shards"
    pack(inputs.data, shards, shard_mb=_SHARD_MB)
    remote = open_shards(f"file://{(shards / 'dataset.json').resolve()}", root / "bench" / "remote", "train")
    folder = _loader(inputs, inputs.source)
    local = _loader(inputs, open_source(shards / "dataset.json"))
    stream = StreamLoader(
        StreamDataset(remote.source, first_row=inputs.table.first_row, **_arguments(remote.source)),
        remote.shards, batch_size=_BATCH, workers=_WORKERS, window=DistillSettings.window, seed=0,
    )  # fmt: skip
    ratios: dict[str, list[float]] = {"tar": [], "stream": []}
    epochs: dict[str, Callable[[], object]] = {
        name: lambda loader=loader: _consume(loader)  # type: ignore[misc]
        for name, loader in (("folder", folder), ("tar", local), ("stream", stream))
    }
    for epoch in epochs.values():
        epoch()  # the first one reads from the disk
    for turn in range(ROUNDS):
        order = ["folder", "tar", "stream"] if turn % 2 else ["stream", "tar", "folder"]
        took = {name: seconds(epochs[name]) for name in order}
        for name in ratios:
            ratios[name].append(took["folder"] / took[name])
    note = f"images/s of an epoch / of the folder's; {len(inputs.source.records)} images, {_WORKERS} workers"
    return {
        "tar_epoch_vs_folder": Figure(
            value=statistics.median(ratios["tar"]), target=0.95, better="higher", note=f"local shards: {note}"
        ),
        "stream_epoch_vs_folder": Figure(
            value=statistics.median(ratios["stream"]), target=0.95, better="higher", note=f"stream of a file: {note}"
        ),
    }


def _arguments(source: DetectionSource) -> dict[str, Any]:
    names = dict(enumerate(source.class_names))
    data = {"names": names, "nc": len(names), "channels": 3}
    return {
        "imgsz": _IMAGE_SIZE,
        "batch_size": _BATCH,
        "augment": True,
        "hyp": get_cfg(),
        "task": "detect",
        "data": data,
    }


def _loader(inputs: BenchInputs, source: DetectionSource) -> Iterable[dict[str, Any]]:
    dataset = RegionDataset(source, first_row=inputs.table.first_row, **_arguments(source))
    loader: Iterable[dict[str, Any]] = build_dataloader(dataset, _BATCH, _WORKERS, device="cpu")
    return loader


def _consume(loader: Any) -> None:
    """One epoch with new workers. Workers that stayed would read ahead while another epoch is timed."""
    for _ in loader:
        pass
    loader.reset()
