"""Training batches in which every box knows its row of the region table, whatever augmentation did to it.

Mosaic, mixup, crops and the filters between them move, merge, drop and reorder boxes, always together with their class
ids. So the row is packed into the class id where an image enters the augmentations, and unpacked by the last of them.
Targets are looked up by row while the batch is put together, which happens in the loader's workers.
"""

import os
import shutil
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.data.augment import Format
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_file_speeds
from ultralytics.utils import LOGGER, NUM_THREADS

from mocha_pipe.data.images import image_digest, is_decodable
from mocha_pipe.data.types import DetectionSource, ImageRecord, RegionTargets
from mocha_pipe.student.errors import TrainArgumentError
from mocha_pipe.student.training import decoding  # noqa: F401  (ultralytics then reads by our decoder, from tars too)
from mocha_pipe.student.training.seeded_order import seed_everything

NO_TARGET = -1
"""Row of a box that has no target; it counts for detection only."""

_CLASS_BITS = 20
_CLASS_MASK = (1 << _CLASS_BITS) - 1


def pack(rows: NDArray[np.int64], class_ids: NDArray[Any]) -> NDArray[np.int64]:
    """Row (>= -1) and class id (< 2^20) in one integer, which stays exact where an augmentation makes it a float64."""
    return ((rows + 1) << _CLASS_BITS) | class_ids.astype(np.int64)


def unpack(codes: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The inverse of `pack`: rows as int64, class ids as the float32 that ultralytics expects."""
    whole = codes.astype(np.int64)
    return (whole >> _CLASS_BITS) - 1, (whole & _CLASS_MASK).astype(np.float32)


class RowFormat(Format):  # type: ignore[misc]  # ultralytics is untyped
    """The last transform: boxes become tensors, and class ids are split into rows and class ids."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Parameters of the image, with `rows` (n,) beside `cls` (n, 1)."""
        params: dict[str, Any] = super().get_params(labels)
        rows, params["cls"] = unpack(params["cls"].reshape(-1, 1))
        params["rows"] = rows.reshape(-1)
        return params

    def apply_instances(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Tensors of the boxes, with `rows` (n,) int64."""
        assert params is not None, "Format passes its own parameters on"
        formatted: dict[str, Any] = super().apply_instances(labels, params)
        formatted["rows"] = torch.from_numpy(np.ascontiguousarray(params["rows"][: params["nl"]]))
        return formatted


_NOWHERE = Path(os.devnull) / "none.npy"


class SourceDataset(YOLODataset):  # type: ignore[misc]  # ultralytics is untyped
    """A detection source as ultralytics reads it; nothing is scanned, dropped, re-sorted or written beside the images.

    Left alone, ultralytics takes labels from a file `labels.cache`, which it unpickles, and pixels from a `.npy` beside
    an image, as long as sizes and dates agree, and writes both there. Here labels are those of the source, and decoded
    images are kept only with `cache="disk"`, in `decoded`, under the digest of their file.

    Args:
        source: images with their boxes.
        decoded: folder of our own for decoded images.
        **arguments: those of `YOLODataset`.

    Raises:
        TrainArgumentError: cache="disk", where the images are no files of their own.
    """

    def __init__(self, source: DetectionSource, *, decoded: Path | None = None, **arguments: Any) -> None:
        in_tars = any(not isinstance(record.path, Path) for record in source.records[:1])
        if arguments.get("cache") == "disk" and (in_tars or decoded is None):
            raise TrainArgumentError(
                "Training argument cache=disk keeps images that are files of their own, and images in shards are none; "
                "use cache=ram, or leave it out."
            )
        self.source = source
        self._kept = [index for index in range(len(source.records)) if self._is_readable(index)]
        self._decoded = decoded
        self._npy_files: list[Path] = []
        super().__init__(img_path=str(source.root), **arguments)

    @property
    def npy_files(self) -> list[Path]:
        """Where each image lies decoded, if anywhere."""
        return self._npy_files

    @npy_files.setter
    def npy_files(self, beside: list[Path]) -> None:
        """Not beside the images, where ultralytics would have them."""
        self._npy_files = [_NOWHERE] * len(beside)

    def check_cache_disk(self, safety_margin: float = 0.1) -> bool:
        """Whether the decoded images fit on the disk; prepares their place."""
        assert self._decoded is not None, "checked when the data set was made"
        self._decoded.mkdir(parents=True, exist_ok=True)
        records = [self.source.records[index] for index in self._kept[: self.ni]]
        needed = (1 + safety_margin) * sum(self.channels * record.width * record.height for record in records)
        if needed > (free := shutil.disk_usage(self._decoded).free):
            self.cache = None
            LOGGER.warning(
                f"{self.prefix}cache=disk needs {needed / 2**30:.1f} GiB under {self._decoded}, {free / 2**30:.1f} GiB "
                "are free; images are read from their files"
            )
            return False
        with ThreadPool(NUM_THREADS) as pool:
            digests = pool.map(lambda file: image_digest(Path(file)), self.im_files)
        self._npy_files = [self._decoded / f"{digest}.npy" for digest in digests]
        return True

    def get_img_files(self, img_path: str) -> list[Any]:  # noqa: ARG002  (the source names the files)
        """Files of the source in its order, or members of tars; the first of them where `fraction` asks for less."""
        count = self.fraction if isinstance(self.fraction, int) else max(1, round(len(self._kept) * self.fraction))
        files = [self.source.records[index].path for index in self._kept[:count]]
        on_disk = [str(file) for file in files if isinstance(file, Path)]
        if on_disk:
            check_file_speeds(on_disk, prefix=self.prefix)  # it also draws: a run then repeats that of `yolo train`
        return on_disk or files

    def get_labels(self) -> list[dict[str, Any]]:
        """One label per image."""
        return [_label(self.source.records[index]) for index in self._kept[: len(self.im_files)]]

    def left_out(self) -> list[str]:
        """What this data set does not learn from, one line each; empty where it learns from all of it."""
        count = len(self.source.records) - len(self._kept)
        return [f"{count} of {len(self.source.records)} images cannot be decoded and are left out"] if count else []

    def _is_readable(self, index: int) -> bool:
        """Whether an image can be decoded."""
        return self.source.records[index].readable


class RegionDataset(SourceDataset):
    """A detection source whose boxes know their rows.

    Args:
        source: images with their boxes.
        first_row: (images + 1,) rows of image i are first_row[i]:first_row[i + 1], in the order of its boxes; None
            gives every box `NO_TARGET`.
        targets: looked up for every batch, which then has `targets` (n, D) float32 beside `rows` (n,) int64; None
            adds neither.
        seed: of the augmentations; those of a sample follow from this seed, the epoch and the number of the image.
        **arguments: those of `SourceDataset`.

    Raises:
        TrainArgumentError: as `SourceDataset`.
    """

    format_class = RowFormat

    def __init__(
        self,
        source: DetectionSource,
        *,
        first_row: NDArray[np.int64] | None = None,
        targets: RegionTargets | None = None,
        seed: int = 0,
        **arguments: Any,
    ) -> None:
        self.source = source
        self.first_row = first_row
        self.targets = targets
        self._seed = seed
        self._is_aside = np.zeros(source.num_regions if targets is None else len(targets), bool)
        if targets is not None:
            self._is_aside[targets.set_aside] = True
        self._epoch = 0
        super().__init__(source, **arguments)

    def __getitem__(self, code: int) -> dict[str, Any]:
        """An augmented sample of the epoch and image that `EpochBatches` names; a plain index is one of epoch 0."""
        epoch, index = divmod(code, len(self))
        if self.augment:
            seed_everything(self._seed, epoch, index)
            if epoch != self._epoch:
                self._epoch = epoch
                self.forget_partners()
        sample: dict[str, Any] = super().__getitem__(index)
        return sample

    def get_labels(self) -> list[dict[str, Any]]:
        """One label per image, with `rows` (n, 1)."""
        labels = super().get_labels()
        for index, label in zip(self._kept, labels, strict=False):
            label["rows"] = self._rows(index).reshape(-1, 1)
        return labels

    def build_transforms(self, hyp: Any) -> Any:
        """As ultralytics', less what it adds where albumentations is installed and what would change colours."""
        if self.targets is not None:
            hyp.augmentations = []
        return super().build_transforms(hyp)

    def forget_partners(self) -> None:
        """Empty the store from which a mosaic draws its partners, so that none of them is from an earlier epoch."""
        if self.cache != "ram":
            for index in self.buffer:
                self.ims[index] = self.im_hw0[index] = self.im_hw[index] = None
        self.buffer.clear()

    def left_out(self) -> list[str]:
        """Also of regions without a target."""
        lines = []
        rows = [row for label in self.labels for row in label["rows"].ravel()]
        if self.targets is not None and (count := rows.count(NO_TARGET)):
            lines.append(
                f"{count} of {len(rows)} regions have no target, set aside by the teacher cache; they count for "
                "detection only"
            )
        return lines + super().left_out()

    def _rows(self, index: int) -> NDArray[np.int64]:
        if self.first_row is None:
            return np.full(len(self.source.records[index].class_ids), NO_TARGET, dtype=np.int64)
        rows = np.arange(self.first_row[index], self.first_row[index + 1], dtype=np.int64)
        return np.where(self._is_aside[rows], NO_TARGET, rows)

    def _is_readable(self, index: int) -> bool:
        """Whether an image can be decoded. Only an image whose boxes were all set aside is tried."""
        record = self.source.records[index]
        if not record.readable:
            return False
        rows = self._rows(index)
        if self.targets is None or not len(rows) or (rows != NO_TARGET).any():
            return True
        return is_decodable(record.path)

    def update_labels(self, include_class: Sequence[int] | None) -> None:
        """Keeps the boxes of the given classes (all where None), and their rows with them."""
        if include_class is not None:
            for label in self.labels:
                label["rows"] = label["rows"][np.isin(label["cls"].reshape(-1), include_class)]
        super().update_labels(include_class)

    def update_labels_info(self, label: dict[str, Any]) -> dict[str, Any]:
        """Called for every image that enters the augmentations, partners of a mosaic or mixup included."""
        label["cls"] = pack(label.pop("rows"), label["cls"])
        updated: dict[str, Any] = super().update_labels_info(label)
        return updated

    def collate_fn(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch as ultralytics makes it, with `rows` and `targets` where the data set has targets."""
        rows = torch.cat([sample.pop("rows") for sample in samples])
        batch: dict[str, Any] = YOLODataset.collate_fn(samples)
        if self.targets is not None:
            found = np.zeros((len(rows), self.targets.dim), dtype=np.float32)
            known = (rows >= 0).numpy()
            if known.any():
                found[known] = self.targets.lookup(rows.numpy()[known])
            batch.update(rows=rows, targets=torch.from_numpy(found))
        return batch


def _label(record: ImageRecord) -> dict[str, Any]:
    """What ultralytics keeps of an image: boxes as centre and size, in shares of the image."""
    corners = record.xyxy / np.array([record.width, record.height, record.width, record.height])
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return {
        "im_file": str(record.path),
        "shape": (record.height, record.width),
        "cls": record.class_ids.astype(np.float32).reshape(-1, 1),
        "bboxes": np.concatenate([centre, size], axis=1).astype(np.float32),
        "segments": [],
        "keypoints": None,
        "normalized": True,
        "bbox_format": "xywh",
    }
