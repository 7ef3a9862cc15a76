"""One forward pass per image of a pool: what the detector finds, and an embedding of each detection and each known box.

Legend: B images of a batch, M detections, R ground-truth regions, D width of an embedding.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision  # type: ignore[import-untyped]  # noqa: F401  (ultralytics' NMS uses it only where it is imported)
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from ultralytics.data.augment import LetterBox
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import scale_boxes

from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.student.environment import cpu_threads
from mocha_pipe.student.network.features import FeatureMaps, region_features, tap
from mocha_pipe.student.network.pool_pass import PoolPass
from mocha_pipe.student.network.student_files import Student
from mocha_pipe.student.network.translation import TranslationModule

NMS_IOU = 0.7  # ultralytics' own default for predict and val
_NMS_SECONDS = 60.0  # per image; at the default a slow machine would lose detections with no more than a warning
_BOXES_AT_ONCE = 64  # per image; bounds the memory of pooling, which grows with boxes x cells of the finest map
_MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scene:
    """One image, letterboxed, and where the picture lies in it."""

    pixels: NDArray[np.uint8]  # (S, S, 3)
    original: tuple[int, int]  # height, width
    area: NDArray[np.float64]  # (4,)
    """Corners of the picture in letterboxed pixels."""
    regions: NDArray[np.float64]  # (r, 4)
    """Ground-truth boxes in letterboxed pixels."""


def _scenes(records: Sequence[ImageRecord], size: int) -> list[_Scene]:
    """Images of a batch, decoded and letterboxed as ultralytics' predictor does with `rect=False`."""
    letterbox, scenes = LetterBox((size, size), auto=False), []
    for record in records:
        image = read_image(record.path)
        height, width = image.shape[:2]
        pixels = letterbox(image=image)
        area = picture_area(pixels.shape[:2], (height, width))
        gain = np.tile((area[2:] - area[:2]) / [width, height], 2)  # letterboxed pixels per original pixel
        regions = record.xyxy * gain + np.tile(area[:2], 2)
        scenes.append(_Scene(pixels=pixels, original=(height, width), area=area, regions=regions))
    return scenes


class RegionEmbedder:
    """Runs a student over images; the student itself stays as it is.

    Boxes and scores are those of `YOLO("student.pt").predict(..., rect=False)` at the same image size and confidence.
    An embedding is made of the student's features of the box, translated where the student has a translation module.
    """

    def __init__(
        self,
        student: Student,
        *,
        image_size: int,
        confidence: float = 0.1,
        batch: int = 16,
        device: str | torch.device = "cpu",
    ) -> None:
        """Prepares a fused copy of the student on the device.

        Args:
            student: detector and, where it was distilled, translation module.
            image_size: pixels of the square that images are letterboxed to, rounded up to the detector's stride.
            confidence: detections need more than this (the reference uses 0.1, or 0.001 for CORe50 and iCubWorld).
            batch: images per forward pass.
            device: where to compute, in float32; on CUDA convolutions round to TF32, as torch lets them.
        """
        self.device = torch.device(device)
        self.confidence = confidence
        self.batch = batch
        self.features = student.features
        # Of a detector's two heads (26) the one that needs NMS answers, as in ultralytics' predict by default.
        detector: Any = deepcopy(student.detector)
        detector.end2end = False
        detector = detector.fuse(verbose=False).float().eval().to(self.device, memory_format=torch.channels_last)
        self.detector = detector
        translation = deepcopy(student.translation)
        self.translation = None if translation is None else translation.float().eval().to(self.device)
        stride = max(int(detector.stride.max()), 32)
        self.image_size = -(-image_size // stride) * stride

    @torch.inference_mode()
    def embed_pool(self, source: DetectionSource, *, progress: bool = False) -> PoolPass:
        """Detect and embed every image of a source.

        Args:
            source: images with their ground-truth boxes, which need not be those that the detector knows.
            progress: show a bar.

        Raises:
            data.errors.DatasetError: if an image cannot be read.
        """
        if self.device.type == "cpu":
            torch.set_num_threads(cpu_threads())
        loader: DataLoader[ImageRecord] = DataLoader(
            source.records,  # type: ignore[arg-type]  # any sequence will do
            batch_size=self.batch,
            num_workers=_num_workers(self.device),
            collate_fn=partial(_scenes, size=self.image_size),
        )
        found: list[Tensor] = []  # per image (m, 6): xyxy in original pixels, score, class
        detected: list[Tensor] = []  # per image (m, D)
        regions: list[Tensor] = []  # per image (r, D)
        with (
            tap(self.detector, self.features) as maps,
            tqdm(total=len(source.records), desc="embedding scenes", unit="image", disable=not progress) as bar,
        ):
            for scenes in loader:
                detections = self._detect(scenes)
                embeddings = self._embed(maps, scenes, detections)
                for scene, rows, embedding in zip(scenes, detections, embeddings, strict=True):
                    scale_boxes((self.image_size, self.image_size), rows[:, :4], scene.original)  # in place
                    found.append(rows.cpu())
                    detected.append(embedding[: len(rows)].cpu())
                    regions.append(embedding[len(rows) :].cpu())
                bar.update(len(scenes))
        rows_M6 = torch.cat(found).numpy()
        return PoolPass(
            detection_image=np.repeat(np.arange(len(found)), [len(rows) for rows in found]),
            detection_xyxy=rows_M6[:, :4].copy(),
            detection_score=rows_M6[:, 4].copy(),
            detection_coarse=rows_M6[:, 5].astype(np.int64),
            detection_embedding=torch.cat(detected).numpy(),
            region_embedding=torch.cat(regions).numpy(),
        )

    def _detect(self, scenes: Sequence[_Scene]) -> list[Tensor]:
        """Per image (m, 6): xyxy in letterboxed pixels, score, class, best score first; the tap keeps the maps."""
        pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes])).to(self.device)  # (B, S, S, 3)
        images = pixels.permute(0, 3, 1, 2).float() / 255  # channels last in memory, as the detector's weights
        predictions = self.detector(images)
        detections: list[Tensor] = non_max_suppression(
            predictions, self.confidence, NMS_IOU, end2end=self.detector.end2end, max_time_img=_NMS_SECONDS
        )
        return detections

    def _embed(self, maps: FeatureMaps, scenes: Sequence[_Scene], detections: Sequence[Tensor]) -> list[Tensor]:
        """Per image (m + r, D): its detections, then its ground-truth regions."""
        boxes = [
            torch.cat([rows[:, :4], torch.from_numpy(scene.regions).to(rows)])
            for scene, rows in zip(scenes, detections, strict=True)
        ]
        areas = np.stack([scene.area for scene in scenes])
        return embed_boxes(maps, self.translation, boxes, areas, (self.image_size, self.image_size))


def picture_area(tensor: tuple[int, int], image: tuple[int, int]) -> NDArray[np.float64]:  # (4,)
    """Where the picture lies in the tensor that it was letterboxed to: left, top, right, bottom, in its pixels.

    As ultralytics' `LetterBox` places it, with padding to a square or to the next multiple of the stride.

    Args:
        tensor: height and width of what enters the network.
        image: height and width of the picture before.
    """
    gain = min(tensor[0] / image[0], tensor[1] / image[1])
    height, width = (max(round(side * gain), 1) for side in image)
    left, top = round((tensor[1] - width) / 2 - 0.1), round((tensor[0] - height) / 2 - 0.1)
    return np.array([left, top, left + width, top + height], np.float64)


def embed_boxes(
    maps: FeatureMaps,
    translation: TranslationModule | None,
    boxes: Sequence[Tensor],
    areas_B4: NDArray[np.float64],
    tensor: tuple[int, int],
) -> list[Tensor]:
    """Embeddings of boxes, each clipped to its picture: a detector also finds things in the padding.

    Args:
        maps: of one batch of images.
        translation: from features to embeddings, in evaluation mode; None takes the means as they are.
        boxes: per image (m, 4), xyxy in pixels of the tensor that entered the network.
        areas_B4: where each picture lies in that tensor (`picture_area`).
        tensor: its height and width.

    Returns:
        Per image (m, D) float32.
    """
    maps = maps if translation is None else translation.own_maps(maps)
    sides = torch.tensor([tensor[1], tensor[0]] * 2, dtype=torch.float32, device=boxes[0].device)
    low_B4, high_B4 = (torch.from_numpy(np.tile(corner, 2)).to(sides) for corner in (areas_B4[:, :2], areas_B4[:, 2:]))
    shares = [own.float().clamp(low, high) / sides for own, low, high in zip(boxes, low_B4, high_B4, strict=True)]
    parts: list[list[Tensor]] = [[] for _ in boxes]
    for first in range(0, max(1, *(len(own) for own in boxes)), _BOXES_AT_ONCE):
        group = [own[first : first + _BOXES_AT_ONCE] for own in shares]
        counts = [len(own) for own in group]
        image = torch.repeat_interleave(torch.tensor(counts)).to(sides.device)
        features = region_features(maps, image, torch.cat(group))
        embedded = features.means if translation is None else translation.embed(features)
        for own, part in zip(parts, torch.split(embedded, counts), strict=True):
            own.append(part)
    return [torch.cat(own) for own in parts]


def _num_workers(device: torch.device) -> int:
    """Processes that decode images ahead of an accelerator; on a CPU they would compete with the network for cores."""
    return 0 if device.type == "cpu" else min(_MOST_WORKERS, cpu_threads())
