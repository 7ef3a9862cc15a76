"""`mocha-pipe data check`: reads every split, decodes every image, and lists all that is wrong."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.images import message_of, read_image
from mocha_pipe.data.source import read_split, splits_of
from mocha_pipe.data.types import DetectionSource, Problem, error


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


def check_dataset(data: Path, *, progress: bool = False) -> tuple[SplitReport, ...]:
    """Read every split and decode every image; problems of splits and images are listed, not raised.

    Raises:
        DatasetNotFoundError, DatasetError: `data` itself cannot be read, so that there is no split to list.
    """
    return tuple(_check_split(data, split, progress) for split in splits_of(data))


def _check_split(data: Path, split: str, progress: bool) -> SplitReport:
    try:
        source = read_split(data, split, progress=progress)
    except MochaError as refused:
        where, _, message = str(refused).partition(": ")
        problems = (error(where, message),)
        source = DetectionSource(root=data.parent, split=split, class_names=(), records=(), problems=problems)
    records = [record for record in source.records if record.readable]
    bar = tqdm(records, f"decode {split}", unit="image", delay=2, disable=not progress)
    damaged = []
    for record in bar:
        try:
            read_image(record.path)
        except MochaError as refused:
            damaged.append(error(record.path, message_of(refused, record.path)))
    boxes = np.concatenate([np.zeros((0, 4)), *(record.xyxy for record in records)])
    class_ids = np.concatenate([np.zeros(0, int), *(record.class_ids for record in records)])
    counts = np.bincount(class_ids, minlength=len(source.class_names)).tolist()
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return SplitReport(
        split=source.split,
        images=len(records),
        background_images=sum(not len(record.class_ids) for record in records),
        regions=len(boxes),
        regions_per_class=dict(zip(source.class_names, counts, strict=True)),
        smallest_box=float(sides.min()) if len(sides) else None,
        largest_box=float(sides.max()) if len(sides) else None,
        problems=(*source.problems, *damaged),
    )
