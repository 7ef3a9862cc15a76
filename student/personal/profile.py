"""A user's objects as one small file, bound to the student that they were learnt with.

An object takes 4 bytes times the width of an embedding for each coarse class that it was seen as; the learner `gallery`
keeps that much of every photo. Where all objects compete, a photo in which the detector says no class for the object
counts as one of the class `none`, whose coarse id is the number of the student's classes.

Legend: N photos, D width of an embedding.
"""

import hashlib
import shlex
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.student.errors import StudentModelNotFoundError
from mocha_pipe.student.fewshot.learner import PrototypeLearner, unit_rows
from mocha_pipe.student.fewshot.prototypes import make_learner
from mocha_pipe.student.personal.profile_file import ProfileError, read_profile, write_profile

NO_CLASS = "none"
"""What is said in place of a class where the detector says none."""


def student_digest(folder: Path) -> str:
    """Hex of sha256 over the files of a student folder that decide an embedding.

    Raises:
        StudentModelNotFoundError: one of them is missing.
    """
    # Not above: this import brings torch, which profiles do without.
    from mocha_pipe.student.network.student_files import DETECTOR_FILE, TRANSLATION_FILE

    digest = hashlib.sha256()
    for name in (DETECTOR_FILE, TRANSLATION_FILE):
        path = folder / name
        if not path.is_file():
            raise StudentModelNotFoundError(
                f"{path}: no such file; name the folder of a distilled student, such as work/distill/student."
            )
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """Named objects and what a student knows of them. A change makes a new profile; the old one stays as it was."""

    student: str
    """`student_digest` of the student that made the embeddings."""
    class_names: tuple[str, ...]
    """The student's coarse classes; the learner's coarse ids index them, and one more stands for none."""
    names: tuple[str, ...]
    """What the user calls the objects; the learner's personal ids index them."""
    learner: PrototypeLearner
    """Fitted; every name has a prototype."""

    @classmethod
    def empty(cls, student: str, class_names: Sequence[str], *, learner: str = "conditional") -> "Profile":
        """A profile without objects.

        Raises:
            PrototypeError: there is no such learner.
        """
        return cls(student=student, class_names=tuple(class_names), names=(), learner=make_learner(learner))

    def add(self, name: str, embeddings_ND: NDArray[np.floating], coarse_N: NDArray[np.integer]) -> "Profile":
        """The profile with one or more photos of an object; photos of a known object refine it.

        Args:
            name: what the user calls it.
            embeddings_ND: one row per photo.
            coarse_N: the object's coarse class in each; `len(class_names)` is none, where the learner does without.

        Raises:
            ProfileError: the name is no printable text.
            PrototypeError: the width is not that of the other objects.
        """
        assert len(embeddings_ND) > 0, "one photo or more"
        classes = len(self.class_names) + (not self.learner.by_class)
        assert (np.asarray(coarse_N) < classes).all(), "coarse ids index the student's classes, or stand for none"
        names = self.names if name in self.names else (*self.names, _checked_name(name))
        personal = np.full(len(embeddings_ND), names.index(name))
        return replace(self, names=names, learner=copy(self.learner).learn(embeddings_ND, coarse_N, personal))

    def remove(self, name: str) -> "Profile":
        """The profile without an object.

        Raises:
            ProfileError: no object has this name.
        """
        gone = self._index(name)
        kept = {key: value[self.learner.personal_ != gone] for key, value in self.learner.tensors().items()}
        kept["personal"] = kept["personal"] - (kept["personal"] > gone)
        learner = make_learner(self.learner.name).absorb(**kept)
        return replace(self, names=(*self.names[:gone], *self.names[gone + 1 :]), learner=learner)

    def rename(self, old: str, new: str) -> "Profile":
        """The profile with another name for an object.

        Raises:
            ProfileError: no object has the old name, or another has the new one.
        """
        index = self._index(old)
        if new != old and new in self.names:
            raise ProfileError(
                f"a name belongs to one object, found a {new!r} already; choose another name, or first free this one: "
                f"mocha-pipe profile remove {shlex.quote(new)}"
            )
        return replace(self, names=(*self.names[:index], _checked_name(new), *self.names[index + 1 :]))

    def merge(self, other: "Profile") -> "Profile":
        """The objects of both. Two objects of one name become one, as if learnt from the photos of both.

        A photo that is in both profiles counts twice, because profiles do not know their photos.

        Raises:
            ProfileError: the two come from different students, or have different learners.
        """
        other.check_student(self.student)
        if other.learner.name != self.learner.name:
            raise ProfileError(
                f"profiles that are merged must have one learner, found {self.learner.name} and {other.learner.name}; "
                f"learn the objects of one again: mocha-pipe personalize NAME PHOTO --learner {self.learner.name} "
                "--profile NEW.safetensors"
            )
        if not other.names:
            return self
        names = (*self.names, *(name for name in other.names if name not in self.names))
        place = np.array([names.index(name) for name in other.names], np.int64)
        theirs = {**other.learner.tensors(), "personal": place[other.learner.personal_]}
        return replace(self, names=names, learner=copy(self.learner).absorb(**theirs))

    def photos(self, name: str) -> dict[str, int]:
        """How many photos an object was learnt from, by the name of its coarse class in them.

        Raises:
            ProfileError: no object has this name.
        """
        rows = np.flatnonzero(self.learner.personal_ == self._index(name))
        counts: Counter[str] = Counter()
        for coarse, count in zip(self.learner.coarse_[rows].tolist(), self.learner.counts_[rows].tolist(), strict=True):
            counts[self.class_name(coarse)] += count
        return dict(counts)

    def class_name(self, coarse: int) -> str:
        """What a coarse id stands for."""
        return (*self.class_names, NO_CLASS)[coarse]

    def closest(self, name: str) -> tuple[str, float] | None:
        """The other object that looks most like this one, and the cosine of their nearest prototypes; None where alone.

        Raises:
            ProfileError: no object has this name.
        """
        own = self.learner.personal_ == self._index(name)
        if own.all():
            return None
        unit = unit_rows(self.learner.compared().astype(np.float64))
        cosines = (unit[own] @ unit[~own].T).max(axis=0)
        return self.names[self.learner.personal_[~own][cosines.argmax()]], float(cosines.max())

    def check_student(self, digest: str) -> None:
        """Raises ProfileError unless the profile was made with the student of this digest."""
        if digest != self.student:
            raise ProfileError(
                "a profile must be used with the student that it was learnt with: it has that of student "
                f"{self.student[:12]}, found student {digest[:12]}; name that one with --student, or learn the objects "
                "again with this one: mocha-pipe personalize NAME PHOTO --profile NEW.safetensors"
            )

    def save(self, path: Path) -> None:
        """Write the file; an existing one is replaced whole. Equal profiles make equal bytes."""
        about = {
            "student": self.student, "learner": self.learner.name, "names": self.names,
            "class_names": self.class_names,
        }  # fmt: skip
        write_profile(path, about, self.learner.tensors())

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Read what `save` wrote; nothing in it is run.

        Raises:
            ProfileError: there is no file, or it is no whole profile.
        """
        about, tensors = read_profile(path)
        learner = make_learner(about["learner"]).absorb(**tensors)
        names, class_names = tuple(about["names"]), tuple(about["class_names"])
        return cls(student=about["student"], class_names=class_names, names=names, learner=learner)

    def _index(self, name: str) -> int:
        if name not in self.names:
            known = ", ".join(map(repr, self.names)) or "none yet"
            raise ProfileError(
                f"the profile has no object {name!r}; it knows {known}; learn one with: mocha-pipe personalize "
                f"{shlex.quote(name)} PHOTO"
            )
        return self.names.index(name)


def _checked_name(name: str) -> str:
    if not name or name != name.strip() or not name.isprintable():
        raise ProfileError(
            f"the name of an object must be printable text without spaces around it, found {name!r}; write one such as "
            "'my mug'"
        )
    return name
