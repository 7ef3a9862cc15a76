"""`mocha-pipe data check`: reads every split, decodes every image, and lists all that is wrong."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.checking.repeats import Repeats
from mocha_pipe.data.checking.tars import tar_problems
from mocha_pipe.data.errors import DatasetNotFoundError, MochaError
from mocha_pipe.data.images import message_of, read_with_digest
from mocha_pipe.data.readers.packed import is_packed
from mocha_pipe.data.source import find_data, has_label_files, read_split, splits_of
from mocha_pipe.data.types import DetectionSource, ImageRecord, Problem, error, warning


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
    seen = Repeats()
    reports = [_check_split(data, split, seen, progress) for split in splits_of(data)]
    about_all = _of_all_splits(data, reports, seen)
    return (replace(reports[0], problems=(*reports[0].problems, *about_all)), *reports[1:])


def _check_split(data: Path, split: str, seen: Repeats, progress: bool) -> SplitReport:
    try:
        source = read_split(data, split, progress=progress)
    except MochaError as refused:
        source = _unread(data, split, refused)
    records = [record for record in source.records if record.readable]
    damaged = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding leaves the GIL
        decoded = pool.map(_decode, records)
        bar = tqdm(decoded, f"decode {split}", len(records), unit="image", delay=2, disable=not progress)
        for record, found in zip(records, bar, strict=True):
            if isinstance(found, Problem):
                damaged.append(found)
            else:
                seen.add(source.split, record, found)
    if source.records and is_packed(find_data(data)):
        undecodable = {problem.where for problem in damaged}
        in_tars = tar_problems(find_data(data), split, progress=progress)
        damaged += [problem for problem in in_tars if problem.where not in undecodable]
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
        problems=(*source.problems, *damaged, *seen.problems(source.split)),
    )


def _decode(record: ImageRecord) -> str | Problem:
    """The digest of an image that can be decoded; what is wrong with any other."""
    try:
        return read_with_digest(record.path)[1]
    except MochaError as refused:
        return error(record.path, message_of(refused, record.path))


def _unread(data: Path, split: str, refused: MochaError) -> DetectionSource:
    """Stands for a split that cannot be read."""
    where, _, message = str(refused).partition(": ")
    problem = error(where, message)
    if split == "test" and isinstance(refused, DatasetNotFoundError):
        problem = warning(where, f"{message}; only a benchmark looks at 'test:'")
    return DetectionSource(root=data.parent, split=split, class_names=(), records=(), problems=(problem,))


def _of_all_splits(data: Path, reports: Sequence[SplitReport], seen: Repeats) -> list[Problem]:
    """What shows over all splits together, or in the one that a teacher learns from."""
    problems = []
    if "val" not in {report.split for report in reports} and find_data(data).suffix.lower() in {".yaml", ".yml"}:
        found = "there is no split 'val', which a training is measured on"
        problems.append(warning(data, f"{found}; add 'val: images/val', or name another: distill --val OTHER.json"))
    first, *others = reports[0].regions_per_class or [""]
    sound = all(problem.severity == "warning" for report in reports for problem in report.problems)
    used = {name for report in reports for name, count in report.regions_per_class.items() if count}
    # A data set that uses few of its classes need not use the first.
    if first not in used and 2 * len(used) >= len(others) > 0 and sound and has_label_files(data):
        found = f"no box has class id 0, which is '{first}'"
        problems.append(warning(data, f"{found}; if the labels count their classes from 1, subtract 1 from every id"))
    regions = seen.distinct_regions(reports[0].split)
    if regions == 1 or (regions == 0 and sound):
        found = f"{reports[0].split} has {regions or 'none'}"
        problems.append(warning(data, f"a teacher cache needs 2 or more different regions, {found}; draw more boxes"))
    return problems
