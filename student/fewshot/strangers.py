"""What regions that are NOT the object look like: how close such strangers come, measured once, kept with the student.

A user shows a few photos of one object, never the things that it is not. The regions of the validation images stand in
for those: two of one coarse class in two images are two things, so the cosine of their embeddings is what a stranger
reaches. A name is then given only to what is closer than nearly all of them (student/fewshot/unknown.py).

What the calibration covers is a stranger drawn like the validation regions, against a prototype made of one photo.
Regions of another kind are not covered. A validation split that shows one and the same thing in several images counts
it as a stranger to itself, which makes the threshold stricter than it had to be.

Legend: R regions, D width of an embedding, U strangers, M regions to be judged.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mocha_pipe.data.files import atomic_path
from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.fewshot.learner import unit_rows
from mocha_pipe.student.fewshot.unknown import CalibrationError, calibrate

STRANGERS_FILE = "strangers.safetensors"
"""Name in the student folder."""

_TENSOR = "closeness"


def stranger_closeness(
    embeddings_RD: NDArray[np.floating],
    coarse_R: NDArray[np.integer],
    image_R: NDArray[np.integer],
    *,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Cosine of each region with one random other region of its coarse class in another image.

    Args:
        embeddings_RD: one row per region.
        coarse_R: its class.
        image_R: the image that it is in.
        seed: draws the partners; equal seeds repeat them.

    Returns:
        (U,) ascending; regions whose class is in no other image have no partner and are left out.
    """
    assert len(embeddings_RD) == len(coarse_R) == len(image_R), "one class and one image per embedding"
    order = np.lexsort((image_R, coarse_R))
    rows, coarse, image = embeddings_RD[order], np.asarray(coarse_R)[order], np.asarray(image_R)[order]
    # A class is a slice of the rows now, and each of its images a slice of that; partners are what is left of a class.
    starts_class = np.append(True, np.diff(coarse) != 0)[: len(rows)]
    starts_image = starts_class | np.append(True, np.diff(image) != 0)[: len(rows)]
    class_first, class_count = _run_of_each(starts_class)
    image_first, image_count = _run_of_each(starts_image)
    partners = class_count - image_count
    drawn = np.floor(np.random.default_rng(seed).random(len(rows)) * partners).astype(np.int64)
    partner = class_first + drawn
    partner += np.where(partner >= image_first, image_count, 0)
    has = partners > 0
    unit = unit_rows(rows.astype(np.float64))
    return np.sort(np.einsum("rd,rd->r", unit[has], unit[partner[has]]).astype(np.float32))


def save_strangers(folder: Path, closeness_U: NDArray[np.floating]) -> None:
    """Write STRANGERS_FILE into the student folder; an existing one is replaced whole."""
    with atomic_path(folder / STRANGERS_FILE) as temporary:
        save_file({_TENSOR: np.sort(np.asarray(closeness_U, np.float32))}, temporary)


def load_strangers(folder: Path) -> NDArray[np.float32]:  # (U,)
    """Read what `save_strangers` wrote; ascending.

    Raises:
        StudentModelError: the file is missing or damaged.
    """
    path = folder / STRANGERS_FILE
    if not path.is_file():
        raise StudentModelError(f"{path}: no such file; run `mocha-pipe distill` again, which measures it.")
    try:
        closeness = load_file(path)[_TENSOR]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StudentModelError(_damaged(path, f"found none ({error})")) from error
    if closeness.ndim != 1 or closeness.dtype != np.float32:
        raise StudentModelError(_damaged(path, f"found {closeness.dtype} in {closeness.ndim} dimensions"))
    if not (np.isfinite(closeness).all() and (np.diff(closeness) >= 0).all()):
        raise StudentModelError(_damaged(path, "found some that are not, or not in order"))
    return np.asarray(closeness)


def certainty(closeness_M: NDArray[np.floating], strangers_U: NDArray[np.floating]) -> NDArray[np.float32]:
    """How sure it is that a region is no stranger: the share of strangers that are less close, 0..1 (conformal).

    The region itself counts as one of U + 1 strangers. A stranger reaches 1 - rate or more at most at that rate; so
    `certainty >= 1 - rate` and `closeness > calibrate(strangers, rate)` say the same.

    Args:
        closeness_M: of regions with their nearest prototypes; -inf where there is none.
        strangers_U: ascending, as `load_strangers` gives it.
    """
    less = np.searchsorted(np.asarray(strangers_U, np.float64), np.asarray(closeness_M, np.float64), side="left")
    return np.asarray(less / (len(strangers_U) + 1), np.float32)


def accept_above(strangers_U: NDArray[np.floating], false_accept_rate: float, objects: int) -> float:
    """The closeness above which a region gets the name of its nearest prototype.

    A stranger of a coarse class with several prototypes has as many chances to come close to one, so each gets its part
    of the rate: whatever their dependence, a stranger then gets one of the names at most at the whole rate.

    Args:
        strangers_U: closeness of strangers.
        false_accept_rate: above 0 and below 1.
        objects: prototypes of the region's coarse class, 1 or more.

    Raises:
        CalibrationError: the rate makes no sense, or the strangers are too few for it.
    """
    assert objects >= 1, "a coarse class without prototypes has nothing to accept"
    if objects == 1 or not 0 < false_accept_rate < 1:
        return calibrate(strangers_U, false_accept_rate)
    try:
        return calibrate(strangers_U, false_accept_rate / objects)
    except CalibrationError:
        least, found = math.ceil(objects / false_accept_rate - 1e-9) - 1, len(strangers_U)
        higher = f"ask for a rate of {objects}/{found + 1} or more, or " if objects <= found else ""
        raise CalibrationError(
            f"{objects} prototypes of one class share the false-accept rate of {false_accept_rate:g}, which needs "
            f"{least} or more strangers, and the student has {found}; {higher}distil with more validation images"
        ) from None


def _run_of_each(starts: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For rows in runs, told by where each starts: first row of the own run (R,), and its length (R,)."""
    first = np.flatnonzero(starts)
    run = np.cumsum(starts) - 1
    return first[run], np.diff(first, append=len(starts))[run]


def _damaged(path: Path, found: str) -> str:
    rule = f"must hold `{_TENSOR}`, a row of ascending float32"
    return f"{path}: {rule}; {found}; run `mocha-pipe distill` again, which measures it."
