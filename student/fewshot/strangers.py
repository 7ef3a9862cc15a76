"""Is a region any of the personal objects at all? A threshold with a stated false-accept rate answers.

A learner's own scores cannot tell: they are shares among candidates, and the share of a single candidate is 1 whatever
the region shows. What counts here is `PrototypeLearner.closeness`, the cosine with the nearest prototype alone.

A stranger of an object is a region of its coarse class that shows another thing. A user shows a few photos of one
object, never the things that it is not. The regions of the validation images stand in for those, measured once and kept
with the student: two regions of one coarse class in two images are taken for two things, so the cosine of their
embeddings is how close a stranger comes. A name is given only to what is closer than nearly all strangers.

Many objects share one rate, and ask for what hardly one stranger in a thousand reaches. So each region is compared with
several partners. Pairs that share a region are not drawn on their own: the rate is then kept on average over sets of
validation images, and no longer exactly in the sense of split conformal.

The calibration covers a stranger that is drawn like the validation regions and is compared with a prototype made of one
photo. A learner in which all objects compete also meets strangers of other classes; it keeps the rate where those come
no closer than things of one class do. Regions of another kind are not covered. Where several validation images show the
same thing, that thing counts as a stranger to itself, which makes the threshold stricter than it has to be.

Legend: R regions, D width of an embedding, U strangers, M regions to be judged.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import atomic_path
from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.fewshot.learner import unit_rows

STRANGERS_FILE = "strangers.safetensors"
"""Name in the student folder."""

DEFAULT_RATE = 0.05
"""False-accept rate where nobody says another."""

_TENSOR = "closeness"


class CalibrationError(MochaError, ValueError):
    """A false-accept rate that is none."""


def stranger_closeness(
    embeddings_RD: NDArray[np.floating],
    coarse_R: NDArray[np.integer],
    image_R: NDArray[np.integer],
    *,
    partners: int = 1,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Cosine of each region with random regions of its coarse class in other images, its partners.

    Args:
        embeddings_RD: one row per region.
        coarse_R: the class of each.
        image_R: the image that each is in.
        partners: drawn for each region, each on its own.
        seed: draws the partners; equal seeds repeat them.

    Returns:
        (U,) ascending; regions whose class is in no other image have no partner and are left out.
    """
    assert len(embeddings_RD) == len(coarse_R) == len(image_R), "one class and one image per embedding"
    order = np.lexsort((image_R, coarse_R))
    rows, coarse, image = embeddings_RD[order], np.asarray(coarse_R)[order], np.asarray(image_R)[order]
    # Now a class is a slice of the rows, and an image is a slice of its class. A region's partners are the rows of its
    # class before and behind the slice of its image.
    class_first, class_count = _run_of_each(coarse[:, None])
    image_first, image_count = _run_of_each(np.stack([coarse, image], axis=1))
    candidates = class_count - image_count
    has = candidates > 0
    unit = unit_rows(rows.astype(np.float64))
    closeness = []
    for drawn in np.random.default_rng(seed).random((partners, len(rows))):
        partner = class_first + np.floor(drawn * candidates).astype(np.int64)
        partner += np.where(partner >= image_first, image_count, 0)
        closeness.append(np.einsum("rd,rd->r", unit[has], unit[partner[has]]))
    return np.sort(np.concatenate(closeness).astype(np.float32))


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
        is_sound = closeness.ndim == 1 and closeness.dtype == np.float32
        is_sound = is_sound and bool(np.isfinite(closeness).all() and (np.diff(closeness) >= 0).all())
    except (SafetensorError, KeyError, TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise StudentModelError(
            f"{path}: must hold `{_TENSOR}`, a row of ascending float32; found something else; "
            "run `mocha-pipe distill` again, which measures it."
        )
    return np.asarray(closeness)


def certainty(closeness_M: NDArray[np.floating], strangers_U: NDArray[np.floating]) -> NDArray[np.float32]:
    """How sure it is that a region is no stranger: the share of strangers that are less close, 0..1 (conformal).

    The region itself counts as one of U + 1 strangers. Of all strangers a share of at most `rate` gets a certainty of
    1 - rate or more: `certainty >= 1 - rate` and `closeness > accept_above(strangers, rate, 1)` say the same.

    Args:
        closeness_M: of regions with their nearest prototypes; -inf where there is none.
        strangers_U: ascending, as `load_strangers` gives it.
    """
    less = np.searchsorted(np.asarray(strangers_U, np.float64), np.asarray(closeness_M, np.float64), side="left")
    return np.asarray(less / (len(strangers_U) + 1), np.float32)


def accept_above(strangers_U: NDArray[np.floating], false_accept_rate: float, objects: int) -> float:
    """The closeness above which a region gets the name of its nearest prototype: split conformal (Vovk et al. 2005).

    It is the lowest that keeps the rate. One more stranger, drawn like these U, gets a name with a probability of at
    most `false_accept_rate`; with one prototype and without ties, of at least `false_accept_rate - 1 / (U + 1)`. Both
    are over the draw of all U + 1. Nothing is assumed about the distribution of closeness.

    Where several prototypes compete (those of a coarse class, or all of a profile), a stranger has as many chances to
    come close to one of them. Each prototype therefore gets an equal part of the rate, which suffices however they
    depend on each other (Bonferroni).

    Strangers that are too few for the rate give the strictest threshold that there is, the closest of them, which keeps
    `kept_rate`; without any, every region gets a name.

    Args:
        strangers_U: closeness of strangers, in any order.
        false_accept_rate: above 0 and below 1.
        objects: prototypes that the region is compared with, 1 or more.

    Raises:
        CalibrationError: the rate makes no sense.
    """
    assert objects >= 1, "without prototypes there is nothing to accept"
    check_rate(false_accept_rate)
    scores = np.sort(np.asarray(strangers_U, np.float64))
    assert not np.isnan(scores).any(), "closeness is a number"
    above = max(_accepted(len(scores), false_accept_rate, objects), 1)
    return float(scores[-above]) if len(scores) else -1.0


def check_rate(false_accept_rate: float) -> None:
    """Raises CalibrationError unless the rate is above 0 and below 1."""
    if not 0 < false_accept_rate < 1:
        raise CalibrationError(
            f"a false-accept rate must be above 0 and below 1, found {false_accept_rate:g}; 0.05 accepts one of twenty"
        )


def kept_rate(strangers: int, false_accept_rate: float, objects: int) -> float:
    """The rate that `accept_above` keeps with so many strangers: the one asked for, or the lowest that there is."""
    if _accepted(strangers, false_accept_rate, objects):
        return false_accept_rate
    return min(1.0, objects / (strangers + 1))


def most_objects(strangers: int, false_accept_rate: float) -> int:
    """How many prototypes may compete so that `accept_above` keeps the rate with so many strangers."""
    return math.floor(false_accept_rate * (strangers + 1) + 1e-9)


def shortfall(strangers: int, false_accept_rate: float, objects: int) -> str | None:
    """What a user should know where so few strangers do not support the rate; None where they do."""
    kept = kept_rate(strangers, false_accept_rate, objects)
    if kept <= false_accept_rate:
        return None
    least = math.ceil(objects / false_accept_rate - 1e-9) - 1
    return (
        f"a false-accept rate of {false_accept_rate:g} for {objects} competing prototype{'s' * (objects > 1)} needs "
        f"{least} or more strangers, and the student has {strangers}: names are given at the strictest threshold there "
        f"is, which keeps a rate of {kept:.2g}; distil with more validation images for a lower one"
    )


def promise(strangers: int, false_accept_rate: float) -> str:
    """In words, which false-accept rate a student with so many strangers can promise."""
    most = most_objects(strangers, false_accept_rate)
    lowest = f"{kept_rate(strangers, 0, 1):.2g} is the lowest, for one object"
    if most:
        return f"{false_accept_rate:g} for up to {most} competing object{'s' * (most > 1)}; {lowest}"
    return f"not {false_accept_rate:g}: {lowest}, with {strangers} strangers; distil with more validation images"


def _accepted(strangers: int, false_accept_rate: float, objects: int) -> int:
    """How many of the strangers themselves may be as close as the threshold."""
    return math.floor(false_accept_rate / objects * (strangers + 1) + 1e-9)  # 0.29 * 100 is a little less than 29


def _run_of_each(keys_RK: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of sorted rows: where the run of rows equal to each one starts (R,), and how long that run is (R,)."""
    _, first, run, count = np.unique(keys_RK, axis=0, return_index=True, return_inverse=True, return_counts=True)
    return first[run.ravel()], count[run.ravel()]
