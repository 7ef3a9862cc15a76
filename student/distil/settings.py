"""What a distillation is made from: how the student learns, and from which images, boxes and targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.packing.remote import RemoteShard
from mocha_pipe.data.types import DetectionSource, RegionTargets
from mocha_pipe.student.choices import FeatureSet, ObjectiveName, ScheduleName
from mocha_pipe.student.errors import RegionTargetError


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """What is learned, and how."""

    features: FeatureSet = "fine"
    """What a region's features are made of (network/features.py)."""
    objective: ObjectiveName = "paper"
    """What the embeddings should have in common with the targets (network/objectives.py)."""
    lambda_dist: float = 1.0
    """Weight of the objective's local loss, L_dist."""
    lambda_emb: float = 1.0
    """Weight of the objective's relational loss, L_emb."""
    schedule: ScheduleName = "joint"
    """Whether the detector learns in every epoch, in every fourth (`alternate`) or never (`frozen`); alternation.py."""
    detector_rate: float = 1.0
    """The detector's learning rate as a share of the translation module's, which is the training argument `lr0`."""
    average: bool = True
    """Whether the student is the moving average of the weights (EMA), or the weights of the last step."""
    warmup_steps: int | None = None
    """Steps in which rates rise to their full size; None leaves it to the training argument `warmup_epochs`."""
    window: int = 1000
    """Images that each worker of a stream draws the next one from; more mix better and take more memory."""
    train_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `yolo train` (epochs, imgsz, batch, mosaic, ...); they win over DEFAULT_TRAIN_ARGUMENTS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DistillSetup:
    """What the trainer needs beside ultralytics' arguments."""

    train: DetectionSource
    val: DetectionSource
    targets: RegionTargets
    first_row: NDArray[np.int64]  # (training images + 1,)
    """Rows of training image i in `targets` are first_row[i]:first_row[i + 1], in the order of its boxes."""
    settings: DistillSettings
    kept_names: tuple[str, ...] = ()
    """Class names of a detector that stays as it is (`frozen`), which need not be the data's; empty where it learns."""
    shards: Sequence[RemoteShard] = ()
    """Where the training images come from as a stream; when empty they are read from where their records say."""

    def __post_init__(self) -> None:
        """Raises RegionTargetError where boxes and targets, or the two splits, do not belong together."""
        if self.train.class_names != self.val.class_names:
            raise RegionTargetError(
                f"Training and validation must share their class names; found {list(self.train.class_names)[:5]} and "
                f"{list(self.val.class_names)[:5]}; give both the same names."
            )
        boxes = [len(record.class_ids) for record in self.train.records]
        if list(np.diff(self.first_row)) != boxes or len(self.targets) < self.first_row[-1]:
            raise RegionTargetError(
                f"Every training box must have its target: found {sum(boxes)} boxes in {len(boxes)} images, and "
                f"{len(self.targets)} targets of {len(self.first_row) - 1} images; run `mocha-pipe cache build` again."
            )
