"""What personal names cost in onnxruntime: an exported student beside ultralytics' own export of its detector.

Both graphs contain NMS and find the same boxes. The student has random weights.
"""

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.figures import Figure
from bench.personal.random_student import SIZES, make_student
from bench.runs import in_a_process
from bench.timing import Pairs, figures_by_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL, ROUNDS = "yolov8n.yaml", 60
OBJECTS, BOXES = 10, 10
"""Prototypes that go in, boxes that come out."""
CLASS_NAMES = tuple(map(str, range(80)))
_WIDTH = 512


def measure(root: Path, *, model: str = MODEL, sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> dict[str, Figure]:
    """Median ratio at each image size."""
    folder = root / "bench-export"
    try:
        timed = in_a_process("export", _time, folder, model, tuple(sizes), rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    what = f"NMS in both, {BOXES} boxes, {OBJECTS} objects"
    return figures_by_size("onnx_vs_yolo_onnx", timed, target=1.10, model=model, what=what)


def _time(folder: Path, model: str, sizes: Sequence[int], rounds: int) -> dict[int, Pairs]:
    make_student(folder, model, class_names=CLASS_NAMES, width=_WIDTH)
    timed = {}
    for size in sizes:
        personal, plain = sessions(folder, size)
        for call in (personal, plain):
            call()
        timed[size] = Pairs()
        for turn in range(rounds):
            timed[size].take(turn, plain, personal)
    return timed


def sessions(folder: Path, size: int) -> tuple[Callable[[], "NDArray[Any]"], Callable[[], "NDArray[Any]"]]:
    """One image through the exported student and through ultralytics' export; both return corners (BOXES, 4)."""
    from mocha_pipe.student.personal.export import export_student

    # isort: split
    from ultralytics import YOLO

    rng = np.random.default_rng(0)
    image = np.kron(rng.random((1, 3, 16, 16), np.float32), np.ones((size // 16, size // 16), np.float32))
    export_student(folder, folder / "personal.onnx", image_size=size)
    personal = _session(folder / "personal.onnx")
    inputs = {
        "image": image, "area": np.array([0, 0, size, size], np.float32),
        "prototypes": rng.standard_normal((OBJECTS, _WIDTH), np.float32),
        "coarse": rng.integers(0, len(CLASS_NAMES), OBJECTS), "objects": np.arange(OBJECTS),
        "threshold": np.zeros(OBJECTS, np.float32), "regions": np.zeros((0, 4), np.float32),
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
    """A session that computes in the calling thread alone, whose processor time is what is measured."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)
