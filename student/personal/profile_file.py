"""The file of a profile: safetensors with json in its header; every field is checked before it is used.

The tensors are those of a learner (fewshot/learner.py), which a device reads, and the lessons that they follow from
(lessons.py), which earlier versions did not write. The metadata has the one key `profile`: a json object with `format`,
`student`, `learner`, `names`, `class_names` and `photos`, a digest for each lesson.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mocha_pipe.data.errors import MochaError, first_line, quoted
from mocha_pipe.data.files import atomic_path, exclusive, lock_beside
from mocha_pipe.data.names import is_shown
from mocha_pipe.student.choices import LearnerName
from mocha_pipe.student.fewshot.prototypes import LEARNERS, make_learner
from mocha_pipe.student.personal.lessons import Lessons

MOST_LETTERS = 100
"""Of an object's name."""

_KEY = "profile"
_Name = Annotated[str, Field(min_length=1)]
_Digest = Annotated[str, Field(pattern="^([0-9a-f]{32})?$")]
_KINDS = {"prototypes": ("float32", 2), "coarse": ("int64", 1), "personal": ("int64", 1), "counts": ("int64", 1)}
_LESSONS = {
    "photo_vectors": ("float16", 2), "photo_coarse": ("int64", 1), "photo_personal": ("int64", 1),
    "photo_counts": ("int64", 1), "photo_boxes": ("float32", 2), "photo_scales": ("float32", 1),
}  # fmt: skip
_ROUNDING = 2e-3  # of the greatest number of a row, at most, between a mean and that of the photos as they are kept


class ProfileError(MochaError, ValueError):
    """A profile cannot be read, is another student's, or does not hold what was asked for."""


class _About(BaseModel, strict=True):
    """The json object."""

    format: Literal[1]
    student: str = Field(pattern="^[0-9a-f]{64}$")
    learner: LearnerName
    names: list[Annotated[_Name, Field(max_length=MOST_LETTERS)]]
    class_names: list[_Name]
    photos: list[_Digest] = Field(default_factory=list)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Nobody else changes the profile while the block reads it, changes it and writes it; another process waits."""
    with exclusive(lock_beside(path.resolve())):
        yield


def write_profile(path: Path, about: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], lessons: Lessons) -> None:
    """Write the json and the tensors; an existing file is replaced whole, equal content makes equal bytes."""
    # Under one key, because safetensors writes several in random order.
    metadata = {_KEY: json.dumps({"format": 1, **about, "photos": lessons.photos}, ensure_ascii=False)}
    scales_N = np.abs(lessons.vectors).max(axis=1, initial=np.finfo(np.float32).tiny)
    taught = {
        "photo_vectors": (lessons.vectors / scales_N[:, None]).astype(np.float16), "photo_coarse": lessons.coarse,
        "photo_personal": lessons.personal, "photo_counts": lessons.counts, "photo_boxes": lessons.boxes,
        "photo_scales": scales_N,
    }  # fmt: skip
    contiguous = {key: np.ascontiguousarray(value) for key, value in {**tensors, **taught}.items()}
    try:
        with atomic_path(path.resolve()) as temporary:  # a link stays one, as a team's to its shared profile
            save_file(contiguous, temporary, metadata=metadata)
    except SafetensorError as error:
        raise ProfileError(
            f"{path}: cannot be written ({first_line(error)}), so it stays as it was; free some space, or name another "
            "place with --profile"
        ) from error


def read_profile(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]], Lessons]:
    """The json, the tensors and the lessons of a file that is a profile in every field; nothing in it is run.

    The lessons of a file that has none are its prototypes.

    Raises:
        ProfileError: there is no file, or it is no whole profile.
    """
    about, tensors = _content(path)
    _check_tensors(path, tensors, about, _KINDS)
    own = {key: tensors[key] for key in _KINDS}
    coarse, personal = tensors["coarse"], tensors["personal"]
    if (np.lexsort((personal, coarse)) != np.arange(len(coarse))).any():
        raise _unusable(path, "coarse", "ascend, and `personal` within it", coarse.tolist())
    if not any(key in tensors for key in _LESSONS):
        return about, own, Lessons.of(*own.values())
    _check_tensors(path, tensors, about, _LESSONS)
    vectors, coarse_N, personal_N, counts_N, boxes, scales_N = (tensors[key] for key in _LESSONS)
    if boxes.shape[1] != 4:
        raise _unusable(path, "photo_boxes", "have 4 columns", boxes.shape)
    if len(about["photos"]) != len(boxes):
        raise _unusable(path, "photos", f"have {len(boxes)} entries as the photo_boxes", len(about["photos"]))
    vectors = vectors * scales_N[:, None]
    lessons = Lessons.of(vectors, coarse_N, personal_N, counts_N, boxes, photos=about["photos"])
    taught = make_learner(about["learner"]).absorb(*lessons.learnt()).tensors()
    for key, value in own.items():
        near = _ROUNDING * np.abs(value).max(initial=0.0) if key == "prototypes" else 0.0
        if taught[key].shape != value.shape or not np.allclose(taught[key], value, rtol=0, atol=near):
            raise _unusable(path, key, "be what its photos teach", "something else")
    return about, own, lessons


def _content(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The json of a file, which is checked, and its tensors as they are."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
    except FileNotFoundError:
        raise ProfileError(
            f"{path}: no such profile; learn an object: mocha-pipe personalize 'my mug' PHOTO --profile {quoted(path)}"
        ) from None
    except Exception as error:  # a damaged header shows in many kinds of errors
        raise _unusable(path, "file", "be a safetensors file", first_line(error)) from error
    if _KEY not in metadata:
        raise _unusable(path, "metadata", f"have the key {_KEY!r}", ", ".join(metadata) or "none")
    try:
        about = _About.model_validate_json(metadata[_KEY])
    except ValidationError as error:
        fault = error.errors()[0]
        field = str(fault["loc"][0]) if fault["loc"] else "metadata"
        rule = fault["msg"].partition("should ")[2] or "be there and in order"
        raise _unusable(path, field, rule, fault["input"]) from None
    if len(set(about.names)) < len(about.names):
        raise _unusable(path, "names", "differ from each other", about.names)
    if hidden := [name for name in about.names if not is_shown(name)]:
        raise _unusable(path, "names", "be printable text", hidden[0])
    return about.model_dump(), tensors


def _check_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any], kinds: Mapping[str, tuple[str, int]]
) -> None:
    """Kind, length and range of every tensor."""
    first, coarse, personal, counts, *_ = kinds
    for key, (dtype, dimensions) in kinds.items():
        found = f"{tensors[key].dtype} {tensors[key].shape}" if key in tensors else "none"
        if key not in tensors or (str(tensors[key].dtype), tensors[key].ndim) != (dtype, dimensions):
            raise _unusable(path, key, f"be {dtype} in {dimensions} dimensions", found)
        if len(tensors[key]) != len(tensors[first]):
            raise _unusable(path, key, f"have {len(tensors[first])} rows as the {first}", found)
        if dtype.startswith("float") and not np.isfinite(tensors[key]).all():
            raise _unusable(path, key, "be finite", "some that are not")
    named = set(tensors[personal].tolist())
    if named != set(range(len(about["names"]))):
        raise _unusable(path, personal, "index the names, each at least once", sorted(named))
    classes = len(about["class_names"]) + (not LEARNERS[about["learner"]].by_class)  # the last is none
    if not ((tensors[coarse] >= 0) & (tensors[coarse] < classes)).all():
        raise _unusable(path, coarse, "index the class names", sorted(set(tensors[coarse].tolist())))
    if not (tensors[counts] >= 1).all():
        raise _unusable(path, counts, "be 1 or more", int(tensors[counts].min()))


def _unusable(path: Path, what: str, rule: str, found: object) -> ProfileError:
    said = str(found) if is_shown(str(found)) else ascii(found)
    said = said if len(said) <= 60 else f"{said[:57]}..."
    return ProfileError(
        f"{path}: {what} of a profile must {rule}, found {said}; bring back a whole copy, or move the file away and "
        f"learn the objects again: mocha-pipe personalize 'my mug' PHOTO --profile {quoted(path)}"
    )
