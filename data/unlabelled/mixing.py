"""Gives pictures their boxes: ground truth, a detector's, the whole picture, seeded crops, or several of these."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.boxes import Boxes, box_iou, clip_boxes
from mocha_pipe.data.types import ImageRecord, Problem
from mocha_pipe.data.unlabelled.crops import seeded_crops, whole_picture
from mocha_pipe.data.unlabelled.pictures import Look, Picture, look_at
from mocha_pipe.data.unlabelled.writing import Labelled, without_repeats

REGION_CLASS = "region"
"""Class of what no detector found and nobody labelled."""
_SAME_THING = 0.5  # IoU from which a detection is what was labelled already
_AT_ONCE = 256  # pictures; bounds what a detector must hold of them

Regions = tuple[Boxes, tuple[str, ...]]
"""Boxes of a picture in pixels, and the class of each."""
_NO_REGIONS: Regions = (np.zeros((0, 4)), ())
Detect = Callable[[Sequence[ImageRecord]], Sequence[Regions]]
"""Finds things in pictures: for each its boxes, the most confident one first."""


@dataclass(frozen=True, kw_only=True)
class RegionChoice:
    """Where boxes come from; the sources add up."""

    ground_truth: bool = False
    """Those of the data sets among the pictures."""
    detector: Path | None = None
    """Weights of a detector (.pt), or the folder of a student."""
    confidence: float = 0.25
    """Detections need more than this."""
    most: int = 50
    """Detections of a picture, the most confident ones."""
    whole: bool = False
    """Each picture as a box."""
    crops: int = 0
    """Seeded crops of each picture."""
    seed: int = 0
    """Of the crops."""
    val_share: float = 0.05
    """Share of the pictures for validation, where they are in no split."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Pictures with their boxes."""

    labelled: tuple[Labelled, ...]
    class_names: tuple[str, ...]
    boxes: Mapping[str, int]
    """By source."""
    problems: tuple[Problem, ...]
    """Pictures that were left out."""


def mix(
    pictures: Sequence[Picture],
    choice: RegionChoice,
    *,
    truth_names: Sequence[str] = (),
    detector_names: Sequence[str] = (),
    detect: Detect | None = None,
    progress: bool = False,
) -> Mixture:
    """Look at every picture and give it its boxes, which follow from it and the choice alone.

    Args:
        pictures: Each content once.
        choice: Where boxes come from.
        truth_names: Classes of the ground truth.
        detector_names: All classes of the detector, so that ids do not depend on what it finds.
        detect: The detector.
        progress: Show a bar.
    """
    names = [*(truth_names if choice.ground_truth else ()), *detector_names]
    names += [REGION_CLASS] if choice.whole or choice.crops else []
    class_ids = {name: number for number, name in enumerate(dict.fromkeys(names))}
    labelled: list[Labelled] = []
    boxes: Counter[str] = Counter()
    problems: list[Problem] = []
    with tqdm(total=len(pictures), desc="find regions", unit="image", delay=2, disable=not progress) as bar:
        for seen in _seen(pictures, problems):
            records = [_record(picture, look) for picture, look in seen]
            found = detect(records) if detect else [_NO_REGIONS] * len(seen)
            for (picture, look), detections in zip(seen, found, strict=True):
                sources = dict(_sources(picture, look, detections, choice))
                boxes.update({source: len(own) for source, (_, own) in sources.items()})
                each = Labelled(
                    picture=picture,
                    look=look,
                    xyxy=np.concatenate([_NO_REGIONS[0], *(xyxy for xyxy, _ in sources.values())]),
                    class_ids=np.array([class_ids[name] for _, own in sources.values() for name in own], np.int64),
                )
                labelled.append(without_repeats(each))
            bar.update(len(labelled) + len(problems) - bar.n)
    return Mixture(labelled=tuple(labelled), class_names=tuple(class_ids), boxes=dict(boxes), problems=tuple(problems))


def _seen(pictures: Iterable[Picture], problems: list[Problem]) -> Iterator[list[tuple[Picture, Look]]]:
    """Groups of pictures that can be decoded; the problems of the others are added to those known."""
    remaining = iter(pictures)
    while group := list(itertools.islice(remaining, _AT_ONCE)):
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding leaves the GIL
            looks = list(pool.map(look_at, group))
        problems += [look for look in looks if isinstance(look, Problem)]
        yield [(picture, look) for picture, look in zip(group, looks, strict=True) if isinstance(look, Look)]


def _record(picture: Picture, look: Look) -> ImageRecord:
    """The picture without boxes, as a detector takes it."""
    return ImageRecord(
        path=picture.file, name=picture.digest, width=look.width, height=look.height,
        xyxy=np.zeros((0, 4)), class_ids=np.zeros(0, np.int64),
    )  # fmt: skip


def _sources(picture: Picture, look: Look, detections: Regions, choice: RegionChoice) -> Iterator[tuple[str, Regions]]:
    """The boxes from each source that was chosen."""
    width, height = look.width, look.height
    if choice.ground_truth:
        yield "ground_truth", (picture.xyxy, picture.classes)
    if choice.detector:
        yield "detector", _new(detections, picture.xyxy if choice.ground_truth else _NO_REGIONS[0], choice.most, look)
    if choice.whole:
        yield "whole", (whole_picture(width, height), (REGION_CLASS,))
    if choice.crops:
        crops = seeded_crops(picture.digest, width, height, count=choice.crops, seed=choice.seed)
        yield "crops", (crops, (REGION_CLASS,) * len(crops))


def _new(detections: Regions, truth: Boxes, most: int, look: Look) -> Regions:
    """The most confident detections of what is not labelled yet, on whole pixels.

    A detector's corners differ in their last digits between devices. Whole pixels take most of that out of the keys,
    and the teacher's crop ends at whole pixels anyway.
    """
    xyxy, names = detections
    xyxy = clip_boxes(np.rint(xyxy), look.width, look.height)
    is_new = box_iou(xyxy, truth).max(axis=1, initial=0) < _SAME_THING
    has_area = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1)
    rows = np.flatnonzero(is_new & has_area)[:most]
    return xyxy[rows], tuple(names[row] for row in rows)
