"""How long each rival takes to learn an object, and to name the objects in an image; on one thread, same images.

Both start from an image file. No rival has a threshold: whatever is detected gets the name of the nearest object.
"""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from bench.rivals.yoloe import PromptedDetector, blue_first
from bench.teachers.visual_alone import visual_alone
from bench.timing import thread_seconds
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.student.fewshot.prototypes import make_learner
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.student.personal.detector import PersonalDetector
from mocha_pipe.student.personal.naming import Namer
from mocha_pipe.student.personal.profile import Profile
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

OURS, STUDENT_GALLERY, BASE_GALLERY, CLIP_GALLERY, YOLOE = (
    "mocha", "student gallery", "base gallery", "CLIP gallery", "YOLOE",
)  # fmt: skip
"""The rivals, by the names that the table has."""
LEARNERS = {OURS: "conditional", STUDENT_GALLERY: "gallery", BASE_GALLERY: "gallery", CLIP_GALLERY: "gallery"}
CONFIDENCE = 0.25  # ultralytics' default
_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, kw_only=True, eq=False)
class Race:
    """What the rivals are made from, and the images that they are timed on. Legend: P objects."""

    student: Path
    base: Path
    teacher: TeacherConfig | None
    """None leaves CLIP out."""
    yoloe: Path | None
    """None takes random weights."""
    lessons: Sequence[ImageRecord]
    """One image with one box for each of the P objects."""
    coarse_of: Mapping[str, NDArray[np.int64]]
    """Class ids (P,) of the objects by rival, in the order of that rival's detector."""
    images: Sequence[ImageRecord]
    image_size: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One rival that has learnt all objects."""

    enrol: Callable[[ImageRecord], object]
    """Learns one more object from an image with one box."""
    find: Callable[[ImageRecord], object]
    """Detects objects in an image and names them."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians, in milliseconds of one thread's processor time."""

    enrol: float
    find: float


def run_race(race: Race) -> dict[str, Speed]:
    """The speed of every rival. Wants a process of its own, since it leaves torch one thread."""
    os.environ[_THREADS] = "1"
    rivals = contestants(race)
    found = milliseconds({name: rival.find for name, rival in rivals.items()}, race.images, race.rounds)
    enrolled = milliseconds({name: rival.enrol for name, rival in rivals.items()}, race.lessons, race.rounds)
    return {name: Speed(enrol=enrolled[name], find=found[name]) for name in rivals}


def milliseconds(
    calls: Mapping[str, Callable[[ImageRecord], object]], records: Sequence[ImageRecord], rounds: int
) -> dict[str, float]:
    """Median of each call over all records and rounds. From record to record another call goes first."""
    for call in calls.values():
        call(records[0])
    torch.set_num_threads(1)  # ultralytics sets another number when it sets up a model
    took: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn, record in enumerate([*records] * rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            took[name].append(1000 * thread_seconds(partial(calls[name], record)))
    return {name: statistics.median(values) for name, values in took.items()}


def contestants(race: Race) -> dict[str, Contestant]:
    """Every rival, all objects learnt."""
    weights = {OURS: race.student, STUDENT_GALLERY: race.student, BASE_GALLERY: race.base}
    rivals = {name: _region_names(race, path, name, LEARNERS[name]) for name, path in weights.items()}
    if race.teacher:
        rivals[CLIP_GALLERY] = _crop_names(race, race.teacher)
    rivals[YOLOE] = _prompts(race)
    return rivals


def _region_names(race: Race, weights: Path, name: str, learner: str) -> Contestant:
    """A detector that names its boxes by its own features."""
    student = load_student(weights)
    embedder = RegionEmbedder(student, image_size=race.image_size, confidence=CONFIDENCE)
    coarse_of = race.coarse_of[name]

    def embed(records: Sequence[ImageRecord]) -> NDArray[np.float32]:
        source = DetectionSource(root=Path(), split="photos", class_names=student.class_names, records=tuple(records))
        return embedder.embed_pool(source).region_embedding

    profile = Profile.empty("", student.class_names, learner=learner)
    for index, embedding in enumerate(embed(race.lessons)):
        profile = profile.add(f"object {index}", embedding[None], coarse_of[index : index + 1])
    detector = PersonalDetector.load(weights, confidence=CONFIDENCE, image_size=race.image_size)
    nobody = np.full(2 * len(race.lessons), -1, np.float32)  # strangers that look like no object at all
    detector.namer = Namer(profile, nobody, false_accept_rate=0.5)
    return Contestant(
        enrol=lambda record: profile.add("one more", embed([record]), coarse_of[:1]),
        find=lambda record: detector(blue_first(read_image(record.path))),
    )


def _crop_names(race: Race, config: TeacherConfig) -> Contestant:
    """The base detector, and CLIP over crops of its boxes."""
    teacher = LlavaTeacher.load(replace(config, device="cpu"))
    yolo = YOLO(race.base)

    shown = np.concatenate([look(teacher, read_image(record.path), record.xyxy) for record in race.lessons])
    any_class = np.zeros(len(shown), np.int64)  # a gallery does not use it
    gallery = make_learner(LEARNERS[CLIP_GALLERY]).learn(shown, any_class, np.arange(len(shown)))

    def find(record: ImageRecord) -> NDArray[np.int64]:
        image = read_image(record.path)
        arguments = {"conf": CONFIDENCE, "imgsz": race.image_size, "device": "cpu", "verbose": False}
        (found,) = yolo.predict(blue_first(image), **arguments)
        boxes = found.boxes.xyxy.numpy()
        if not len(boxes):
            return any_class[:0]
        return gallery.predict(look(teacher, image, boxes), np.zeros(len(boxes), np.int64))[0]

    return Contestant(
        enrol=lambda record: copy(gallery).learn(
            look(teacher, read_image(record.path), record.xyxy), any_class[:1], any_class[:1]
        ),
        find=find,
    )


def look(teacher: LlavaTeacher, image: NDArray[np.uint8], boxes: NDArray[np.floating]) -> NDArray[np.float32]:
    """Crops of boxes (n, 4), xyxy pixels, by the teacher's image encoder: (n, D)."""
    margin, size = teacher.spec.crop_margin, teacher.spec.crop_size
    return visual_alone(teacher, [cut_crop(image, box, margin, size) for box in boxes])


def _prompts(race: Race) -> Contestant:
    """YOLOE. What it learns replaces its classes, so one more object has to be learnt with all the others."""
    detector = PromptedDetector(race.yoloe, image_size=race.image_size, device="cpu")
    known = torch.cat([detector.look(record) for record in race.lessons])
    detector.learn(known)
    return Contestant(
        enrol=lambda record: detector.learn(torch.cat([known, detector.look(record)])),
        find=lambda record: detector.find(record, confidence=CONFIDENCE),
    )
