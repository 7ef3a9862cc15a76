"""What becomes of the detector: nothing where it is frozen, and how much its mAP moves where it learns too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from bench.figures import Figure
from bench.photos.recipe import FEATURES, JOINT_EPOCHS, JOINT_IMAGE_SIZE, Study
from mocha_pipe.data.images import read_image
from mocha_pipe.data.source import open_source
from mocha_pipe.pipeline.settings.sections import DistillConfig
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_student
from mocha_pipe.student.network.student_files import DETECTOR_FILE

NO_COCO = (
    "frozen_base_identical and joint_base_delta are left out: they need a data set with the detector's classes; name "
    "its data.yaml with --coco (make study-photos COCO=data.yaml)"
)
FAINT = 0.001
"""Confidence of the detections that are compared; that of ultralytics' validation."""
_JOINT = "joint"


def base_figures(study: Study, coco: Path | None) -> tuple[dict[str, Figure], list[str]]:
    """Both figures, or without a data set none and a note that says so."""
    if coco is None:
        return {}, [NO_COCO]
    return {**identical_figure(study, coco), **joint_figure(study, coco)}, []


def identical_figure(study: Study, coco: Path) -> dict[str, Figure]:
    """Whether the student's file detects in every validation picture what the detector does, bit by bit."""
    student = study.student(FEATURES[0], study.seeds[0]) / DETECTOR_FILE
    pictures = [read_image(record.path) for record in open_source(coco, "val").records]
    base, distilled = (YOLO(path) for path in (study.detector, student))
    same = [torch.equal(_boxes(base, picture), _boxes(distilled, picture)) for picture in pictures]
    note = f"YOLO(student.pt) and its base detector on {len(same)} pictures, {sum(same)} bitwise equal"
    return {"frozen_base_identical": Figure(value=float(all(same)), target=1, better="higher", note=note)}


def joint_figure(study: Study, coco: Path) -> dict[str, Figure]:
    """Change of mAP50-95, as a share, by a distillation in which the detector learns too."""
    base = study.config_of(coco, "coco-cache")
    distill = DistillConfig(
        student=str(study.detector), schedule="joint", epochs=JOINT_EPOCHS, image_size=JOINT_IMAGE_SIZE,
        folder=study.root / _JOINT, train={"plots": False},
    )  # fmt: skip
    config = replace(base, distill=distill).resolved()
    build_teacher_cache(config)
    run = distill_student(config)
    before, after = (_map(path, coco, study.root) for path in (study.detector, run.path("student") / DETECTOR_FILE))
    note = (
        f"mAP50-95 {after:.4f} after {JOINT_EPOCHS} epochs of schedule joint with the detector's rate at "
        f"{config.distill.detector_rate:g}, {before:.4f} before; {JOINT_IMAGE_SIZE} px"
    )
    return {"joint_base_delta": Figure(value=after - before, target=-0.005, better="higher", note=note)}


def _boxes(yolo: YOLO, picture: NDArray[np.uint8]) -> torch.Tensor:
    (result,) = yolo.predict(np.ascontiguousarray(picture[:, :, ::-1]), conf=FAINT, verbose=False, device="cpu")
    boxes: torch.Tensor = result.boxes.data
    return boxes


def _map(weights: Path, coco: Path, root: Path) -> float:
    """By ultralytics' own validation."""
    measured: Any = YOLO(weights).val(
        data=str(coco), imgsz=JOINT_IMAGE_SIZE, device="cpu", plots=False, verbose=False, workers=0,
        project=str(root.resolve() / "val"), name=weights.stem, exist_ok=True,
    )  # fmt: skip
    return float(measured.box.map)
