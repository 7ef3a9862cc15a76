"""Learning an object from photos: which student looks at them, which profile it goes into, and a picture to look at."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mocha_pipe.data.images import read_image
from mocha_pipe.pipeline.personal.photos import PersonalizeError, Shown, find_object
from mocha_pipe.pipeline.run.inputs import DISTILL, DISTILL_COMMAND, last_distillation
from mocha_pipe.pipeline.rundir import read_completion
from mocha_pipe.student.choices import default_learner
from mocha_pipe.student.personal.profile import Profile, student_digest

if TYPE_CHECKING:
    from mocha_pipe.student.network.student_files import Student

PROFILE_FILE = "profile.safetensors"
_PICTURE_SIDE = 640  # pixels


def learn(
    name: str,
    photos: Sequence[Path],
    *,
    profile: Path,
    folder: Path,
    learner: str | None,
    boxes: Sequence[str],
    class_name: str | None,
    confidence: float,
    device: str,
) -> tuple[Profile, list[Shown]]:
    """Learn an object; more photos of one that the profile knows refine it. Nothing is written.

    Args:
        name: what the user calls it.
        photos: image files that show it.
        profile: file of the user's objects; it need not exist.
        folder: of the student.
        learner: what a new profile learns with; None is the student's default.
        boxes: where the object is in each photo as `left,top,width,height`; none leaves that to the detector.
        class_name: what it is to the detector; None is what it detects.
        confidence: detections need more than this. With the one of later detection, what is found now is found then.
        device: torch device.

    Returns:
        The profile with what was learnt, and the object in each photo.

    Raises:
        DatasetError, DatasetNotFoundError: a photo is missing or damaged.
        PersonalizeError: it is not clear what to learn.
        ProfileError: the profile is another student's or no whole file, or the name is none.
        PrototypeError: there is no such learner.
        StudentModelError, StudentModelNotFoundError: no student.
    """
    from mocha_pipe.student.network.student_files import load_student

    digest, student = student_digest(folder), load_student(folder)
    known = _open_profile(profile, digest, student, learner)
    if name in student.class_names:
        raise PersonalizeError(
            f"an object needs a name of its own, {name!r} is what the student calls all of its kind; write one such as "
            f"'my {name}'"
        )
    shown = find_object(
        student, photos, boxes=boxes, class_name=class_name, confidence=confidence, device=device,
        by_class=known.learner.by_class,
    )  # fmt: skip
    embeddings = np.stack([photo.embedding for photo in shown])
    return known.add(name, embeddings, np.array([photo.coarse for photo in shown])), shown


def warnings(name: str, profile: Profile, shown: Sequence[Shown]) -> list[str]:
    """Of each photo in which the detector does not box the object in a way by which it would be found again."""
    told = []
    for photo in shown:
        said = [profile.class_name(coarse) for coarse in photo.said]
        own = profile.class_name(photo.coarse)
        if not said:
            told.append(f"{photo.photo}: the detector boxes nothing there, and {name} is found only where it does")
        elif profile.learner.by_class and own not in said:
            told.append(
                f"{photo.photo}: the detector says {' or '.join(said)} there, and {name} is looked for where it says "
                f"{own}; learn it with --class {shlex.quote(said[0])}, or in another profile with --learner "
                "simpleshot, to which the class does not matter"
            )
    return told


def student_folder(root: Path, named: Path | None) -> Path:
    """The folder of the student that was named, else of the one distilled last under the root.

    Raises:
        StageMissingError: no distillation was completed.
    """
    if named:
        return named
    run = last_distillation(root, "a student's folder with --student")
    return read_completion(run, stage=DISTILL, command=DISTILL_COMMAND).path("student")


def _open_profile(path: Path, digest: str, student: "Student", learner: str | None) -> Profile:
    """The profile of this student, a new one where there is no file."""
    if not path.exists():
        return Profile.empty(digest, student.class_names, learner=learner or default_learner(student.features))
    profile = Profile.load(path)
    profile.check_student(digest)
    if learner not in (None, profile.learner.name):
        raise PersonalizeError(
            f"the objects of a profile share one learner, {path} has {profile.learner.name}, found --learner "
            f"{learner}; leave it out, or begin another profile with --profile"
        )
    return profile


def draw(shown: Shown, label: str, path: Path) -> None:
    """Write the photo, at most 640 pixels wide and high, with the object's box and a label."""
    import mocha_pipe.student.environment  # noqa: F401  (before ultralytics: its fonts are in place then)

    # isort: split
    from PIL import Image
    from ultralytics.utils.plotting import Annotator, colors

    image = Image.fromarray(read_image(shown.photo))
    scale = min(1.0, _PICTURE_SIDE / max(image.size))
    image = image.resize([max(1, round(side * scale)) for side in image.size])
    annotator = Annotator(np.array(image), pil=True, example=label)
    annotator.box_label([side * scale for side in shown.xyxy], label, color=colors(shown.coarse))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(annotator.result()).save(path, quality=88)
