"""What personal names cost in onnxruntime: an exported student beside ultralytics' own export of its detector.

Both hold NMS and find the same boxes. The student has random weights: what it finds makes no sense, but takes as long.
"""

import shutil
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bench.figures import Figure
from pipeline.bench.runs import in_a_process

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL, SIZES, ROUNDS = "yolov8n.yaml", (160, 320, 640), 60
OBJECTS, BOXES = 10, 10
"""Prototypes that go in, boxes that come out."""
_CLASSES, _WIDTH = 80, 512


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Seconds of one thread's processor time, which waiting for a busy core does not add to; one pair per round."""

    plain: list[float]
    personal: list[float]


def measure(root: Path, *, model: str = MODEL, sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> dict[str, Figure]:
    """Median ratio at each image size; the target is for the largest, which is ultralytics' default."""
    folder = root / "bench-export"
    try:
        timed: dict[int, Pairs] = in_a_process("export", _time, folder, model, tuple(sizes), rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "onnx_vs_yolo_onnx" if size == max(sizes) else f"onnx_vs_yolo_onnx_{size}px": Figure(
            value=statistics.median(mine / plain for plain, mine in zip(pairs.plain, pairs.personal, strict=True)),
            target=1.10 if size == max(sizes) else None, better="lower",
            note=f"{_milliseconds(pairs.personal)} / {_milliseconds(pairs.plain)} ms per image, NMS in both; "
            f"{Path(model).stem}, {size} px, {BOXES} boxes, {OBJECTS} objects, one thread, CPU",
        )
        for size, pairs in timed.items()
    }  # fmt: skip


def _time(folder: Path, model: str, sizes: Sequence[int], rounds: int) -> dict[int, Pairs]:
    make_student(folder, model)
    timed = {}
    for size in sizes:
        personal, plain = sessions(folder, size)
        calls = [personal, plain]
        timed[size] = pairs = Pairs(plain=[], personal=[])
        seconds = [pairs.personal, pairs.plain]
        for call in calls:
            call()
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 else (1, 0):
                started = thread_time()
                calls[which]()
                seconds[which].append(thread_time() - started)
    return timed


def make_student(folder: Path, config: str) -> None:
    """The folder of a student that nothing was taught."""
    from student.checkpoint import save_student  # before torch: our environment comes first
    from student.model import DistillModel
    from student.strangers import save_strangers

    # isort: split
    import torch

    torch.manual_seed(0)
    model: Any = DistillModel(config, num_classes=_CLASSES, features="fine", target_dim=_WIDTH)
    for level in model.model[-1].cv3:  # so that scores differ from anchor to anchor
        torch.nn.init.normal_(level[-1].weight)
    save_student(model, folder, image_size=max(SIZES), meta={})
    save_strangers(folder, np.linspace(-1, 1, 999))


def sessions(folder: Path, size: int) -> tuple[Callable[[], "NDArray[Any]"], Callable[[], "NDArray[Any]"]]:
    """One image through the exported student and through ultralytics' export; both return corners (BOXES, 4)."""
    from student.export import export_student

    # isort: split
    from ultralytics import YOLO

    rng = np.random.default_rng(0)
    image = np.kron(rng.random((1, 3, 16, 16), np.float32), np.ones((size // 16, size // 16), np.float32))
    export_student(folder, folder / "personal.onnx", image_size=size)
    personal = _session(folder / "personal.onnx")
    inputs = {
        "image": image, "area": np.array([0, 0, size, size], np.float32),
        "prototypes": rng.standard_normal((OBJECTS, _WIDTH), np.float32),
        "coarse": rng.integers(0, _CLASSES, OBJECTS), "threshold": np.zeros(OBJECTS, np.float32),
    }  # fmt: skip
    (scores,) = personal.run(["scores"], {**inputs, "confidence": np.zeros(1, np.float32)})
    confidence = float(scores[BOXES - 1 : BOXES + 1].mean())
    inputs["confidence"] = np.array([confidence], np.float32)
    with warnings.catch_warnings(action="ignore"):
        written = YOLO(folder / "student.pt").export(
            format="onnx", imgsz=size, nms=True, conf=confidence, iou=0.7, device="cpu"
        )
    plain = _session(Path(written))
    return (
        lambda: np.asarray(personal.run(None, inputs)[0]),
        lambda: np.asarray(plain.run(None, {"images": image})[0][0, :BOXES, :4]),
    )


def _session(path: Path) -> Any:
    """One thread: the one that asks."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f}"
