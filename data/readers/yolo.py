"""Reads what `yolo train data=...` accepts: a data.yaml whose splits are folders, list files, or lists of those.

A split may also name a COCO .json. A label file is found as ultralytics does: the last `/images/` of the image's path
becomes `/labels/`, and the suffix becomes .txt.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.boxes import clip_boxes, cxcywhn_to_xyxy
from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.files import name_inside
from mocha_pipe.data.images import IMAGE_SUFFIXES, inspect_image
from mocha_pipe.data.readers.class_names import widest_names, with_names
from mocha_pipe.data.readers.coco import names_of, read_coco
from mocha_pipe.data.readers.labels import Labels, read_labels
from mocha_pipe.data.readers.layout import YoloLayout, load_layout
from mocha_pipe.data.types import DetectionSource, ImageFile, ImageRecord, Problem, error, warning


def splits_of_yaml(data: Path) -> tuple[str, ...]:
    """The splits among train, val and test that a data.yaml names.

    Raises:
        DatasetNotFoundError, DatasetError: The file breaks a rule, or names no split.
    """
    layout = load_layout(data)
    if not layout.entries:
        raise DatasetError(f"{data}: names no split; add 'train: images/train' and 'val: images/val'")
    return tuple(layout.entries)


def read_yolo(data: Path, split: str, *, progress: bool = False) -> DetectionSource:
    """Read one split: image headers and label files, no pixels.

    Raises:
        DatasetNotFoundError: What the split names is not there.
        DatasetError: A key is missing or wrong, the split leaves its folder or has no image.
    """
    layout = load_layout(data)
    if coco_file := layout.coco_file(split):
        source = read_coco(coco_file, split, progress=progress)
        if layout.class_names:
            return with_names(source, layout.class_names, coco_file, listed="'names:'; remove 'names:'")
        read = {coco_file: source.class_names}
        lists = {file: read.get(file) or names_of(file) for file in (*layout.json_of_splits(), coco_file)}
        return with_names(source, widest_names(lists), coco_file, listed="the data set; export all from one project")
    if layout.class_names is None:
        raise DatasetError(
            f"{data}: key 'names:' is missing; add 'names: [first class, second class]' in the order of the ids"
        )
    images, problems = find_images(layout, split)
    if not images and not problems:
        places = ", ".join(str(place) for place in layout.places(split))
        raise DatasetError(
            f"{data}: split '{split}' is empty, no image in {places}; put images there or mend '{split}:'"
        )
    return read_images(layout, split, images, problems, progress=progress)


def read_images(
    layout: YoloLayout, split: str, images: Mapping[str, Path], problems: Iterable[Problem] = (), *, progress: bool
) -> DetectionSource:
    """Read headers and label files of some images, by name, of a layout that has class names.

    Args:
        layout: Class names and root; the images lie below the root.
        split: What to call them.
        images: As from `find_images`.
        problems: Those known so far.
        progress: Show a bar when reading takes longer than two seconds.
    """
    assert layout.class_names is not None
    records, problems, unlabelled = [], list(problems), []
    for name, path in tqdm(sorted(images.items()), f"read {split}", unit="image", delay=2, disable=not progress):
        labels = read_labels(label_path(path), len(layout.class_names), layout.keypoint_numbers)
        record, found = read_record(path, name, labels)
        problems += found
        records += [record] if record else []
        unlabelled += [] if labels else [path]
    problems += shared_labels((image, label_path(image)) for image in sorted(images.values()))
    problems += _missing_labels(unlabelled, len(images), f"{layout.file}: {split}")
    return DetectionSource(
        root=layout.root,
        split=split,
        class_names=layout.class_names,
        records=tuple(records),
        problems=tuple(problems),
    )


def label_path(image: Path) -> Path:
    """Label file of an image: last `/images/` -> `/labels/`, suffix -> .txt."""
    images, labels = (f"{os.sep}{kind}{os.sep}" for kind in ("images", "labels"))
    return Path(labels.join(str(image).rsplit(images, 1))).with_suffix(".txt")


def find_images(layout: YoloLayout, split: str) -> tuple[dict[str, Path], list[Problem]]:
    """Images of the split by name, and what is wrong with entries of list files."""
    images: dict[str, Path] = {}
    problems: list[Problem] = []
    repeated: list[str] = []
    for place in layout.places(split):
        for where, path in walk_images(place) if place.is_dir() else _list_entries(place):
            name = name_inside(path, layout.root)
            if name is None:
                remedy = "set 'path:' to a folder that holds both"
                if not path.is_absolute():
                    remedy = f"write ./{path} to count from the list's folder, or {remedy}"
                problems.append(error(where, f"'{path}' leaves the data set's folder {layout.root}; {remedy}"))
            elif name in images:
                repeated.append(name)
            else:
                images[name] = layout.root / name
    if repeated:
        count = f"{len(repeated)} image{'s are' if len(repeated) > 1 else ' is'} listed more than once"
        problems.append(warning(f"{layout.file}: {split}", f"{count} and used once, the first is {repeated[0]}"))
    return images, problems


def walk_images(folder: Path) -> Iterator[tuple[str, Path]]:
    """Images below a folder, as ultralytics' glob sees them: links are followed, hidden files and folders are not."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
                yield parent, Path(parent, name)


def _list_entries(file: Path) -> Iterator[tuple[str, Path]]:
    """Images that a list file names. `./` is the list's folder; other relative entries start at the working folder."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: is no list of image paths in UTF-8; name a folder or a .txt list") from None
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if Path(entry).suffix.lower() in IMAGE_SUFFIXES:
            yield f"{file}:{number}", file.parent / entry if entry.startswith("./") else Path(entry)


def read_record(path: Path, name: str, labels: Labels | None) -> tuple[ImageRecord | None, list[Problem]]:
    """An image with the boxes of its label file, and what is wrong with both.

    The record is None where the image is not there or not trained on. One that cannot be decoded keeps its record.
    """
    size, problems = inspect_image(path)
    record = None
    if size or problems[0].unreadable:
        width, height = size or (1, 1)
        boxes = cxcywhn_to_xyxy(labels.cxcywhn if labels else [], width, height)
        record = ImageRecord(
            path=path,
            name=name,
            width=width,
            height=height,
            xyxy=clip_boxes(boxes, width, height),
            class_ids=labels.class_ids if labels else np.zeros(0, np.int64),
            readable=size is not None,
        )
    return record, [*problems, *(labels.problems if labels else ())]


def shared_labels(labels: Iterable[tuple[ImageFile, Path]]) -> list[Problem]:
    """A problem for each label file, given with its image, that several images have."""
    sharing: dict[Path, list[str]] = defaultdict(list)
    for image, label in labels:
        sharing[label].append(Path(image).name)
    return [
        error(label, f"is the label file of both {names[0]} and {names[1]}; rename one image and its labels")
        for label, names in sharing.items()
        if len(names) > 1 and label.is_file()
    ]


def _missing_labels(unlabelled: list[Path], num_images: int, where: str) -> list[Problem]:
    if not unlabelled:
        return []
    looked = label_path(unlabelled[0])
    if len(unlabelled) == num_images:
        place = f"looked in {looked.parent} (for {looked.name} and so on)"
        return [error(where, f"no image has a label file, {place}; put the labels there")]
    count = f"{len(unlabelled)} of {num_images} images have no label file"
    return [warning(where, f"{count} and count as background, the first is {unlabelled[0]} (looked for {looked})")]
