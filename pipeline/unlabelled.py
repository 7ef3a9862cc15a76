"""Regions without labels: pictures become a data set whose boxes are a detector's, whole pictures or seeded crops.

The folder appears when it is whole, and complete.json in it says what it is made from: asked for again, it is left
alone; asked for with other settings or other pictures, it is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.files import file_digest, json_digest
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.data.unlabelled.mixing import Detect, Mixture, RegionChoice, Regions, mix
from mocha_pipe.data.unlabelled.pictures import Pictures, find_pictures
from mocha_pipe.data.unlabelled.writing import DATA_FILE, write_dataset
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.markers import Completion, Identity
from mocha_pipe.pipeline.rundir import run_whole_stage

REGIONS = "regions"
"""Name of the stage."""


def make_regions(
    places: Sequence[Path], out: Path, choice: RegionChoice, *, device: str = "cpu", progress: bool = False
) -> Completion:
    """Write a data set in YOLO layout of all pictures in folders and data sets.

    Args:
        places: Folders of pictures, single pictures, and data sets.
        out: New or empty folder, or one that this very call filled before.
        choice: Where boxes come from.
        device: Torch device of the detector.
        progress: Show bars.

    Returns:
        What was done; `outputs["unreadable"]` lists the pictures that were left out.

    Raises:
        ConfigError: The choice holds no source of boxes, or one that these pictures cannot have.
        DatasetError, DatasetNotFoundError: `out` is in use, or there are no pictures or no boxes.
        StageMismatchError: `out` holds regions of other pictures, or of another choice.
        StudentModelError, StudentModelNotFoundError: There is no such detector.
    """
    _check(places, out, choice)
    names, detect = load_detector(choice.detector, choice.confidence, device) if choice.detector else ((), None)
    found = find_pictures(places, progress=progress)
    if choice.ground_truth and not found.class_names:
        raise ConfigError(
            "--ground-truth keeps the boxes of a data set, found only pictures; name its data.yaml too, or leave "
            "--ground-truth out"
        )
    identity = Identity(stage=REGIONS, config=_settings(choice), inputs=_inputs(choice, found))

    def work(folder: Path) -> Mapping[str, Any]:
        mixed = mix(
            found.pictures, choice, truth_names=found.class_names, detector_names=names, detect=detect,
            progress=progress,
        )  # fmt: skip
        return _write(folder, mixed, found, choice, progress)

    return run_whole_stage(out, identity, work, flag="--out")


def load_detector(path: Path, confidence: float, device: str) -> tuple[tuple[str, ...], Detect]:
    """Class names of a detector, and a function that finds things with it, one picture at a time.

    Networks round otherwise in batches of other sizes; alone, a picture gets the same boxes whatever lies beside it.

    Raises:
        StudentModelError, StudentModelNotFoundError: There is no such detector.
    """
    from mocha_pipe.student.network.embedder import RegionEmbedder
    from mocha_pipe.student.network.student_files import load_student

    student = load_student(path)
    embedder = RegionEmbedder(student, image_size=student.image_size, confidence=confidence, batch=1, device=device)

    def detect(records: Sequence[ImageRecord]) -> list[Regions]:
        if not records:
            return []
        source = DetectionSource(root=Path(), split="pictures", class_names=student.class_names, records=tuple(records))
        found = embedder.embed_pool(source)
        rows = [np.flatnonzero(found.detection_image == number) for number in range(len(records))]
        return [
            (
                found.detection_xyxy[own].astype(np.float64),
                tuple(student.class_names[coarse] for coarse in found.detection_coarse[own]),
            )
            for own in rows
        ]

    return student.class_names, detect


def _check(places: Sequence[Path], out: Path, choice: RegionChoice) -> None:
    if not (choice.ground_truth or choice.detector or choice.whole or choice.crops):
        raise ConfigError(
            "boxes come from --detector WEIGHTS.pt, --whole, --crops N or --ground-truth, found none of these; add for "
            "example --crops 8"
        )
    if not 0 < choice.val_share < 1:
        raise ConfigError(f"--val-share must be above 0 and below 1, found {choice.val_share:g}; pass --val-share 0.05")
    for place in places:
        if place.is_dir() and out.resolve().is_relative_to(place.resolve()):
            raise DatasetError(
                f"{out}: must lie outside of the pictures' folder {place}, where nothing is written; name another "
                "folder with --out"
            )


def _settings(choice: RegionChoice) -> dict[str, Any]:
    """What decides the result; a setting of a source that was not chosen decides nothing."""
    settings = asdict(choice) | {"detector": choice.detector is not None}
    if not choice.detector:
        settings |= {"confidence": None, "most": None}
    if not choice.crops:
        settings |= {"seed": None}
    return settings


def _inputs(choice: RegionChoice, found: Pictures) -> dict[str, str]:
    """Digests of the detector's weights, and of the pictures with their splits and boxes; no name and no place."""
    pictures: list[Any] = [(each.digest, each.split) for each in found.pictures]
    if choice.ground_truth:
        pictures += [(np.rint(each.xyxy * 100).tolist(), each.classes) for each in found.pictures]
        pictures += found.class_names
    inputs = {"pictures": json_digest(pictures)}
    if choice.detector:
        from mocha_pipe.student.network.student_files import DETECTOR_FILE

        is_file = choice.detector.suffix == ".pt"
        inputs["detector"] = file_digest(choice.detector if is_file else choice.detector / DETECTOR_FILE)
    return inputs


def _write(folder: Path, mixed: Mixture, found: Pictures, choice: RegionChoice, progress: bool) -> dict[str, Any]:
    problems = [*found.problems, *mixed.problems]
    if len(mixed.labelled) < 2:
        first = f" ({problems[0].where}: {problems[0].message})" if problems else ""
        raise DatasetError(
            "a data set needs two different pictures that can be read, one to train on and one to validate on, found "
            f"{len(mixed.labelled)}{first}; name more"
        )
    if not any(mixed.boxes.values()):
        raise DatasetError(
            f"none of {len(mixed.labelled)} pictures has a box; lower --confidence, or add --whole or --crops 8"
        )
    counts = write_dataset(folder, mixed.labelled, mixed.class_names, val_share=choice.val_share, progress=progress)
    return {
        "data": DATA_FILE,
        **counts,
        "duplicates": found.duplicates,
        "regions": sum(len(each.class_ids) for each in mixed.labelled),
        "boxes": mixed.boxes,
        "unreadable": [{"picture": problem.where, "reason": problem.message} for problem in problems],
    }
