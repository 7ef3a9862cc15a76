"""Trainers on images and boxes of a `DetectionSource`; no data.yaml, no label scan, nothing beside the images."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ultralytics.data.utils import get_split_fraction
from ultralytics.utils import LOGGER, RANK, colorstr
from ultralytics.utils.torch_utils import unwrap_model

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.training.dataset import RegionDataset, SourceDataset
from mocha_pipe.student.training.exact_resume import ExactTrainer
from mocha_pipe.student.training.resumable import ResumableTrainer

DECODED = "decoded"
"""Folder beside `weights/` for decoded images while a run with `cache=disk` lasts."""


class PlainTrainer(ResumableTrainer):
    """Trains a detector as `yolo train` does on one source and validates it on another; both have the same classes."""

    def __init__(self, sources: tuple[DetectionSource, DetectionSource], overrides: dict[str, Any]) -> None:
        self.sources = sources
        """Training and validation."""
        super().__init__(overrides)
        self.add_callback("on_train_end", _drop_decoded)

    def get_dataset(self) -> dict[str, Any]:
        """What ultralytics keeps of a data.yaml."""
        names = dict(enumerate(self.sources[0].class_names))
        train, val = (str(source.root) for source in self.sources)
        return {"names": names, "nc": len(names), "channels": 3, "path": train, "train": train, "val": val}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> SourceDataset:  # noqa: ARG002
        """Training or validation images with their boxes."""
        training = mode == "train"
        dataset = self._dataset_of(training)(
            decoded=Path(self.save_dir) / DECODED,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=training,
            hyp=self.args,
            rect=self.args.rect or not training,
            cache=self.args.cache or None,
            stride=max(int(unwrap_model(self.model).stride.max()), 32),
            pad=0.0 if training else 0.5,
            prefix=colorstr(f"{mode}: "),
            task="detect",
            classes=self.args.classes,
            data=self.data,
            fraction=get_split_fraction(self.args.fraction, "train" if training else self.args.split),
        )
        for line in dataset.left_out():
            LOGGER.warning(f"{colorstr(f'{mode}: ')}{line}")
        return dataset

    def _dataset_of(self, training: bool) -> Callable[..., SourceDataset]:
        """What makes the data set from ultralytics' arguments."""
        return partial(SourceDataset, self.sources[0 if training else 1])


class SourceTrainer(PlainTrainer, ExactTrainer):
    """A plain trainer whose runs go on exactly, on boxes that know their rows."""

    def _dataset_of(self, training: bool) -> Callable[..., SourceDataset]:
        """Augmentations follow from the seed, the epoch and the image."""
        return partial(RegionDataset, self.sources[0 if training else 1], seed=self.args.seed)


def _drop_decoded(trainer: PlainTrainer) -> None:
    """Removes what `cache=disk` kept."""
    folder = Path(trainer.save_dir) / DECODED
    if RANK in {-1, 0} and folder.is_dir():
        for file in folder.glob("*.npy"):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()
