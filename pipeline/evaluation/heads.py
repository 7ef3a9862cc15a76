"""Before a benchmark of scenes that detectors have hardly seen: their classification branches learn its coarse classes.

The reference does so for CORe50 and iCubWorld, with every method alike. Here they learn from images that no episode is
about, and nothing but that branch changes, so the embeddings of regions are what they were.

FEWSHOT/heads/<detector>-<digest>   a run of ultralytics, found again by whoever asks for the same
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mocha_pipe.data.benchmarks.opening import open_training
from mocha_pipe.data.files import file_digest
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.evaluation.coarse import in_coarse_classes, with_coarse_classes
from mocha_pipe.pipeline.run.inputs import torch_device
from mocha_pipe.pipeline.settings.sections import FewshotConfig
from mocha_pipe.student.network.student_files import Student
from mocha_pipe.student.training.head_tuning import tune_classification

_BATCH = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A detector of the comparison."""

    name: str
    student: Student
    weights: Path
    """The `.pt` that it was read from."""


def tune_heads(settings: FewshotConfig, contenders: Sequence[Contender]) -> tuple[list[Student], list[str]]:
    """The detectors with branches that learnt for `head_epochs`, trained where that was not done, and a note on it.

    Raises:
        DatasetError: the benchmark has no images for that, or a detector does not know all coarse classes of them.
    """
    assert settings.benchmark is not None, "the configuration is resolved"
    if not settings.head_epochs:
        return [contender.student for contender in contenders], []
    training = open_training(settings.benchmark, settings.benchmark_data, progress=True)
    note = (
        f"The classification branches of both detectors first learnt the coarse classes for {settings.head_epochs} "
        f"epochs from {len(training.source.records)} images that no episode is about"
    )
    return [_tuned(contender, training, settings) for contender in contenders], [note]


def _tuned(contender: Contender, training: PersonalBenchmark, settings: FewshotConfig) -> Student:
    student = contender.student
    known = with_coarse_classes(
        training, student.class_names, contender.name, "leave its head as it is with --head-epochs 0"
    )
    source = in_coarse_classes(known)
    arguments = {
        "epochs": settings.head_epochs, "imgsz": student.image_size, "batch": _BATCH, "seed": settings.seed,
    }  # fmt: skip
    made_from = json.dumps([arguments, file_digest(contender.weights), source.fingerprint()])
    digest = hashlib.blake2b(made_from.encode(), digest_size=6).hexdigest()
    assert settings.folder is not None, "the configuration is resolved"
    run = settings.folder / "heads" / f"{contender.name}-{digest}"
    device = torch_device(settings.device).removeprefix("cuda:")
    return replace(
        student, detector=tune_classification(contender.weights, source, run, {**arguments, "device": device})
    )
