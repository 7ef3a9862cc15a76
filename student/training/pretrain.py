"""Stage 1: a detector trained by its own loss in a plain ultralytics run."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.network.student_files import load_checkpoint
from mocha_pipe.student.training.arguments import checked_arguments
from mocha_pipe.student.training.resumable import read_metrics, train_to_end
from mocha_pipe.student.training.source_trainer import PlainTrainer


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """A finished base detector."""

    weights: Path
    """best.pt of the run."""
    metrics: Mapping[str, float]
    """ultralytics' validation metrics of that epoch, such as `metrics/mAP50-95(B)` in 0..1."""


def pretrain(
    model: str,
    sources: tuple[DetectionSource, DetectionSource],
    run: Path,
    train_arguments: Mapping[str, Any],
    *,
    resume: bool = False,
) -> PretrainResult:
    """Trains a detector on its own loss, as `yolo train` does.

    Args:
        model: a `.pt` file to start from, or a `.yaml` (a file, or the name of one that ultralytics ships, such as
            yolov8n.yaml) to start from random weights.
        sources: training and validation images with their boxes, of the same classes.
        run: folder of the run; the results lie in its `train/`.
        train_arguments: of `yolo train`, unchanged (epochs, imgsz, batch, mosaic, seed, device, ...).
        resume: go on with a stopped run, and leave a finished one as it is; otherwise start anew.

    Raises:
        StudentModelNotFoundError, StudentModelError: the model cannot be read, or is no detector.
        TrainArgumentError: an argument is unknown, has a wrong value, or is set by the pipeline.
    """
    arguments = checked_arguments(train_arguments)
    folder = train_to_end(partial(PlainTrainer, sources), model=model, run=run, arguments=arguments, resume=resume)
    weights = folder / "weights" / "best.pt"
    return PretrainResult(weights=weights, metrics=read_metrics(load_checkpoint(weights)))
