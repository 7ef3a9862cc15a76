"""Imports Open Images: its published CSV files and images become a data set in YOLO layout of the 31 coarse classes."""

import csv
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

from mocha_pipe.data.coarse import COARSE_NAMES, OPEN_IMAGES
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.files import appearing_folder
from mocha_pipe.data.images import IMAGE_SUFFIXES
from mocha_pipe.data.placing import is_rewritten, place_picture

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Open Images' name of a split -> the key in data.yaml."""

_SIDES = ("XMin", "XMax", "YMin", "YMax")
_COLUMNS = ("ImageID", "LabelName", *_SIDES, "IsGroupOf", "IsDepiction")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedSplit:
    """What became of one split."""

    split: str
    """Key in data.yaml."""
    images: int
    boxes: int
    missing_images: int
    """Images with boxes of the coarse classes that are not in the folder of images; they are left out."""
    depictions: int
    """Boxes left out because they show a drawing, a toy or the like."""
    groups: int
    """Boxes left out because they hold several objects."""


def import_openimages(
    source: Path, out: Path, *, copy: bool = False, progress: bool = False
) -> tuple[ImportedSplit, ...]:
    """Write a data set of the boxes that belong to a coarse class (data/coarse.py).

    Args:
        source: Holds what Open Images publishes: a class description (`oidv7-class-descriptions-boxable.csv`,
            `class-descriptions-boxable.csv` or `oidv6-class-descriptions.csv`), and for one split or more the boxes
            (`oidv6-train-annotations-bbox.csv`, `validation-annotations-bbox.csv`, `test-annotations-bbox.csv`) and a
            folder of images (`train/`, `validation/`, `test/`, each `<ImageID>.jpg`). Images may be a part of the
            published ones.
        out: New or empty folder for `data.yaml`, `images/<split>/` and `labels/<split>/`, which appear when all is
            written.
        copy: Copy the images, so that `out` stands alone; otherwise symbolic links lead to them, save those that
            `yolo train` would rewrite, which are copied.
        progress: Show a bar.

    Returns:
        Counts per split. Images without a box of a coarse class are left out, since unlabelled objects may be in them.

    Raises:
        DatasetNotFoundError: A file or folder is not there.
        DatasetError: `out` is in use, a file breaks a rule, or there is nothing to import.
    """
    coarse_of = _read_classes(source)
    splits = {split: file for split in _SPLITS if (file := _boxes_file(source, split)) and (source / split).is_dir()}
    if not splits:
        raise DatasetNotFoundError(
            f"{source}: a split is a file such as validation-annotations-bbox.csv and a folder of images such as "
            "validation/, found no such pair; put both there"
        )
    in_use = DatasetError(f"{out}: must be a new or empty folder, found something there; name another one")
    with appearing_folder(out, in_use) as building:
        imported = tuple(
            _import_split(source / split, file, building, _SPLITS[split], coarse_of, copy, progress)
            for split, file in splits.items()
        )
        if not any(part.boxes for part in imported):
            raise DatasetError(
                f"{source}: none of the images in {', '.join(f'{split}/' for split in splits)} has a box of a coarse "
                "class; name the folder that holds the images of these CSV files"
            )
        keys = {part.split: f"images/{part.split}" for part in imported if part.images}
        content = yaml.safe_dump({**keys, "names": list(COARSE_NAMES)}, sort_keys=False)
        (building / "data.yaml").write_text(content, encoding="utf-8")
    return imported


def _read_classes(source: Path) -> dict[str, int]:
    """Label of an Open Images class -> coarse id."""
    files = sorted(source.glob("*class-descriptions*.csv"))
    if not files:
        raise DatasetNotFoundError(
            f"{source}: class names are read from class-descriptions-boxable.csv, found no such file; put it there"
        )
    coarse_ids = {name.casefold(): number for number, merged in enumerate(OPEN_IMAGES.values()) for name in merged}
    rows = [row for file in files for _, row in _rows(file) if len(row) == 2]
    names = {label: display.strip().casefold() for label, display in rows}
    found = {label: coarse_ids[name] for label, name in names.items() if name in coarse_ids}
    if not found:
        raise DatasetError(
            f"{files[0]}: has lines such as '/m/02jvh9,Mug', but none names a class to import; get the file again"
        )
    return found


def _boxes_file(source: Path, split: str) -> Path | None:
    files = sorted(source.glob(f"*{split}-annotations-bbox.csv"))
    if len(files) > 1:
        raise DatasetError(
            f"{source}: has two files of boxes for '{split}', {files[0].name} and {files[1].name}; move one away"
        )
    return files[0] if files else None


def _import_split(
    folder: Path, file: Path, out: Path, split: str, coarse_of: Mapping[str, int], copy: bool, progress: bool
) -> ImportedSplit:
    # What is read below comes from the list of files alone: an ImageID is looked up in it and never made a path.
    images = {
        os.path.splitext(entry.name)[0]: entry.name  # noqa: PTH122
        for entry in os.scandir(folder)
        if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")  # noqa: PTH122
    }
    lines: dict[str, dict[str, None]] = defaultdict(dict)  # a box that is there twice, as mug and as cup, is one box
    missing, left_out = set[str](), Counter[str]()
    for image, coarse, group, depiction, line in tqdm(
        _boxes(file, coarse_of), f"boxes of {split}", unit="box", disable=not progress
    ):
        if image not in images:
            missing.add(image)
        elif depiction or group:
            left_out["depictions" if depiction else "groups"] += 1
        elif line:
            lines[image][f"{coarse} {line}\n"] = None
    for kind in ("images", "labels"):
        (out / kind / split).mkdir(parents=True)
    for image in tqdm(sorted(lines), f"images of {split}", unit="image", disable=not progress):
        (out / "labels" / split / f"{image}.txt").write_text("".join(lines[image]), encoding="utf-8")
        original, place = folder.resolve() / images[image], out / "images" / split / images[image]
        place_picture(original, place, may_link=not copy and not is_rewritten(original), symbolic=True)
    return ImportedSplit(
        split=split,
        images=len(lines),
        boxes=sum(map(len, lines.values())),
        missing_images=len(missing),
        depictions=left_out["depictions"],
        groups=left_out["groups"],
    )


def _boxes(file: Path, coarse_of: Mapping[str, int]) -> Iterator[tuple[str, int, bool, bool, str]]:
    """Image, coarse id, whether a group, whether a depiction, and YOLO's four numbers, empty where the box is."""
    rows = _rows(file)
    _, header = next(rows, (0, []))
    if absent := [name for name in _COLUMNS if name not in header]:
        raise DatasetError(
            f"{file}: must begin with the columns of Open Images, found no {absent[0]} in '{','.join(header)[:80]}'; "
            "get the file again"
        )
    image, label, *sides, group, depiction = (header.index(name) for name in _COLUMNS)
    for number, row in rows:
        if len(row) != len(header):
            raise DatasetError(f"{file}:{number}: has {len(row)} of {len(header)} values; get the file again")
        coarse = coarse_of.get(row[label])
        if coarse is not None:
            line = _yolo(f"{file}:{number}", [row[side] for side in sides])
            yield row[image], coarse, row[group] == "1", row[depiction] == "1", line


def _yolo(where: str, sides: Sequence[str]) -> str:
    """Centre and size from left, right, top, bottom, all as shares of the image; empty where the box has no area."""
    try:
        values = [float(side) for side in sides]
        if not all(map(math.isfinite, values)):
            raise ValueError
    except ValueError:
        raise DatasetError(f"{where}: {', '.join(_SIDES)} must be numbers, found {sides}; mend the line") from None
    left, right, top, bottom = (min(max(value, 0.0), 1.0) for value in values)
    numbers = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    written = [f"{number:.6f}" for number in numbers]
    return " ".join(written) if min(float(written[2]), float(written[3])) > 0 else ""


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file with their line numbers; empty lines are left out."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"{file}:{reader.line_num}"
            raise DatasetError(f"{where}: must be CSV in UTF-8, found {error}; get the file again") from None
