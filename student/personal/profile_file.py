"""The file of a profile: safetensors with json in its header; every field is checked before it is used.

The tensors are those of a learner (fewshot/learner.py). The metadata has the one key `profile`: a json object with
`format`, `student`, `learner`, `names` and `class_names`.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from safetensors import safe_open
from safetensors.numpy import save_file

from mocha_pipe.data.errors import MochaError, first_line
from mocha_pipe.data.files import atomic_path
from mocha_pipe.student.choices import LearnerName
from mocha_pipe.student.fewshot.prototypes import LEARNERS

_KEY = "profile"
_Name = Annotated[str, Field(min_length=1)]
_KINDS = {"prototypes": ("float32", 2), "coarse": ("int64", 1), "personal": ("int64", 1), "counts": ("int64", 1)}


class ProfileError(MochaError, ValueError):
    """A profile cannot be read, is another student's, or does not hold what was asked for."""


class _About(BaseModel, strict=True):
    """The json object."""

    format: Literal[1]
    student: str = Field(pattern="^[0-9a-f]{64}$")
    learner: LearnerName
    names: list[_Name]
    class_names: list[_Name]


def write_profile(path: Path, about: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write the json and the tensors; an existing file is replaced whole, equal content makes equal bytes."""
    # Under one key, because safetensors writes several in random order.
    metadata = {_KEY: json.dumps({"format": 1, **about}, ensure_ascii=False)}
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, metadata=metadata)


def read_profile(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The json and the tensors of a file that is a profile in every field; nothing in it is run.

    Raises:
        ProfileError: there is no file, or it is no whole profile.
    """
    about, tensors = _content(path)
    _check_tensors(path, tensors, about)
    return about, {key: tensors[key] for key in _KINDS}


def _content(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The json of a file, which is checked, and its tensors as they are."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
    except FileNotFoundError:
        raise ProfileError(
            f"{path}: no such profile; learn an object: mocha-pipe personalize 'my mug' PHOTO "
            f"--profile {shlex.quote(str(path))}"
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
    return about.model_dump(), tensors


def _check_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Kind, length and range of every tensor, and the order that lookups rely on."""
    for key, (dtype, dimensions) in _KINDS.items():
        found = f"{tensors[key].dtype} {tensors[key].shape}" if key in tensors else "none"
        if key not in tensors or (str(tensors[key].dtype), tensors[key].ndim) != (dtype, dimensions):
            raise _unusable(path, key, f"be {dtype} in {dimensions} dimensions", found)
        if len(tensors[key]) != len(tensors["prototypes"]):
            raise _unusable(path, key, f"have {len(tensors['prototypes'])} rows as the prototypes", found)
    coarse, personal = tensors["coarse"], tensors["personal"]
    if not np.isfinite(tensors["prototypes"]).all():
        raise _unusable(path, "prototypes", "be finite", "some that are not")
    if set(personal.tolist()) != set(range(len(about["names"]))):
        raise _unusable(path, "personal", "index the names, each at least once", sorted(set(personal.tolist())))
    classes = len(about["class_names"]) + (not LEARNERS[about["learner"]].by_class)  # the last is none
    if not ((coarse >= 0) & (coarse < classes)).all():
        raise _unusable(path, "coarse", "index the class names", sorted(set(coarse.tolist())))
    if not (tensors["counts"] >= 1).all():
        raise _unusable(path, "counts", "be 1 or more", int(tensors["counts"].min()))
    if (np.lexsort((personal, coarse)) != np.arange(len(coarse))).any():
        raise _unusable(path, "coarse", "ascend, and `personal` within it", coarse.tolist())


def _unusable(path: Path, what: str, rule: str, found: object) -> ProfileError:
    said = str(found)
    said = said if len(said) <= 60 else f"{said[:57]}..."
    return ProfileError(
        f"{path}: {what} of a profile must {rule}, found {said}; bring back a whole copy, or move the file away and "
        f"learn the objects again: mocha-pipe personalize 'my mug' PHOTO --profile {shlex.quote(str(path))}"
    )
