"""Before a benchmark of scenes that detectors have hardly seen: their classification branches learn its coarse classes.

The reference does so for CORe50 and iCubWorld, with every method alike. Here they learn from images that no episode is
about, and nothing but that branch changes, so the embeddings of regions are what they were.

FEWSHOT/heads/<detector>-<digest>   a run of ultralytics, found again by an evaluation with equal settings
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mocha_pipe.data.benchmarks.opening import open_training
from mocha_pipe.data.files import file_digest
from mocha_pipe.pipeline.evaluation.coarse import with_coarse_classes
from mocha_pipe.pipeline.run.datasets import named
from mocha_pipe.pipeline.run.devices import torch_device
from mocha_pipe.pipeline.settings.sections import FewshotConfig
from mocha_pipe.student.network.student_files import Student
from mocha_pipe.student.training.head_tuning import tune_classification

_BATCH = 16


def tune_heads(
    settings: FewshotConfig, detectors: Mapping[str, tuple[Student, Path]]
) -> tuple[list[Student], list[str]]:
    """Let the classification branches of detectors learn for `head_epochs`, where that was not done before.

    Args:
        settings: benchmark, epochs, seed and device.
        detectors: by name, each with the `.pt` that it was read from.

    Returns:
        The detectors in their order, and a note on what was done.

    Raises:
        DatasetError: the benchmark has no images for that, or a detector does not know all coarse classes of them.
    """
    students = [student for student, _ in detectors.values()]
    if not settings.head_epochs:
        return students, []
    training = open_training(named(settings.benchmark), settings.benchmark_data, progress=True)
    tuned = []
    for name, (student, weights) in detectors.items():
        known = with_coarse_classes(training, student.class_names, name, "leave its head as it is with --head-epochs 0")
        records = tuple(replace(record, class_ids=known.coarse_of[record.class_ids]) for record in known.source.records)
        source = replace(known.source, class_names=known.coarse_names, records=records)
        arguments = {
            "epochs": settings.head_epochs, "imgsz": student.image_size, "batch": _BATCH, "seed": settings.seed,
        }  # fmt: skip
        made_from = json.dumps([arguments, file_digest(weights), source.fingerprint()])
        digest = hashlib.blake2b(made_from.encode(), digest_size=6).hexdigest()
        run = named(settings.folder) / "heads" / f"{name}-{digest}"
        device = torch_device(settings.device).removeprefix("cuda:")
        detector = tune_classification(weights, source, run, {**arguments, "device": device})
        tuned.append(replace(student, detector=detector))
    note = (
        f"The classification branches of both detectors first learnt the coarse classes for {settings.head_epochs} "
        f"epochs from {len(training.source.records)} images that no episode is about"
    )
    return tuned, [note]
