"""A user's objects as one small file, bound to the student that they were learnt with.

An object takes 4 bytes times the width of an embedding for each coarse class that it was seen as (of the learner
`gallery` for each photo), and 2 bytes times that for each photo that it was learnt from. A photo and box count once
for an object, however often it is shown them or merged with a profile that knows them. Where all objects compete, a
photo in which the detector says no class for the object counts as one of the class `none`, whose coarse id is the
number of the student's classes.

Legend: N photos, D width of an embedding.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.names import as_typed, one_spelling
from mocha_pipe.student.errors import StudentModelNotFoundError
from mocha_pipe.student.fewshot.learner import PrototypeLearner, unit_rows
from mocha_pipe.student.fewshot.prototypes import make_learner
from mocha_pipe.student.personal.lessons import Lessons
from mocha_pipe.student.personal.object_names import object_name
from mocha_pipe.student.personal.profile_file import ProfileError, read_profile, write_profile

ALIKE = 0.99
"""Cosine of two objects from which they are hardly two: what one photo learnt under two names gives is 1."""
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
    lessons: Lessons
    """What the learner learnt from."""

    @classmethod
    def empty(cls, student: str, class_names: Sequence[str], *, learner: str = "conditional") -> "Profile":
        """A profile without objects.

        Raises:
            PrototypeError: there is no such learner.
        """
        fresh = make_learner(learner)
        none = Lessons.of(*(fresh.tensors()[name] for name in ("prototypes", "coarse", "personal", "counts")))
        return cls(student=student, class_names=tuple(class_names), names=(), learner=fresh, lessons=none)

    def add(
        self,
        name: str,
        embeddings_ND: NDArray[np.floating],
        coarse_N: NDArray[np.integer],
        *,
        photos: Sequence[str] = (),
        boxes_N4: NDArray[np.floating] | None = None,
    ) -> "Profile":
        """The profile with one or more photos of an object; photos of a known object refine it.

        Args:
            name: what the user calls it.
            embeddings_ND: one row per photo.
            coarse_N: the object's coarse class in each; `len(class_names)` is none, where the learner does without.
            photos: digest of each photo's file. A photo and box that the object was learnt from before counts once,
                with what is said of it now. Without digests all count.
            boxes_N4: xyxy in pixels of each upright photo, where there are digests.

        Raises:
            ProfileError: `check_name`.
            PrototypeError: the width is not that of the other objects.
        """
        assert len(embeddings_ND) > 0, "one photo or more"
        classes = len(self.class_names) + (not self.learner.by_class)
        assert (np.asarray(coarse_N) < classes).all(), "coarse ids index the student's classes, or stand for none"
        name = self.check_name(name)
        names = self.names if name in self.names else (*self.names, name)
        personal = np.full(len(embeddings_ND), names.index(name))
        vectors = self.learner.vectors(np.asarray(embeddings_ND))
        more = Lessons.of(vectors, coarse_N, personal, boxes=boxes_N4, photos=photos)
        if not self.lessons.repeats(more, unknown_too=False).any():
            learner = copy(self.learner).absorb(*more.learnt())
            return replace(self, names=names, learner=learner, lessons=self.lessons.joined(more))
        lessons, own = self.lessons.taught(more), names.index(name)
        learner = self._others(own).absorb(*lessons.rows(lessons.personal == own).learnt())
        return replace(self, names=names, learner=learner, lessons=lessons)

    def remove(self, name: str) -> "Profile":
        """The profile without an object.

        Raises:
            ProfileError: no object has this name.
        """
        gone = self._index(name)
        others = self._others(gone).tensors()
        others["personal"] = others["personal"] - (others["personal"] > gone)
        kept = self.lessons.rows(self.lessons.personal != gone)
        return replace(
            self,
            names=(*self.names[:gone], *self.names[gone + 1 :]),
            learner=make_learner(self.learner.name).absorb(**others),
            lessons=replace(kept, personal=kept.personal - (kept.personal > gone)),
        )

    def rename(self, old: str, new: str) -> "Profile":
        """The profile with another name for an object.

        Raises:
            ProfileError: no object has the old name, another has the new one, or `check_name`.
        """
        index, new = self._index(old), one_spelling(new)
        if new == self.names[index]:
            return self
        if new in self.names:
            raise ProfileError(
                f"a name belongs to one object, found a {new!r} already; choose another name, or first free this one: "
                f"mocha-pipe profile remove {as_typed(new)}"
            )
        before, after = self.names[:index], self.names[index + 1 :]
        new = replace(self, names=(*before, *after)).check_name(new)  # capitals of its own name may change
        return replace(self, names=(*before, new, *after))

    def merge(self, other: "Profile") -> "Profile":
        """The objects of both. Two objects of one name become one, as if learnt from the photos of both.

        A photo and box that both learnt an object from counts once.

        Raises:
            ProfileError: the two come from different students, have different learners, or `check_name`.
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
        spelt = [self.check_name(name) for name in other.names]
        names = tuple(dict.fromkeys([*self.names, *spelt]))
        place = np.array([names.index(name) for name in spelt], np.int64)
        theirs = {**other.learner.tensors(), "personal": place[other.learner.personal_]}
        self.learner.vectors(theirs["prototypes"])  # refuses another width
        lessons = replace(other.lessons, personal=place[other.lessons.personal])
        again = self.lessons.repeats(lessons, unknown_too=True)
        shared = np.unique(lessons.personal[again])  # of these only the photos that are new here
        whole = ~np.isin(theirs["personal"], shared)
        learner = copy(self.learner).absorb(**{key: value[whole] for key, value in theirs.items()})
        fresh = lessons.rows(~again)
        learner = learner.absorb(*fresh.rows(np.isin(fresh.personal, shared)).learnt())
        return replace(self, names=names, learner=learner, lessons=self.lessons.joined(fresh))

    def check_name(self, name: str) -> str:
        """A name that an object of this profile has or may get, in one spelling.

        Raises:
            ProfileError: as `object_name`.
        """
        return object_name(name, self.names, self.class_names)

    def _others(self, personal: int) -> PrototypeLearner:
        """What is known of all objects but one."""
        kept = {key: value[self.learner.personal_ != personal] for key, value in self.learner.tensors().items()}
        return make_learner(self.learner.name).absorb(**kept)

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

    def alike(self) -> list[tuple[str, str, float]]:
        """Pairs of objects that are hardly two, and their cosine: that of their nearest prototypes is above `ALIKE`."""
        unit = unit_rows(self.learner.compared().astype(np.float64))
        rows = np.argwhere(np.triu(unit @ unit.T > ALIKE)) if len(unit) else np.zeros((0, 2), np.int64)
        pairs: dict[tuple[int, int], float] = {}
        for left, right in rows.tolist():
            first, second = sorted(self.learner.personal_[[left, right]].tolist())
            if first != second:
                cosine = float(unit[left] @ unit[right])
                pairs[first, second] = max(cosine, pairs.get((first, second), cosine))
        return [(self.names[first], self.names[second], cosine) for (first, second), cosine in sorted(pairs.items())]

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
        write_profile(path, about, self.learner.tensors(), self.lessons)

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Read what `save` wrote; nothing in it is run.

        Raises:
            ProfileError: there is no file, or it is no whole profile.
        """
        about, tensors, lessons = read_profile(path)
        spelt = [one_spelling(name) for name in about["names"]]
        names = tuple(dict.fromkeys(spelt))  # an accent spelt in two ways made two objects of one
        place = np.array([names.index(name) for name in spelt], np.int64)
        tensors["personal"] = place[tensors["personal"]]
        return cls(
            student=about["student"],
            class_names=tuple(about["class_names"]),
            names=names,
            learner=make_learner(about["learner"]).absorb(**tensors),
            lessons=replace(lessons, personal=place[lessons.personal]),
        )

    def _index(self, name: str) -> int:
        name = one_spelling(name)
        if name not in self.names:
            known = ", ".join(map(repr, self.names)) or "none yet"
            raise ProfileError(
                f"the profile has no object {name!r}; it knows {known}; learn one with: mocha-pipe personalize "
                f"{as_typed(name)} PHOTO"
            )
        return self.names.index(name)
