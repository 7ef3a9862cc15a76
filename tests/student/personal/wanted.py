"""What PyTorch finds in pictures and how it names them: what an exported file's answers are compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from ultralytics.utils.ops import scale_boxes

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.strangers import accept_above
from mocha_pipe.student.network.embedder import RegionEmbedder, picture_area
from mocha_pipe.student.network.pool_pass import PoolPass
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.student.personal.graph import PersonalDetections
from mocha_pipe.student.personal.naming import Namer, named_once
from mocha_pipe.student.personal.profile import Profile, student_digest
from tests.student.personal.conftest import CLASSES, RATE, SIZE, STRANGERS, letterboxed

FAINTEST = 0.4
LEAST, MOST = 5, 12  # detections of an image that are compared

Runner = Callable[[dict[str, NDArray[np.generic]]], Sequence[NDArray[np.generic]]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What PyTorch finds in a source, and the names that the namer gives."""

    source: DetectionSource
    size: int
    confidence: list[float]
    """For each image, so that it has a handful of detections and none of their scores is near."""
    found: PoolPass
    """With these and fainter ones."""
    profile: Profile
    personal: NDArray[np.int64]
    closeness: NDArray[np.float64]
    stays: NDArray[np.bool_]
    """`named_once`."""

    def rows(self, image: int) -> NDArray[np.int64]:
        """Of `found`: what is above the confidence."""
        return np.flatnonzero(
            self.stays & (self.found.detection_image == image) & (self.found.detection_score > self.confidence[image])
        )

    def inputs(self, image: int) -> dict[str, NDArray[np.generic]]:
        record, learner = self.source.records[image], self.profile.learner
        counts = learner.candidates(learner.coarse_)
        thresholds = [accept_above(STRANGERS, RATE, count) for count in counts.tolist()]
        return {
            "image": letterboxed(record.path, self.size),
            "area": picture_area((self.size, self.size), (record.height, record.width)).astype(np.float32),
            "prototypes": learner.compared(), "coarse": learner.coarse_, "objects": learner.personal_,
            "threshold": np.array(thresholds, np.float32),
            "confidence": np.array([self.confidence[image]], np.float32), "regions": np.zeros((0, 4), np.float32),
        }  # fmt: skip


def want(folder: Path, source: DetectionSource, learner: str = "conditional", size: int = SIZE) -> Wanted:
    """Two objects of each class but the last are detections of the source, seen once or twice."""
    embedder = RegionEmbedder(load_student(folder), image_size=size, confidence=FAINTEST)
    found = embedder.embed_pool(source)
    profile = Profile.empty(student_digest(folder), CLASSES, learner=learner)
    for coarse, name in enumerate(CLASSES[:-1]):
        rows = np.flatnonzero(found.detection_coarse == coarse)
        last = rows[found.detection_image[rows] == found.detection_image[rows[-1]]]
        for number, shown in enumerate((last[:1], rows[:2])):
            profile = profile.add(f"{name} {number}", found.detection_embedding[shown], np.full(len(shown), coarse))
    rows, _ = profile.learner.nearest(found.detection_embedding, found.detection_coarse)
    personal, _ = Namer(profile, STRANGERS, RATE)(found.detection_embedding, found.detection_coarse)
    scores = [found.detection_score[found.detection_image == image] for image in range(len(source.records))]
    return Wanted(
        source=source, size=size, confidence=[between_scores(own) for own in scores], found=found,
        profile=profile, personal=personal, closeness=profile.learner.closeness(found.detection_embedding, rows),
        stays=named_once_in(embedder, source, found, personal, size),
    )  # fmt: skip


def named_once_in(
    embedder: RegionEmbedder, source: DetectionSource, found: PoolPass, personal: NDArray[np.int64], size: int
) -> NDArray[np.bool_]:
    """By boxes in letterboxed pixels, before they are clipped to the picture."""
    stays = []
    for image, record in enumerate(source.records):
        pixels = np.uint8(letterboxed(record.path, size)[0].transpose(1, 2, 0) * 255 + 0.5)
        with torch.inference_mode():
            (rows,) = embedder._detect([SimpleNamespace(pixels=pixels)])
        here = found.detection_image == image
        np.testing.assert_array_equal(rows[:, 5], found.detection_coarse[here])
        stays.append(named_once(rows[:, :4].numpy(), personal[here], found.detection_coarse[here]))
    return np.concatenate(stays)


def between_scores(scores: NDArray[np.float32]) -> float:
    """A confidence in the widest gap after the LEAST to MOST best scores, for NMS keeps what it had when more come."""
    if len(scores) <= LEAST:
        return FAINTEST
    gap = LEAST + np.diff(scores[LEAST - 1 : MOST + 1]).argmin()
    return float(scores[gap - 1 : gap + 1].mean())


def onnx_runner(path: Path) -> Runner:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda inputs: session.run(list(PersonalDetections._fields), inputs)


def assert_equal_to_pytorch(run: Runner, wanted: Wanted, images: int) -> None:
    """The same boxes, scores, classes, embeddings, names and closeness, in the same order."""
    found = wanted.found
    for image, record in enumerate(wanted.source.records[:images]):
        answer, here = PersonalDetections(*run(wanted.inputs(image))), wanted.rows(image)
        assert len(answer.boxes) == len(here)
        boxes = scale_boxes((wanted.size, wanted.size), answer.boxes.copy(), (record.height, record.width))
        # Scores equal to within rounding may change places, and clipped to the picture two boxes may be one.
        apart = np.abs(boxes[:, None] - found.detection_xyxy[here]).max(axis=2, initial=0)
        apart += 1e3 * np.abs(answer.scores[:, None] - found.detection_score[here])
        here = here[np.where(answer.classes[:, None] == found.detection_coarse[here], apart, np.inf).argmin(axis=1)]
        assert len(set(here)) == len(here)
        assert (np.diff(answer.scores) <= 0).all()
        np.testing.assert_allclose(boxes, found.detection_xyxy[here], rtol=0, atol=1e-3)
        np.testing.assert_allclose(answer.scores, found.detection_score[here], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(answer.classes, found.detection_coarse[here])
        np.testing.assert_allclose(answer.embeddings, found.detection_embedding[here], rtol=0, atol=1e-3)
        names = np.append(wanted.profile.learner.personal_, UNKNOWN)[answer.personal]
        np.testing.assert_array_equal(names, wanted.personal[here])
        np.testing.assert_allclose(answer.closeness, np.maximum(wanted.closeness[here], -1), rtol=0, atol=1e-4)
