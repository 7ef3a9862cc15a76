"""Learning an object from photos: which student looks at them, which profile it goes into, and a picture to look at."""

import io
import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.errors import quoted
from mocha_pipe.data.images import read_image
from mocha_pipe.data.names import as_typed, file_part
from mocha_pipe.pipeline.markers import read_completion
from mocha_pipe.pipeline.personal.photos import PersonalizeError, Shown, find_object
from mocha_pipe.pipeline.run.inputs import DISTILL, DISTILL_COMMAND, last_distillation
from mocha_pipe.student.choices import default_learner
from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.strangers import DEFAULT_RATE, load_strangers
from mocha_pipe.student.personal.naming import Namer
from mocha_pipe.student.personal.profile import Profile, student_digest
from mocha_pipe.student.personal.profile_file import changing

PROFILE_FILE = "profile.safetensors"
_PICTURE_SIDE = 640  # pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Learnt:
    """An object and what was made of its photos; `save` writes it."""

    name: str
    profile: Profile
    """With the object."""
    shown: Sequence[Shown]
    """The object in each photo."""
    strangers: NDArray[np.float32]  # (U,)
    """How close strangers come, ascending."""

    def warnings(self) -> list[str]:
        """What may keep the object from being found again, by what the detector makes of these very photos."""
        namer = Namer(self.profile, self.strangers, DEFAULT_RATE)
        told = [text for shown in self.shown if (text := self._not_found_again(shown, namer))]
        told += [
            f"{self.name} looks like {other} (cosine {cosine:.2f}): is it one object, or one photo under two names? "
            f"forget one of them with: mocha-pipe profile remove {as_typed(self.name)}"
            for first, second, cosine in self.profile.alike()
            if self.name in (first, second)
            for other in {first, second} - {self.name}
        ]
        return told + ([namer.shortfall] if namer.shortfall else [])

    def _not_found_again(self, photo: Shown, namer: Namer) -> str | None:
        """Why a detection in this photo would not get the object's name; None where one would."""
        profile = self.profile
        said, own = [profile.class_name(coarse) for coarse in photo.said], profile.class_name(photo.coarse)
        if not said:
            return f"{photo.photo}: the detector boxes nothing there, and {self.name} is found only where it does"
        if profile.learner.by_class and own not in said:
            return (
                f"{photo.photo}: the detector says {' or '.join(said)} there, and {self.name} is looked for where it "
                f"says {own}; learn it with --class {quoted(said[0])}, or in another profile with --learner "
                "simpleshot, to which the class does not matter"
            )
        embeddings = np.stack([seen.embedding for seen in photo.seen])
        ids, _ = namer(embeddings, np.array([seen.coarse for seen in photo.seen]))
        called = [profile.names[personal] for personal in ids.tolist() if personal != UNKNOWN]
        if self.name in called:
            return None
        box = ",".join(map(str, photo.seen[0].xywh))
        if called:
            return (
                f"{photo.photo}: what the detector boxes there is called {called[0]}, to which it is closer; show "
                f"{self.name} in more photos, or as the detector boxes it: --box {box}"
            )
        return (
            f"{photo.photo}: what the detector boxes there is not close enough to what was learnt to be called "
            f"{self.name}; learn it as the detector boxes it, --box {box}, or show it in more photos"
        )

    def save(self, path: Path) -> tuple[Profile, int]:
        """Write the object into the file as it is by now: another process may have learnt something meanwhile.

        Returns:
            The profile that the file holds, and how many of the photos its object had been learnt from before.

        Raises:
            PersonalizeError, ProfileError: the file has become another student's, or has another learner.
        """
        fresh = Profile.empty(self.profile.student, self.profile.class_names, learner=self.profile.learner.name)
        with changing(path):
            known = _open_profile(path, fresh, self.profile.learner.name)
            profile = _add(known, self.name, self.shown)
            profile.save(path)
        before = sum(known.photos(self.name).values()) if self.name in known.names else 0
        return profile, before + len(self.shown) - sum(profile.photos(self.name).values())


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
) -> Learnt:
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

    Raises:
        DatasetError, DatasetNotFoundError: a photo is missing or damaged.
        PersonalizeError: it is not clear what to learn.
        ProfileError: the profile is another student's or no whole file, or the name is none.
        PrototypeError: there is no such learner.
        StudentModelError, StudentModelNotFoundError: no student, or one that was not measured.
    """
    from mocha_pipe.student.network.student_files import load_student

    digest, student, strangers = student_digest(folder), load_student(folder), load_strangers(folder)
    fresh = Profile.empty(digest, student.class_names, learner=learner or default_learner(student.features))
    known = _open_profile(profile, fresh, learner)
    name = known.check_name(name)
    shown = find_object(
        student, photos, boxes=boxes, class_name=class_name, confidence=confidence, device=device,
        by_class=known.learner.by_class,
    )  # fmt: skip
    return Learnt(name=name, profile=_add(known, name, shown), shown=shown, strangers=strangers)


def _add(known: Profile, name: str, shown: Sequence[Shown]) -> Profile:
    """The profile with an object's photos."""
    return known.add(
        name,
        np.stack([photo.embedding for photo in shown]),
        np.array([photo.coarse for photo in shown]),
        photos=[photo.digest for photo in shown],
        boxes_N4=np.array([photo.xyxy for photo in shown]),
    )


def student_folder(root: Path, named: Path | None) -> Path:
    """The folder of the student that was named, else of the one distilled last under the root.

    Raises:
        StageMissingError: no distillation was completed.
    """
    if named:
        return named
    run = last_distillation(root, "a student's folder with --student")
    return read_completion(run, stage=DISTILL, command=DISTILL_COMMAND, outputs=("student",)).path("student")


def _open_profile(path: Path, fresh: Profile, learner: str | None) -> Profile:
    """The profile of a student; `fresh`, which is empty, where there is no file."""
    if not path.exists():
        return fresh
    profile = Profile.load(path)
    profile.check_student(fresh.student)
    if learner not in (None, profile.learner.name):
        raise PersonalizeError(
            f"the objects of a profile share one learner, {path} has {profile.learner.name}, found --learner "
            f"{learner}; leave it out, or begin another profile with --profile"
        )
    return profile


def draw(shown: Shown, name: str, class_name: str, folder: Path) -> Path:
    """Write the photo, at most 640 pixels wide and high, with the object's box and its name and class.

    Returns:
        The picture's file, which has a name of its own: no other picture is replaced.
    """
    from PIL import Image

    from mocha_pipe.student.personal.labels import Annotator, colors

    image = Image.fromarray(read_image(shown.photo))
    scale = min(1.0, _PICTURE_SIDE / max(image.size))
    image = image.resize([max(1, round(side * scale)) for side in image.size])
    label = f"{name} ({class_name})"
    annotator = Annotator(np.array(image), pil=True, example=label)
    annotator.box_label([side * scale for side in shown.xyxy], label, color=colors(shown.coarse))
    drawn = io.BytesIO()
    Image.fromarray(annotator.result()).save(drawn, "JPEG", quality=88)
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / f"{file_part(f'{name} {shown.photo.stem}')}{f'-{number}' * (number > 1)}.jpg"
        with suppress(FileExistsError), path.open("xb") as file:
            try:
                file.write(drawn.getvalue())
                file.flush()
            except OSError:
                path.unlink()
                raise
            return path
    raise AssertionError("numbers do not end")
