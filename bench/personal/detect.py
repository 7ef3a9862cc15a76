"""What personal names cost on top of detection: an image through `YOLO.predict` and a `PersonalDetector`, in turn.

The student has random weights, so every image gets a confidence threshold of its own: the score of its fourth box. Then
as many boxes are named, and as few anchors reach NMS, as in a picture of a few objects.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.figures import Figure
from bench.inputs import BenchInputs, bench_inputs
from bench.personal.random_student import SIZES, make_student
from bench.runs import in_a_process
from bench.timing import Pairs, figures_by_size
from mocha_pipe.data.images import read_image

if TYPE_CHECKING:
    from mocha_pipe.student.personal.detector import PersonalDetector

MODEL = "yolov8n.yaml"
IMAGES, ROUNDS = 24, 5
OBJECTS, BOXES = 24, 4
"""Objects of the profile, spread over all classes; boxes of an image."""
_WIDTH = 128


def measure(
    root: Path,
    *,
    model: str = MODEL,
    sizes: Sequence[int] = SIZES,
    images: int = IMAGES,
    rounds: int = ROUNDS,
    inputs: BenchInputs | None = None,
) -> dict[str, Figure]:
    """Median ratio at each image size."""
    folder = root / "bench-detect"
    try:
        timed = in_a_process(
            "detection", _time, inputs or bench_inputs(root), folder, model, tuple(sizes), images, rounds
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    what = f"{BOXES} boxes, {OBJECTS} objects"
    return figures_by_size("detect_vs_predict", timed, target=1.10, model=model, what=what)


def _time(
    inputs: BenchInputs, folder: Path, model: str, sizes: Sequence[int], images: int, rounds: int
) -> dict[int, Pairs]:
    detector = _make_detector(inputs, folder, model)  # before ultralytics: our environment comes first
    import torch
    from ultralytics import YOLO

    yolo = YOLO(folder / "student.pt")
    records = inputs.source.records[:images]
    pictures = [np.ascontiguousarray(read_image(record.path)[:, :, ::-1]) for record in records]
    timed = {}
    for size in sizes:
        asked = [{**_few_boxes(yolo, picture, size), "source": picture} for picture in pictures]
        for arguments in (asked[0], asked[0]):
            yolo.predict(**arguments)
            detector(**arguments)
        torch.set_num_threads(1)  # ultralytics sets another number whenever it sets up a predictor
        timed[size] = Pairs()
        for turn in range(rounds):
            for arguments in asked:
                timed[size].take(turn, partial(yolo.predict, **arguments), partial(detector, **arguments))
    return timed


def _make_detector(inputs: BenchInputs, folder: Path, config: str) -> "PersonalDetector":
    """A random student, and a profile with objects of every class."""
    from mocha_pipe.student.personal.detector import PersonalDetector
    from mocha_pipe.student.personal.profile import Profile, student_digest

    names = inputs.source.class_names
    make_student(folder, config, class_names=names, width=_WIDTH)
    rng = np.random.default_rng(0)
    profile = Profile.empty(student_digest(folder), names)
    for index in range(OBJECTS):
        coarse = np.array([index % len(names)])
        profile = profile.add(f"object {index}", rng.standard_normal((1, _WIDTH), np.float32), coarse)
    detector = PersonalDetector.load(folder)
    detector.profile = profile
    return detector


def _few_boxes(yolo: Any, picture: np.ndarray, size: int) -> dict[str, Any]:
    """Arguments of `predict` with the confidence that leaves BOXES boxes."""
    common = {"imgsz": size, "device": "cpu", "verbose": False, "max_det": BOXES}
    (found,) = yolo.predict(picture, conf=1e-9, **common)
    return {**common, "conf": 0.9999 * float(found.boxes.conf.min())}
