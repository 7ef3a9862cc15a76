"""YOLOE with visual prompts, by ultralytics' own calls.

A box in a photo becomes an embedding, and embeddings become the classes. Visual prompts need no text encoder, so
nothing is fetched. Legend: P objects, D width of an embedding.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from ultralytics import YOLOE
from ultralytics.models.yolo.yoloe import YOLOEVPDetectPredictor
from ultralytics.nn.tasks import YOLOEModel

from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.student.fewshot.episodes import Question, source_regions
from mocha_pipe.student.fewshot.metrics import NamedDetections, recognised_as, recognition_accuracy
from mocha_pipe.student.network.student_files import load_checkpoint

MODEL = "yoloe-v8s.yaml"
"""The smallest of its family that has published weights."""
_FAINTEST = 0.001  # least confidence of a box that may name a region


class PromptedDetector:
    """A YOLOE whose classes are the objects that it was shown."""

    def __init__(self, weights: Path | None, *, image_size: int, device: str) -> None:
        """Load a model.

        Args:
            weights: a YOLOE's `.pt`; None builds one with random weights.
            image_size: pixels of the longer side that images are brought to.
            device: as torch names devices.

        Raises:
            StudentModelError, StudentModelNotFoundError: no checkpoint that can be read.
            ConfigError: not a YOLOE, or one that takes no prompts.
        """
        if weights is not None:
            _check(weights)  # by the restricted loader
        self._yoloe = YOLOE(weights or MODEL)
        self._arguments: dict[str, Any] = {"imgsz": image_size, "device": device, "verbose": False, "save": False}
        task = {"task": self._yoloe.task, "mode": "predict"}
        self._prompted = YOLOEVPDetectPredictor(overrides={**self._arguments, **task})
        self._prompted.setup_model(self._yoloe.model, verbose=False)
        self.bytes = weights.stat().st_size if weights else 2 * sum(w.numel() for w in self._yoloe.model.parameters())
        """Size of the weights' file; without weights, of float16 numbers, as ultralytics stores them."""

    def look(self, record: ImageRecord) -> Tensor:  # (1, D)
        """The visual prompt embedding of an image's only box."""
        self._prompted.set_prompts({"bboxes": record.xyxy, "cls": np.zeros(1, np.int64)})
        embedding_11D: Tensor = self._prompted.get_vpe(blue_first(read_image(record.path)))
        return embedding_11D[0]

    def learn(self, embeddings_PD: Tensor) -> None:
        """Make these the classes, in place of the earlier ones."""
        self._yoloe.set_classes([f"object {index}" for index in range(len(embeddings_PD))], embeddings_PD[None])

    def find(self, record: ImageRecord, *, confidence: float) -> Any:
        """Boxes of one image as ultralytics `Results`; class ids are rows of what was learnt."""
        (found,) = self._yoloe.predict(blue_first(read_image(record.path)), conf=confidence, **self._arguments)
        return found


def accuracies(
    detector: PromptedDetector, source: DetectionSource, questions: Sequence[Question]
) -> NDArray[np.float64]:
    """Share of asked regions with the right name in each episode (E,), 0..100.

    A region gets the name of the most confident box that overlaps it by half or more. An object that is taught by
    several photos is the mean of their embeddings, whose length the head ignores.
    """
    regions = source_regions(source)
    taught = np.unique(np.concatenate([question.support for question in questions]))
    seen = {
        row: detector.look(one_box(source.records[regions.image[row]], regions.xyxy[row]))
        for row in tqdm(taught.tolist(), desc="YOLOE's prompts", unit="box")
    }
    right = []
    for question in tqdm(questions, desc="YOLOE's episodes", unit="episode"):
        support = torch.cat([seen[row] for row in question.support.tolist()])
        objects = (torch.from_numpy(question.support_personal == index) for index in range(question.objects))
        detector.learn(torch.stack([support[rows].mean(dim=0) for rows in objects]))
        found = _detections(detector, source, question.query)
        right.append(recognition_accuracy(question.truth, recognised_as(question.truth, found)))
    return np.array(right)


def one_box(record: ImageRecord, xyxy: NDArray[np.floating]) -> ImageRecord:
    """The same image with one box (4,), of class 0."""
    return replace(record, xyxy=np.asarray(xyxy, np.float64)[None], class_ids=np.zeros(1, np.int64))


def _detections(detector: PromptedDetector, source: DetectionSource, images: NDArray[np.int64]) -> NamedDetections:
    found = [detector.find(source.records[image], confidence=_FAINTEST).boxes.cpu().numpy() for image in images]
    return NamedDetections(
        image=np.repeat(images, [len(boxes) for boxes in found]),
        xyxy=np.concatenate([boxes.xyxy for boxes in found]),
        personal=np.concatenate([boxes.cls for boxes in found]).astype(np.int64),
        score=np.concatenate([boxes.conf for boxes in found]),
    )


def blue_first(image: NDArray[np.uint8]) -> NDArray[np.uint8]:  # (H, W, 3)
    """An image as ultralytics takes arrays."""
    return np.ascontiguousarray(image[:, :, ::-1])


def _check(weights: Path) -> None:
    checkpoint = load_checkpoint(weights)
    model = checkpoint.get("ema") or checkpoint.get("model")
    takes_prompts = isinstance(model, YOLOEModel) and not hasattr(model.model[-1], "lrpc")
    if not takes_prompts:
        found = "one without prompts" if isinstance(model, YOLOEModel) else f"a {type(model).__name__}"
        raise ConfigError(
            f"{weights}: --yoloe must name a YOLOE that takes visual prompts, found {found}; name weights such as "
            "yoloe-v8s-seg.pt"
        )
