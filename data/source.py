"""Opens a data set: a YOLO data.yaml, a COCO .json or packed shards, one split at a time."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.readers.coco import read_coco
from mocha_pipe.data.readers.coco_pictures import split_of_coco_file
from mocha_pipe.data.readers.packed import is_packed, read_packed, splits_of_shards
from mocha_pipe.data.readers.yolo import read_yolo, splits_of_yaml
from mocha_pipe.data.types import DetectionSource


def open_source(
    data: Path, split: str = "train", *, keep_unreadable: bool = False, progress: bool = False
) -> DetectionSource:
    """Read one split and refuse it if anything in it is wrong.

    Args:
        data: A data.yaml as `yolo train data=` takes it (a split may also name a COCO .json), a COCO .json, or what
            `data pack` wrote: its dataset.json, or its tars as `train-{000000..000031}.tar`.
        split: Key of data.yaml: train, val or test. A COCO .json is one split and ignores it.
        keep_unreadable: Keep the place of an image that is there but cannot be decoded, with a warning, for callers
            that set its boxes aside; otherwise it is an error like any other.
        progress: Show a bar when reading takes longer than two seconds.

    Raises:
        DatasetNotFoundError: The file, the split's folder or its list is not there.
        DatasetError: The data set breaks a rule; the line gives the first problem and the command that lists all.
    """
    return without_errors(read_split(data, split, progress=progress), data, keep_unreadable=keep_unreadable)


def without_errors(
    source: DetectionSource, data: Path | str | None = None, *, keep_unreadable: bool = False
) -> DetectionSource:
    """The source that a reader returned, if its problems are no more than warnings.

    Args:
        source: As a reader returned it.
        data: What `data check` can list its problems of, where there is such a file.
        keep_unreadable: See `open_source`.

    Raises:
        DatasetError: As `open_source`.
    """
    problems = source.problems
    if keep_unreadable:
        aside = "until then its boxes are set aside, in no training"
        problems = tuple(
            replace(found, severity="warning", message=f"{found.message}; {aside}") if found.unreadable else found
            for found in problems
        )
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        line = f"{errors[0].where}: {errors[0].message}"
        if len(errors) > 1:
            listed = f"; list all: mocha-pipe data check {shlex.quote(str(data))}" if data is not None else ""
            line += f" (and {len(errors) - 1} more{listed})"
        raise DatasetError(line)
    return replace(source, problems=problems)


def read_split(data: Path, split: str, *, progress: bool = False) -> DetectionSource:
    """Read one split with all its problems, errors too; raises only where there is nothing to read.

    Raises:
        DatasetNotFoundError, DatasetError: The file or the split cannot be read at all.
    """
    if _is_packed(data):
        return read_packed(data, split)
    if data.suffix.lower() == ".json":
        return read_coco(data, split_of_coco_file(data), progress=progress)
    return read_yolo(data, split, progress=progress)


def splits_of(data: Path) -> tuple[str, ...]:
    """Names of the splits that the data set has.

    Raises:
        DatasetNotFoundError, DatasetError: The file cannot be read.
    """
    if _is_packed(data):
        return splits_of_shards(data)
    return (split_of_coco_file(data),) if data.suffix.lower() == ".json" else splits_of_yaml(data)


def _is_packed(data: Path) -> bool:
    """Whether a data set is packed; otherwise it is a COCO .json or a data.yaml that is there.

    Raises:
        DatasetNotFoundError, DatasetError: It is none of these.
    """
    if re.match(r"[a-z0-9]{2,}:/", str(data)):  # a path keeps one of a URL's slashes
        raise DatasetError(f"{data}: a URL is read by `mocha-pipe distill` only; copy the shards into a local folder")
    if is_packed(data):
        return True
    if not data.exists():
        raise DatasetNotFoundError(
            f"{data}: no such file; pass the data.yaml (YOLO) or .json (COCO) of a data set, "
            "or make the miniature one: mocha-pipe data miniature"
        )
    if data.is_dir():
        raise DatasetError(f"{data}: is a folder; pass the data.yaml (YOLO) or .json (COCO) inside it")
    if data.suffix.lower() not in {".yaml", ".yml", ".json"}:
        raise DatasetError(f"{data}: a data set is a .yaml (YOLO) or .json (COCO) file, found '{data.suffix}'")
    return False
