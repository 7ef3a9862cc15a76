"""Opens a data set: a YOLO data.yaml, a COCO .json or packed shards, one split at a time."""

import re
from dataclasses import replace
from pathlib import Path

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError, quoted
from mocha_pipe.data.readers.coco import read_coco
from mocha_pipe.data.readers.coco_pictures import split_of_coco_file
from mocha_pipe.data.readers.layout import load_layout
from mocha_pipe.data.readers.ndjson import read_ndjson, splits_of_ndjson
from mocha_pipe.data.readers.packed import is_packed, read_packed, splits_of_shards
from mocha_pipe.data.readers.ultralytics_files import shipped_yaml
from mocha_pipe.data.readers.yolo import read_yolo, splits_of_yaml
from mocha_pipe.data.types import DetectionSource


def open_source(
    data: Path, split: str = "train", *, keep_unreadable: bool = False, progress: bool = False
) -> DetectionSource:
    """Read one split and refuse it if anything in it is wrong.

    Args:
        data: What `yolo train data=` takes: a data.yaml (a split of which may also name a COCO .json), the folder that
            holds one, the name of one that ultralytics ships, or an .ndjson with its pictures here; a COCO .json; or
            what `data pack` wrote, its dataset.json, or its tars as `train-{000000..000031}.tar`.
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
            listed = f"; list all: mocha-pipe data check {quoted(data)}" if data is not None else ""
            line += f" (and {len(errors) - 1} more{listed})"
        raise DatasetError(line)
    return replace(source, problems=problems)


def read_split(data: Path, split: str, *, progress: bool = False) -> DetectionSource:
    """Read one split with all its problems, errors too; raises only where there is nothing to read.

    Raises:
        DatasetNotFoundError, DatasetError: The file or the split cannot be read at all.
    """
    data = find_data(data)
    if is_packed(data):
        return read_packed(data, split)
    if data.suffix.lower() == ".json":
        return read_coco(data, split_of_coco_file(data), progress=progress)
    if data.suffix.lower() == ".ndjson":
        return read_ndjson(data, split, progress=progress)
    return read_yolo(data, split, progress=progress)


def splits_of(data: Path) -> tuple[str, ...]:
    """Names of the splits that the data set has.

    Raises:
        DatasetNotFoundError, DatasetError: The file cannot be read.
    """
    data = find_data(data)
    if is_packed(data):
        return splits_of_shards(data)
    if data.suffix.lower() == ".ndjson":
        return splits_of_ndjson(data)
    return (split_of_coco_file(data),) if data.suffix.lower() == ".json" else splits_of_yaml(data)


def find_data(data: Path) -> Path:
    """The file that describes a data set: the one named, the .yaml in the folder named, or one that ultralytics ships.

    Raises:
        DatasetNotFoundError, DatasetError: There is none, or it is nothing that can be read.
    """
    if re.match(r"[a-z0-9]{2,}:/", str(data)):  # a path keeps one of a URL's slashes
        raise DatasetError(f"{data}: a URL is read by `mocha-pipe distill` only; copy the shards into a local folder")
    if is_packed(data):
        return data
    if data.is_dir():
        return _yaml_in(data)
    if not data.exists():
        return _named_yaml(data)
    if data.suffix.lower() in {".zip", ".gz", ".tgz", ".bz2", ".xz"}:
        raise DatasetError(
            f"{data}: is an archive; unpack it (python -m zipfile -e FILE FOLDER, or tar -xf FILE) and pass the "
            "data.yaml in it"
        )
    if data.suffix.lower() not in {".yaml", ".yml", ".json", ".ndjson"}:
        found = f"found '{data.suffix}'"
        raise DatasetError(f"{data}: a data set is a .yaml (YOLO), .ndjson (ultralytics) or .json (COCO) file, {found}")
    return data


def has_label_files(data: Path) -> bool:
    """Whether the boxes of a data set stand in label files, whose ids are those of a data.yaml's names."""
    file = find_data(data)
    if is_packed(file) or file.suffix.lower() in {".json", ".ndjson"}:
        return False
    entries = load_layout(file).entries.values()
    return not any(isinstance(entry, str) and entry.lower().endswith(".json") for entry in entries)


def _yaml_in(folder: Path) -> Path:
    """The one .yaml in a folder, or else below it, as ultralytics looks for it."""
    tried = ((folder.glob, "*.yaml"), (folder.rglob, "*.yaml"), (folder.glob, "*.yml"), (folder.rglob, "*.yml"))
    files = next((there for look, pattern in tried if (there := sorted(look(pattern)))), [])
    if len(files) > 1:
        files = [file for file in files if file.stem == folder.resolve().name] or files
    if len(files) != 1:
        found = f"{len(files)}, {files[0]} and {files[1]}" if files else "none"
        if not files and (hint := _instead_of_yaml(folder)):
            raise DatasetError(f"{folder}: a folder is a data set where it holds one .yaml, found none; {hint}")
        raise DatasetError(
            f"{folder}: a folder is a data set where it holds one .yaml, found {found}; pass the data.yaml (YOLO) or "
            ".json (COCO) itself"
        )
    return files[0]


def _instead_of_yaml(folder: Path) -> str | None:
    """What to pass where a tool wrote no data.yaml: its json, or one to write from its list of classes."""
    if lists := [folder / name for name in ("classes.txt", "obj.names") if (folder / name).is_file()]:
        images = next((name for name in ("images/train", "images") if (folder / name).is_dir()), ".")
        return (
            f"write a data.yaml there with 'train: {images}', 'val:' of other images, and as 'names:' the lines of "
            f"{lists[0].name} in their order"
        )
    files = sorted(
        found for pattern in ("*.json", "annotations/*.json", "*/*.coco.json") for found in folder.glob(pattern)
    )
    training = next((file for file in files if "train" in str(file.relative_to(folder))), None)
    return f"pass the .json itself, such as {training or files[0]}" if files else None


def _named_yaml(data: Path) -> Path:
    """A data.yaml named without its suffix, here or among those that ultralytics ships."""
    if not data.suffix:
        here = (data.with_name(f"{data.name}{suffix}") for suffix in (".yaml", ".yml"))
        if found := next((file for file in here if file.is_file()), None):
            return found
    if len(data.parts) == 1 and data.suffix in ("", ".yaml") and (shipped := shipped_yaml(data.stem)):
        try:
            load_layout(shipped)
        except DatasetNotFoundError:
            raise DatasetNotFoundError(
                f"{data}: ultralytics ships a yaml of this name, but its pictures are not on this machine; have them "
                f"fetched by: yolo train data={data}"
            ) from None
        return shipped
    raise DatasetNotFoundError(
        f"{data}: no such file; pass the data.yaml (YOLO) or .json (COCO) of a data set, "
        "or make the miniature one: mocha-pipe data miniature"
    )
