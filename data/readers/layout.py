"""data.yaml of ultralytics: root folder, class names, and what each split names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.parsing import is_path, kind, load_yaml, shown
from mocha_pipe.data.readers.class_names import check_names, differ_in_capitals, names_as_written
from mocha_pipe.data.readers.ultralytics_files import datasets_folders, imagenet_names
from mocha_pipe.data.types import Problem, warning

SPLITS = ("train", "val", "test")
_LIKE_VAL = ("valid", "Val", "VAL", "eval")
_MOST_CLASSES = 1_000_000  # of `nc:`, for which names are made
_REMEDY_OF_IDS = (
    "number them so, in the order of the labels' ids",
    "count them from 0, or where the labels count from 1 too, add '0: nothing'",
)
_Entry = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class YoloLayout:
    """What a data.yaml says, validated; paths of splits are resolved when they are asked for."""

    file: Path
    root: Path
    """Resolved."""
    class_names: tuple[str, ...] | None
    """None where neither `names` nor `nc` is given, as a COCO .json brings its own."""
    keypoint_numbers: int
    """Numbers that follow each box of a pose label (`kpt_shape`), which are skipped; 0 without."""
    entries: Mapping[str, _Entry]
    """Split -> folder, list file or COCO .json, or several folders and list files, as written."""
    problems: tuple[Problem, ...] = ()
    """Warnings about the file itself."""
    misnamed: str | None = None
    """A key that looks as if it meant `val`, where there is none."""

    def coco_file(self, split: str) -> Path | None:
        """The COCO .json that the split names, or None where it names YOLO images."""
        entry = self._entry(split)
        return self._resolve(split, entry) if isinstance(entry, str) and entry.lower().endswith(".json") else None

    def json_of_splits(self) -> list[Path]:
        """The COCO .json of every split that names one which is there."""
        entries = [entry for entry in self.entries.values() if isinstance(entry, str)]
        files = [(self.root / entry).resolve() for entry in entries if entry.lower().endswith(".json")]
        return [file for file in dict.fromkeys(files) if file.is_file()]

    def places(self, split: str) -> list[Path]:
        """Folders and list files of the split, resolved; they may lie outside the root.

        Raises:
            DatasetNotFoundError: One is not there.
            DatasetError: The key is missing.
        """
        entry = self._entry(split)
        return [self._resolve(split, one) for one in ([entry] if isinstance(entry, str) else entry)]

    def _entry(self, split: str) -> _Entry:
        if split not in self.entries:
            found = ", ".join(f"'{name}:'" for name in self.entries) or "none"
            remedy = f"add '{split}: images/{split}'"
            if split == "val" and self.misnamed:
                remedy = f"rename '{self.misnamed}:' to 'val:'"
            raise DatasetError(f"{self.file}: key '{split}:' is missing, splits found: {found}; {remedy}")
        return self.entries[split]

    def _resolve(self, split: str, entry: str) -> Path:
        for written in dict.fromkeys((entry, with_slashes(entry))):
            place = (self.root / written).resolve()
            if not place.exists() and written.startswith("../") and isinstance(self.entries[split], str):
                place = (self.root / written[3:]).resolve()  # Roboflow writes ../train/images beside train/images
            if place.exists():
                return place
        if is_windows_path(entry):
            found = f"'{split}: {entry}' is a path of another machine, which runs Windows"
            raise DatasetNotFoundError(f"{self.file}: {found}; write where the pictures lie on this one")
        raise DatasetNotFoundError(
            f"{self.file}: '{split}: {entry}' is not there, looked for {place}; mend '{split}:' or 'path:'"
        )


def load_layout(file: Path) -> YoloLayout:
    """Read and validate a data.yaml.

    `path:` counts from the file's own folder, then from the working folder, then from the folder of data sets that
    ultralytics is set to; the first of these that holds a split is taken.

    Raises:
        DatasetNotFoundError: The folder that `path:` names is not there.
        DatasetError: The file is no YAML mapping or a key has a wrong value.
    """
    keys = load_yaml(file)
    if keys.get("val") is None and keys.get("validation") is not None:  # ultralytics takes both spellings
        keys["val"] = keys["validation"]
    for key in ("path", *SPLITS):
        _check_paths(file, key, keys.get(key))
    _check_channels(file, keys.get("channels"))
    entries = {split: _entry(file, split, keys[split]) for split in SPLITS if keys.get(split)}
    root, problems = _root(file, keys.get("path"), entries)
    misnamed = None if "val" in entries else next((key for key in _LIKE_VAL if isinstance(keys.get(key), str)), None)
    if misnamed:
        unread = f"'{misnamed}:' is no split that `yolo train` knows, and is not read"
        problems = (*problems, warning(file, f"{unread}; rename it to 'val:'"))
    class_names = _class_names(file, keys)
    return YoloLayout(
        file=file,
        root=root,
        class_names=class_names,
        keypoint_numbers=_keypoint_numbers(file, keys.get("kpt_shape")),
        entries=entries,
        problems=(*problems, *differ_in_capitals(file, class_names or ())),
        misnamed=misnamed,
    )


def with_slashes(path: str) -> str:
    """A relative path as it is written on this machine, where it was written on Windows."""
    return path.replace("\\", "/")


def is_windows_path(path: str) -> bool:
    """Whether a path names a drive or a share of Windows."""
    return re.match(r"[A-Za-z]:[\\/]|\\\\", path) is not None


def _root(file: Path, path: object, entries: Mapping[str, _Entry]) -> tuple[Path, tuple[Problem, ...]]:
    """The folder that splits count from, and a warning where `yolo train` would count from another."""
    if path is None or path == "":
        return file.parent.resolve(), ()
    if not isinstance(path, str):
        raise DatasetError(f"{file}: 'path:' must be a folder, found {kind(path)}")
    bases = (file.parent, Path.cwd(), *datasets_folders())
    places = list(dict.fromkeys((base / written).resolve() for written in (path, with_slashes(path)) for base in bases))
    folders = [place for place in places if place.is_dir()]
    if not folders:
        if is_windows_path(path):
            found = f"'path: {path}' is a path of another machine, which runs Windows"
            raise DatasetNotFoundError(f"{file}: {found}; write where the data set lies on this one")
        tried = " and ".join(str(place) for place in places)
        raise DatasetNotFoundError(
            f"{file}: 'path: {path}' is no folder, looked for {tried}; set 'path:' to the data set's folder"
        )
    holding = [folder for folder in folders if _holds_a_split(folder, entries)]
    root, theirs = (holding or folders)[0], (Path.cwd() / path).resolve()
    if theirs == root or theirs not in holding:
        return root, ()
    found = f"'path: {path}' is read as {root}, from this file's folder, and `yolo train` would read {theirs}, from the"
    return root, (warning(file, f"{found} working folder; write 'path: {root}' so that there is only one"),)


def _holds_a_split(folder: Path, entries: Mapping[str, _Entry]) -> bool:
    named = [one for entry in entries.values() for one in ([entry] if isinstance(entry, str) else entry)]
    return any((folder / with_slashes(one)).exists() for one in named)


def _check_channels(file: Path, channels: object) -> None:
    if channels not in (None, 3, "3"):
        found = f"found 'channels: {str(channels)[:60]}'"
        raise DatasetError(
            f"{file}: teacher and student see three channels, red, green and blue, {found}; save the pictures as RGB "
            "and remove 'channels:'"
        )


def _check_paths(file: Path, key: str, value: object) -> None:
    for path in value if isinstance(value, list) else [value]:
        if isinstance(path, str) and path and not is_path(path):
            raise DatasetError(f"{file}: '{key}:' must be a path that a disk can have, found {shown(path)}; mend it")


def _entry(file: Path, split: str, value: object) -> _Entry:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise DatasetError(f"{file}: '{split}:' must be a folder, a list file, or a list of those, found {shown(value)}")


def _class_names(file: Path, keys: Mapping[str, object]) -> tuple[str, ...] | None:
    names, count = keys.get("names"), keys.get("nc")
    if count is not None:
        count = _class_count(file, count)
    if names is None:
        return None if count is None else tuple(f"class_{number}" for number in range(count))
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DatasetError(f"{file}: 'names:' must be a list or map of class names, found {kind(keys['names'])}")
    written = names_as_written(file, names)
    try:
        by_id = dict(zip(map(int, names), written, strict=True))
    except (TypeError, ValueError, OverflowError):
        by_id = {}
    if sorted(by_id) != list(range(len(names))):
        raise DatasetError(
            f"{file}: 'names:' has {len(names)} names, so its ids must be 0 to {len(names) - 1}, "
            f"found {shown(list(names))}; {_REMEDY_OF_IDS[sorted(by_id) == list(range(1, len(names) + 1))]}"
        )
    if count is not None and count != len(names):
        raise DatasetError(f"{file}: 'nc: {count}' but 'names:' has {len(names)} names; remove 'nc:'")
    return imagenet_names(check_names(file, [by_id[number] for number in range(len(names))]))


def _class_count(file: Path, count: object) -> int:
    try:
        number = float(str(count))
        if not 1 <= number <= _MOST_CLASSES or number % 1:
            raise ValueError
    except ValueError:
        raise DatasetError(f"{file}: 'nc:' must be a whole number of classes, found {shown(count)}") from None
    return int(number)


def _keypoint_numbers(file: Path, shape: object) -> int:
    if shape is None:
        return 0
    if isinstance(shape, list) and len(shape) == 2 and all(type(number) is int for number in shape):
        points, numbers = shape
        if points >= 1 and numbers in (2, 3):
            return int(points * numbers)
    raise DatasetError(
        f"{file}: 'kpt_shape:' must be [points, 2 or 3 numbers per point], found {shown(shape)}; mend it"
    )
