"""A trainer on images and boxes of a `DetectionSource`; no data.yaml, no label scan."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ultralytics.data.utils import get_split_fraction
from ultralytics.utils import LOGGER, colorstr
from ultralytics.utils.torch_utils import unwrap_model

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.training.dataset import RegionDataset
from mocha_pipe.student.training.exact_resume import ExactTrainer


class SourceTrainer(ExactTrainer):
    """Trains a detector on the boxes of one source and validates it on another; both have the same classes."""

    def __init__(self, sources: tuple[DetectionSource, DetectionSource], overrides: dict[str, Any]) -> None:
        self.sources = sources
        """Training and validation."""
        super().__init__(overrides)

    def get_dataset(self) -> dict[str, Any]:
        """What ultralytics keeps of a data.yaml."""
        names = dict(enumerate(self.sources[0].class_names))
        train, val = (str(source.root) for source in self.sources)
        return {"names": names, "nc": len(names), "channels": 3, "path": train, "train": train, "val": val}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> RegionDataset:  # noqa: ARG002
        """Training or validation images with their boxes."""
        training = mode == "train"
        dataset = self._dataset_of(training)(
            seed=self.args.seed,
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

    def _dataset_of(self, training: bool) -> Callable[..., RegionDataset]:
        """What makes the data set from ultralytics' arguments."""
        return partial(RegionDataset, self.sources[0 if training else 1])
