"""`mocha-pipe data check`: reads every split, decodes every image, and lists all that is wrong."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.images import read_image
from mocha_pipe.data.readers import SplitReading
from mocha_pipe.data.source import read_split, splits_of
from mocha_pipe.data.types import ImageRecord, Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """Counts of one split over the images that could be read, and its problems."""

    split: str
    images: int
    background_images: int
    """Images without a box."""
    regions: int
    regions_per_class: dict[str, int]
    """In the order of the class ids."""
    smallest_box: float | None
    """Square root of the area in pixels; None without boxes."""
    largest_box: float | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What `check_dataset` found."""

    data: Path
    splits: tuple[SplitReport, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that stop every stage, over all splits."""
        return tuple(problem for split in self.splits for problem in split.problems if problem.severity == "error")


def check_dataset(data: Path, *, progress: bool = False) -> CheckReport:
    """Read every split and decode every image; problems of splits and images are listed, not raised.

    Raises:
        DatasetNotFoundError, DatasetError: `data` itself cannot be read, so that there is no split to list.
    """
    return CheckReport(data=data, splits=tuple(_check_split(data, split, progress) for split in splits_of(data)))


def _check_split(data: Path, split: str, progress: bool) -> SplitReport:
    try:
        reading = read_split(data, split, progress=progress)
    except MochaError as error:
        where, _, message = str(error).partition(": ")
        problem = Problem(severity="error", where=where, message=message)
        reading = SplitReading(root=data.parent, split=split, class_names=(), records=(), problems=(problem,))
    reading = replace(reading, records=tuple(record for record in reading.records if record.readable))
    bar = tqdm(reading.records, f"decode {split}", unit="image", delay=2, disable=not progress)
    damaged = [found for record in bar if (found := _decode(record))]
    return _report(reading, (*reading.problems, *damaged))


def _decode(record: ImageRecord) -> Problem | None:
    try:
        read_image(record.path)
    except MochaError as error:
        message = str(error).removeprefix(f"{record.path}: ")
        return Problem(severity="error", where=str(record.path), message=message)
    return None


def _report(reading: SplitReading, problems: tuple[Problem, ...]) -> SplitReport:
    boxes = np.concatenate([np.zeros((0, 4)), *(record.xyxy for record in reading.records)])
    class_ids = np.concatenate([np.zeros(0, int), *(record.class_ids for record in reading.records)])
    counts = np.bincount(class_ids, minlength=len(reading.class_names))
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return SplitReport(
        split=reading.split,
        images=len(reading.records),
        background_images=sum(not len(record.class_ids) for record in reading.records),
        regions=len(boxes),
        regions_per_class={name: int(count) for name, count in zip(reading.class_names, counts, strict=True)},
        smallest_box=float(sides.min()) if len(sides) else None,
        largest_box=float(sides.max()) if len(sides) else None,
        problems=problems,
    )
