"""Opens a data set: a YOLO data.yaml, a COCO .json or packed shards, one split at a time."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.readers import (
    SplitReading,
    is_packed,
    read_coco,
    read_packed,
    read_yolo,
    split_of_coco_file,
    splits_of_shards,
    splits_of_yaml,
)
from mocha_pipe.data.types import DetectionSource, Problem


def open_source(
    data: Path, split: str = "train", *, keep_unreadable: bool = False, progress: bool = False
) -> DetectionSource:
    """Read one split and refuse it if anything in it is wrong.

    Args:
        data: A data.yaml as `yolo train data=` takes it (a split may also name a COCO .json), a COCO .json, or what
            `data pack` wrote: its dataset.json, or its shards as `train-{000000..000031}.tar`.
        split: Key of data.yaml: train, val or test. A COCO .json is one split and ignores it.
        keep_unreadable: Keep the place of an image that is there but cannot be decoded, with a warning, for callers
            that set its boxes aside; otherwise it is an error like any other.
        progress: Show a bar when reading takes longer than two seconds.

    Raises:
        DatasetNotFoundError: The file, the split's folder or its list is not there.
        DatasetError: The data set breaks a rule; the line gives the first problem and the command that lists all.
    """
    return source_of(read_split(data, split, progress=progress), data, keep_unreadable=keep_unreadable)


def source_of(
    reading: SplitReading, data: Path | str | None = None, *, keep_unreadable: bool = False
) -> DetectionSource:
    """The source that a reading is when nothing in it is wrong; `data` is what `data check` can list its problems of.

    Raises:
        DatasetError: As `open_source`.
    """
    problems = [_as_warning(found) if found.unreadable and keep_unreadable else found for found in reading.problems]
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        line = f"{errors[0].where}: {errors[0].message}"
        if len(errors) > 1:
            listed = f"; list all: mocha-pipe data check {shlex.quote(str(data))}" if data is not None else ""
            line += f" (and {len(errors) - 1} more{listed})"
        raise DatasetError(line)
    return DetectionSource(
        root=reading.root,
        split=reading.split,
        class_names=reading.class_names,
        records=reading.records,
        warnings=tuple(problems),
    )


def _as_warning(problem: Problem) -> Problem:
    return replace(
        problem, severity="warning", message=f"{problem.message}; until then its boxes are set aside, in no training"
    )


def read_split(data: Path, split: str, *, progress: bool = False) -> SplitReading:
    """Read one split with all its problems; raises only where there is nothing to read.

    Raises:
        DatasetNotFoundError, DatasetError: The file or the split cannot be read at all.
    """
    _refuse_url(data)
    if is_packed(data):
        return read_packed(data, split)
    if _is_coco(data):
        return read_coco(data, split_of_coco_file(data), progress=progress)
    return read_yolo(data, split, progress=progress)


def splits_of(data: Path) -> tuple[str, ...]:
    """Names of the splits that the data set has.

    Raises:
        DatasetNotFoundError, DatasetError: The file cannot be read.
    """
    _refuse_url(data)
    if is_packed(data):
        return splits_of_shards(data)
    return (split_of_coco_file(data),) if _is_coco(data) else splits_of_yaml(data)


def _refuse_url(data: Path) -> None:
    if re.match(r"[a-z0-9]{2,}:/", str(data)):  # a path keeps one of a URL's slashes
        raise DatasetError(f"{data}: a URL is read by `mocha-pipe distill` only; copy the shards into a local folder")


def _is_coco(data: Path) -> bool:
    if not data.exists():
        raise DatasetNotFoundError(
            f"{data}: no such file; pass the data.yaml (YOLO) or .json (COCO) of a data set, "
            "or make the miniature one: mocha-pipe data miniature"
        )
    if data.is_dir():
        raise DatasetError(f"{data}: is a folder; pass the data.yaml (YOLO) or .json (COCO) inside it")
    if data.suffix.lower() not in {".yaml", ".yml", ".json"}:
        raise DatasetError(f"{data}: a data set is a .yaml (YOLO) or .json (COCO) file, found '{data.suffix}'")
    return data.suffix.lower() == ".json"
