"""Reads NDJSON as ultralytics' platform exports it, where the pictures lie on this machine.

The first line describes the data set, every other line one picture with its boxes or polygons. A picture of the split
`train` lies in `images/train` of the folder that the first line's `path` names, counted from the file's own.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from mocha_pipe.data.errors import DatasetError, first_line
from mocha_pipe.data.parsing import is_path, parse_json, shown
from mocha_pipe.data.readers.class_names import check_names
from mocha_pipe.data.readers.labels import parse_labels
from mocha_pipe.data.readers.layout import SPLITS
from mocha_pipe.data.readers.yolo import read_record
from mocha_pipe.data.types import DetectionSource, Problem

_AS_VAL = 10  # without a split `val`, one training picture of so many stands for it, as in ultralytics

_DIGITS = 5  # of a class id; what is longer is a mistake, and refused like other ids that have no name


class _Picture(NamedTuple):
    """One line that names a picture."""

    number: int
    split: str
    file: str
    labels: list[list[str]]
    """Class id and coordinates of each object, as words of a label file."""


class _Content(NamedTuple):
    """What a file says."""

    folder: Path
    class_names: tuple[str, ...]
    pictures: tuple[_Picture, ...]


def splits_of_ndjson(file: Path) -> tuple[str, ...]:
    """The splits among train, val and test that an NDJSON names.

    Raises:
        DatasetError: The file breaks a rule.
    """
    found = {picture.split for picture in _load(file).pictures}
    return tuple(split for split in SPLITS if split in found)


def read_ndjson(file: Path, split: str, *, progress: bool = False) -> DetectionSource:
    """Read one split: image headers and boxes, no pixels.

    Raises:
        DatasetError: The file breaks a rule, or has no picture of this split.
    """
    content = _load(file)
    pictures = {picture.file: picture for picture in content.pictures if picture.split == split}
    if not pictures:
        raise DatasetError(f'{file}: no picture is of the split \'{split}\'; write "split": "{split}" where one is')
    records, problems = [], list[Problem]()
    for name, picture in tqdm(sorted(pictures.items()), f"read {split}", unit="image", delay=2, disable=not progress):
        where = f"{file}:{picture.number} object"
        labels = parse_labels(where, list(enumerate(picture.labels, 1)), len(content.class_names), 0)
        record, wrong = read_record(content.folder / name, name, labels)
        records += [record] if record else []
        problems += wrong
    return DetectionSource(
        root=content.folder,
        split=split,
        class_names=content.class_names,
        records=tuple(records),
        problems=tuple(problems),
    )


def _load(file: Path) -> _Content:
    lines = list(_lines(file))
    if not lines or lines[0][1].get("type") == "image":
        raise DatasetError(f"{file}: the first line of an NDJSON describes the data set, found none; export it again")
    about = lines[0][1]
    if about.get("type", "dataset") != "dataset" or not about.keys() & {"type", "task", "path", "class_names"}:
        found = f"found the keys {shown(sorted(about))}"
        raise DatasetError(
            f'{file}: the first line of an NDJSON of ultralytics is {{"type": "dataset", ...}}, {found}; export the '
            "labels as YOLO or COCO"
        )
    if about.get("task", "detect") not in ("detect", "segment"):
        raise DatasetError(f"{file}: the task must be detect or segment, found {shown(about['task'])}; export boxes")
    if not isinstance(about.get("path"), str):
        raise DatasetError(
            f"{file}: pictures behind a URL are not fetched; put them into images/train and images/val of a folder and "
            'name it in the first line: "path": "folder"'
        )
    if about["path"] and not is_path(about["path"]):
        rule = '"path" must be a folder that a disk can have'
        raise DatasetError(f"{file}: {rule}, found {shown(about['path'])}; mend the first line")
    folder = (file.parent / about["path"]).resolve()
    pictures = [_picture(file, number, entry) for number, entry in lines[1:]]
    if not any(picture.split == "train" for picture in pictures):
        raise DatasetError(f'{file}: no picture is of the split \'train\'; write "split": "train" where one is')
    return _Content(folder, _class_names(file, about.get("class_names"), pictures), _with_val(pictures))


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except ValueError as reason:
            raise DatasetError(f"{file}:{number}: is not valid JSON ({first_line(reason)}); export it again") from None
        if not isinstance(entry, dict):
            raise DatasetError(f"{file}:{number}: a line is a map, found {line[:60]}; export it again")
        yield number, entry


def _picture(file: Path, number: int, entry: Mapping[str, Any]) -> _Picture:
    split, name, annotations = entry.get("split"), entry.get("file"), entry.get("annotations") or {}
    if split not in SPLITS or not isinstance(name, str) or not is_path(name) or Path(name).name != name:
        raise DatasetError(
            f'{file}:{number}: a picture has a "split" (train, val or test) and a "file" without a folder, found '
            f"{shown(split)} and {shown(name)}; mend the line"
        )
    objects = next(iter(annotations.values()), []) if isinstance(annotations, dict) else annotations
    if not isinstance(objects, list) or not all(isinstance(one, list) and one for one in objects):
        raise DatasetError(
            f'{file}:{number}: "annotations" is {{"boxes": [[class, x, y, width, height], ...]}}, found '
            f"{str(annotations)[:60]}; mend the line"
        )
    return _Picture(number, split, f"images/{split}/{name}", [[str(value) for value in one] for one in objects])


def _class_names(file: Path, said: object, pictures: list[_Picture]) -> tuple[str, ...]:
    """Names by class id; ids without one are called by their number, as in ultralytics."""
    if not isinstance(said, dict | None) or not all(map(_is_class_id, said or ())):
        raise DatasetError(
            f'{file}: "class_names" is {{"0": name, "1": name, ...}}, found {shown(said)}; mend the first line'
        )
    names = {int(number): name for number, name in (said or {}).items()}
    used = [int(one[0]) for picture in pictures for one in picture.labels if _is_class_id(one[0])]
    count = max([*names, *used], default=-1) + 1
    if not count:
        raise DatasetError(f'{file}: no class is named; write "class_names": {{"0": name}} into the first line')
    other = "class" if names else "class_"
    return check_names(file, [names.get(number, f"{other}{number}") for number in range(count)], "class_names")


def _is_class_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= _DIGITS


def _with_val(pictures: list[_Picture]) -> tuple[_Picture, ...]:
    """With a split `val`, drawn from `train` as ultralytics draws it where there is none."""
    training = [number for number, picture in enumerate(pictures) if picture.split == "train"]
    if any(picture.split == "val" for picture in pictures) or len(training) < 2:
        return tuple(pictures)
    random.Random(0).shuffle(training)  # noqa: S311
    drawn = set(training[: max(1, len(training) // _AS_VAL)])
    return tuple(
        picture._replace(split="val") if number in drawn else picture for number, picture in enumerate(pictures)
    )
