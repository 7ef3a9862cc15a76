"""A detector's classification branch learns from other images, and nothing else of the detector does.

The reference does so before it evaluates on CORe50 and iCubWorld: 10 epochs on their coarse classes. Backbone, neck and
box branch stay as they are, and with them the features that a translation module reads.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.network.student_files import class_names, load_detector
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS, checked_arguments
from mocha_pipe.student.training.resumable import train_to_end
from mocha_pipe.student.training.source_trainer import SourceTrainer

_BRANCHES = ("cv3", "one2one_cv3")  # ultralytics' names in a Detect head; only the heads of 26 have the second one


def tune_classification(
    weights: Path, source: DetectionSource, run: Path, train_arguments: Mapping[str, Any]
) -> DetectionModel:
    """Trains the classification branch on a source; a stopped run goes on, a finished one is read.

    Args:
        weights: `.pt` of a detector.
        source: images with boxes of the detector's classes, in its order.
        run: folder of the run; the results lie in its `train/`.
        train_arguments: of `yolo train` (epochs, imgsz, batch, seed, device, ...).

    Returns:
        The detector of `weights` with the averaged branch after the last epoch; all else of it is equal to the bit.

    Raises:
        As `pretrain`.
    """
    detector, _ = load_detector(weights)
    assert source.class_names == class_names(detector), "the source has the detector's classes"
    arguments = {**DEFAULT_TRAIN_ARGUMENTS, "val": False, "plots": False, **checked_arguments(train_arguments)}
    folder = train_to_end(
        partial(SourceTrainer, (source, source)),
        model=str(weights),
        run=run,
        arguments={**arguments, "freeze": _all_but_classification(detector)},
        resume=True,
    )
    tuned, _ = load_detector(folder / "weights" / "last.pt")
    head, learned = detector.model[-1], tuned.model[-1]
    for name in _BRANCHES:
        if hasattr(head, name):
            getattr(head, name).load_state_dict(getattr(learned, name).state_dict())
    return detector


def _all_but_classification(detector: DetectionModel) -> list[int | str]:
    """Layers and parts of the head, as `freeze` takes them: each a beginning of names after `model.`."""
    last = len(detector.model) - 1
    parts = [name for name, _ in detector.model[last].named_children() if name not in _BRANCHES]
    return [*range(last), *(f"{last}.{name}" for name in parts)]
