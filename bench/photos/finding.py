"""End to end: one picture of each object is learnt, all others are looked at, and what bears which name is counted.

An object is learnt from its first picture as `mocha-pipe personalize` does without a box: from the clearest detection,
or where it is not clear which one is meant, from the whole picture. The product's way has all objects compete
(`simpleshot`); what it did before looked for an object only under the class of that detection (`conditional`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.figures import Figure
from bench.photos.recipe import CONFIDENCE, FALSE_ACCEPT_RATE
from mocha_pipe.data.types import ImageRecord, PersonalBenchmark
from mocha_pipe.pipeline.evaluation.intervals import seed_mean
from mocha_pipe.pipeline.personal.photos import PersonalizeError, Shown, find_object
from mocha_pipe.student.choices import LearnerName
from mocha_pipe.student.network.student_files import Student, load_student
from mocha_pipe.student.personal.detector import PersonalDetector
from mocha_pipe.student.personal.profile import Profile, student_digest

if TYPE_CHECKING:
    from mocha_pipe.student.personal.predictor import PersonalResults

FOUND_TARGET, WRONG_TARGET = 0.45, 0.15

_MINE = "my "
"""Objects are learnt with this before their names, as one of them may be called like a class."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What was found in one picture."""

    subject: str
    """The object that it shows."""
    names: tuple[str, ...]
    """Personal names of its detections."""

    @property
    def found(self) -> bool:
        """Whether some detection bears the object's own name."""
        return self.subject in self.names

    @property
    def wrong(self) -> bool:
        """Whether some detection bears another object's name."""
        return any(name != self.subject for name in self.names)


Counts = dict[str, float]
"""Shares of pictures, 0..1: `found` and `wrong` as of a `Sight`, `missed` where nothing has a personal name."""


def count(sights: Sequence[Sight]) -> Counts:
    """Shares of all pictures."""
    total = len(sights)
    return {
        "found": sum(sight.found for sight in sights) / total,
        "wrong": sum(sight.wrong for sight in sights) / total,
        "missed": sum(not sight.names for sight in sights) / total,
    }


def count_by_subject(sights: Sequence[Sight]) -> dict[str, Counts]:
    """The same of each object's pictures."""
    subjects = dict.fromkeys(sight.subject for sight in sights)
    return {subject: count([sight for sight in sights if sight.subject == subject]) for subject in subjects}


def split_photos(benchmark: PersonalBenchmark) -> tuple[list[ImageRecord], list[tuple[str, Path]]]:
    """The first picture of each object by name, in the order of the objects, and all others with their object."""
    first: dict[int, ImageRecord] = {}
    others = []
    for record in sorted(benchmark.source.records, key=lambda record: record.name):
        (subject,) = set(record.class_ids.tolist())
        if subject in first:
            others.append((benchmark.source.class_names[subject], benchmark.source.root / record.name))
        else:
            first[subject] = record
    return [first[subject] for subject in sorted(first)], others


def learn_objects(
    folder: Path, benchmark: PersonalBenchmark, photos: Sequence[ImageRecord], learner: LearnerName
) -> tuple[Profile, list[str]]:
    """A profile with one picture of each object; objects that cannot be learnt, as the learner needs a class.

    Args:
        folder: of the student.
        benchmark: the objects.
        photos: a picture of each.
        learner: of the profile.
    """
    student = load_student(folder)
    profile = Profile.empty(student_digest(folder), student.class_names, learner=learner)
    left_out = []
    for name, photo in zip(benchmark.source.class_names, photos, strict=True):
        each = _shown(student, benchmark.source.root / photo.name, photo)
        if profile.learner.by_class and not each.said:
            left_out.append(name)
        else:
            profile = profile.add(f"{_MINE}{name}", each.embedding[None], np.array([each.coarse]))
    return profile, left_out


def _shown(student: Student, picture: Path, photo: ImageRecord) -> Shown:
    find = partial(
        find_object, student, [picture], class_name=None, confidence=CONFIDENCE, device="cpu", by_class=False
    )
    try:
        return find(boxes=[])[0]
    except PersonalizeError:
        return find(boxes=[f"0,0,{photo.width},{photo.height}"])[0]


def look_for_objects(
    folder: Path, profile: Profile, photos: Sequence[tuple[str, Path]]
) -> Iterator[tuple[Sight, "PersonalResults"]]:
    """What the student and the profile find in pictures, one by one."""
    detector = PersonalDetector.load(folder, false_accept_rate=FALSE_ACCEPT_RATE, confidence=CONFIDENCE)
    detector.profile = profile
    for subject, path in photos:
        (result,) = detector(path)
        named = result.boxes.cls[result.is_personal].int().tolist()
        names = (result.names[number].removeprefix(_MINE) for number in named)
        yield Sight(subject=subject, names=tuple(names)), result


def find_objects(
    folder: Path,
    benchmark: PersonalBenchmark,
    learner: LearnerName,
    see: Callable[[Sight, "PersonalResults"], None] | None = None,
) -> tuple[list[Sight], list[str]]:
    """Learn from the first pictures and look at the others.

    Args:
        folder: of the student.
        benchmark: pictures of one object each.
        learner: of the profile.
        see: is shown every result.

    Returns:
        What was found in each, and the objects that could not be learnt.
    """
    first, others = split_photos(benchmark)
    profile, left_out = learn_objects(folder, benchmark, first, learner)
    sights = []
    for sight, result in look_for_objects(folder, profile, others):
        sights.append(sight)
        if see:
            see(sight, result)
    return sights, left_out


def found_figures(
    ours: Sequence[Sequence[Sight]], by_class: Sequence[Sequence[Sight]], left_out: Sequence[int]
) -> dict[str, Figure]:
    """Means over training seeds.

    Args:
        ours: pictures of each seed.
        by_class: the same as it was before, with objects looked for by their class.
        left_out: how many objects could not be learnt so.
    """
    counts, before = ([count(sights) for sights in seeds] for seeds in (ours, by_class))

    def figure(found: Sequence[Counts], name: str, what: str, **target: Any) -> Figure:
        mean = seed_mean(np.array([each[name] for each in found]))
        spread = f"± {mean.high - mean.mean:.3f}; " if np.isfinite(mean.high) else ""
        return Figure(value=mean.mean, note=f"{spread}{what}", **target)

    missed = np.mean([each["missed"] for each in counts])
    setting = f"{len(ours[0])} pictures, confidence {CONFIDENCE:g}, false-accept rate {FALSE_ACCEPT_RATE:g}"
    return {
        "photo_found_1shot": figure(
            counts, "found", f"share of pictures with a detection of the right name; {setting}; no name: {missed:.3f}",
            target=FOUND_TARGET, better="higher",
        ),
        "photo_wrong_1shot": figure(
            counts, "wrong", "share of pictures with a detection of another object's name",
            target=WRONG_TARGET, better="lower",
        ),
        "photo_found_1shot_by_class": figure(
            before, "found",
            f"the paper's features, objects looked for by their class; {np.mean(left_out):.1f} objects have none",
            better="higher",
        ),
        "photo_wrong_1shot_by_class": figure(before, "wrong", "the same", better="lower"),
    }  # fmt: skip


def subjects_of(seeds: Sequence[Sequence[Sight]]) -> dict[str, Counts]:
    """Counts of each object, means over training seeds."""
    counts = [count_by_subject(sights) for sights in seeds]
    return {
        subject: {name: float(np.mean([each[subject][name] for each in counts])) for name in found}
        for subject, found in counts[0].items()
    }
