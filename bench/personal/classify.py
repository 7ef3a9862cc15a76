"""What few-shot learning costs beyond the forward passes, on one core: learning, naming, and the size of a profile."""

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np

from bench.figures import Figure
from bench.runs import in_a_process
from bench.timing import thread_seconds
from mocha_pipe.data.coarse import COARSE_NAMES
from mocha_pipe.student.fewshot.prototypes import make_learner
from mocha_pipe.student.personal.profile import Profile

BOXES, PROTOTYPES, WIDTH = 300, 200, 512
COARSE_CLASSES = len(COARSE_NAMES)
OBJECTS, SHOTS = 40, 5
PROFILE_OBJECTS = 10
ROUNDS = 200
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def measure(_root: Path, *, rounds: int = ROUNDS) -> dict[str, Figure]:
    """Median milliseconds of one thread's processor time."""
    with patch.dict(os.environ, ONE_THREAD):  # libraries read these when they are loaded: too late in this process
        took = in_a_process("few-shot", milliseconds, rounds)
    compared = f"{BOXES} boxes against {PROTOTYPES} prototypes, {WIDTH} wide; learner conditional, prototypes"
    note = f"one thread; median of {rounds}"
    return {
        "classify_ms": Figure(
            value=took["classify"], target=2.0, better="lower",
            note=f"{compared} and boxes spread over {COARSE_CLASSES} coarse classes; {note}",
        ),
        "classify_one_class_ms": Figure(
            value=took["classify_one_class"], better="lower",
            note=f"the worst case: {compared} and boxes all of one coarse class; {note}",
        ),
        "fit_ms": Figure(
            value=took["fit"], target=10.0, better="lower",
            note=f"{SHOTS} shots x {OBJECTS} objects, {WIDTH} wide; learner conditional; {note}",
        ),
        "profile_kb": Figure(
            value=_profile_bytes() / 1000, target=100.0, better="lower",
            note=f"file of {PROFILE_OBJECTS} objects of {SHOTS} shots, {WIDTH} wide, {COARSE_CLASSES} class names",
        ),
    }  # fmt: skip


def milliseconds(rounds: int) -> dict[str, float]:
    """Medians on random embeddings."""
    rng = np.random.default_rng(0)
    prototypes, queries, support = (
        rng.standard_normal((count, WIDTH), np.float32) for count in (PROTOTYPES, BOXES, SHOTS * OBJECTS)
    )
    taught = np.arange(SHOTS * OBJECTS) % OBJECTS
    spread, alone = (
        make_learner("conditional").learn(prototypes, np.arange(PROTOTYPES) % classes, np.arange(PROTOTYPES))
        for classes in (COARSE_CLASSES, 1)
    )
    seen = np.arange(BOXES) % COARSE_CLASSES
    work: dict[str, Callable[[], object]] = {
        "classify": lambda: spread.predict(queries, seen),
        "classify_one_class": lambda: alone.predict(queries, np.zeros(BOXES, np.int64)),
        "fit": lambda: make_learner("conditional").learn(support, taught % COARSE_CLASSES, taught),
    }
    return {name: 1000 * statistics.median(thread_seconds(call) for _ in range(rounds)) for name, call in work.items()}


def _profile_bytes() -> int:
    """Size of a saved profile of random embeddings."""
    rng = np.random.default_rng(0)
    profile = Profile.empty("0" * 32, COARSE_NAMES)
    for number in range(PROFILE_OBJECTS):
        embeddings = rng.standard_normal((SHOTS, WIDTH), np.float32)
        profile = profile.add(f"my thing number {number}", embeddings, np.full(SHOTS, number))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.safetensors"
        profile.save(path)
        return path.stat().st_size
