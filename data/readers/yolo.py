"""Reads what `yolo train data=...` accepts: a data.yaml whose splits are folders, list files, or lists of those.

A split may also name a COCO .json. A label file is found as ultralytics does: the last `/images/` of the image's path
becomes `/labels/`, and the suffix becomes .txt.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from glob import escape
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.boxes import Boxes, clip_boxes, cxcywhn_to_xyxy, seem_corners
from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.images import inspect_image
from mocha_pipe.data.readers.class_names import widest_names, with_names
from mocha_pipe.data.readers.coco import names_of, read_coco
from mocha_pipe.data.readers.labels import Labels, read_labels
from mocha_pipe.data.readers.layout import YoloLayout, load_layout
from mocha_pipe.data.readers.listing import FoundImages, find_images, unread_labels
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
        DatasetError: A key is missing or wrong, or the split has no image.
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
    found = find_images(layout, split)
    if not found.images and not found.problems:
        places = ", ".join(str(place) for place in layout.places(split))
        raise DatasetError(
            f"{data}: split '{split}' is empty, no image in {places}; put images there or mend '{split}:'"
        )
    if split == next(iter(layout.entries)):
        found.problems.extend(layout.problems)
    found.problems.extend(_labels_without_image(layout, split, found))
    return read_images(layout, split, found, progress=progress)


def read_images(layout: YoloLayout, split: str, found: FoundImages, *, progress: bool) -> DetectionSource:
    """Read headers and label files of some images of a layout that has class names.

    Args:
        layout: Class names and keypoints.
        split: What to call them.
        found: As from `find_images`.
        progress: Show a bar when reading takes longer than two seconds.
    """
    assert layout.class_names is not None
    where, num_classes = f"{layout.file}: {split}", len(layout.class_names)
    records, problems, unlabelled, too_high = [], list(found.problems), [], list[Problem]()
    rows = [np.zeros((0, 4))]
    images = [(name, path, label_path(path)) for name, path in sorted(found.images.items())]
    for name, path, label in tqdm(images, f"read {split}", unit="image", delay=2, disable=not progress):
        labels = read_labels(label, num_classes, layout.keypoint_numbers)
        record, wrong = read_record(path, name, labels)
        problems += wrong
        records += [record] if record else []
        unlabelled += [] if labels else [path]
        too_high += labels.one_too_high if labels else ()
        rows += [labels.cxcywhn] if labels else []
    problems += [
        warning(label, f"is the label file of both {one} and {two}, and each has its boxes")
        for label, one, two in shared_labels((image, label) for _, image, label in images)
    ]
    problems += [*_missing_labels(unlabelled, len(images), where), *_corners(where, np.concatenate(rows))]
    if too_high and not any((record.class_ids == 0).any() for record in records):
        problems = [problem for problem in problems if problem not in set(too_high)]
        problems.append(_counts_from_one(where, too_high, num_classes))
    return DetectionSource(
        root=found.root,
        split=split,
        class_names=layout.class_names,
        records=tuple(records),
        problems=tuple(problems),
    )


def _counts_from_one(where: str, too_high: Sequence[Problem], num_classes: int) -> Problem:
    lines = f"{len(too_high)} line{'s have' if len(too_high) > 1 else ' has'} class id {num_classes}"
    return error(
        where,
        f"class ids count from 0, and these seem to count from 1: {lines} and none has 0, the first is "
        f"{too_high[0].where}; subtract 1 from every id, or put a name that nothing has before the others in 'names:'",
    )


def _corners(where: str, rows: Boxes) -> list[Problem]:
    """A warning of labels that were written as x1 y1 x2 y2."""
    centres, sizes = rows[:, :2], rows[:, 2:]
    if not seem_corners(centres, sizes, centres + sizes / 2):
        return []
    read = f"in all {len(rows)} lines the last two numbers exceed the two before, and as width and height some leave"
    told = f"boxes seem to be corners x1 y1 x2 y2: {read} the image"
    return [warning(where, f"{told}; a label line is class x_center y_center width height, export the labels again")]


def label_path(image: Path) -> Path:
    """Label file of an image: last `/images/` -> `/labels/`, suffix -> .txt."""
    images, labels = (f"{os.sep}{kind}{os.sep}" for kind in ("images", "labels"))
    return Path(labels.join(str(image).rsplit(images, 1))).with_suffix(".txt")


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


def shared_labels(labels: Iterable[tuple[ImageFile, Path]]) -> list[tuple[Path, str, str]]:
    """Label files, given with their images, that several images have: the file and names of two of the images."""
    sharing: dict[Path, list[ImageFile]] = defaultdict(list)
    for image, label in labels:
        sharing[label].append(image)
    shared = {label: images for label, images in sharing.items() if len(images) > 1 and label.is_file()}
    return [(label, Path(one).name, Path(two).name) for label, (one, two, *_) in shared.items()]


def _labels_without_image(layout: YoloLayout, split: str, found: FoundImages) -> list[Problem]:
    """A warning of label files whose boxes nobody reads, in folders of labels that a split has for itself."""
    folders = {place: label_path(place / "one.txt").parent for place in layout.places(split) if place.is_dir()}
    apart = {place: folder for place, folder in folders.items() if folder != place}
    if not apart:
        return []
    read = {str(label_path(image)) for image in found.images.values()}
    labels = [(place, folder, path) for place, folder in apart.items() for path in sorted(unread_labels(folder, read))]
    if not labels:
        return []
    place, folder, first = labels[0]
    where = place / Path(first).relative_to(folder)
    other = next((path for path in sorted(where.parent.glob(f"{escape(where.stem)}.*")) if path.is_file()), None)
    remedy = f"put {where.with_suffix('.jpg')} there, or remove the label file"
    if other:
        remedy = f"{other.name} is of no kind that `yolo train` reads; save it as PNG or JPEG"
    many = f"{len(labels)} label file{'s have' if len(labels) > 1 else ' has'} no image"
    return [warning(f"{layout.file}: {split}", f"{many} and no box of theirs is read, the first is {first}; {remedy}")]


def _missing_labels(unlabelled: list[Path], num_images: int, where: str) -> list[Problem]:
    if not unlabelled:
        return []
    looked = label_path(unlabelled[0])
    if len(unlabelled) == num_images:
        place = f"looked in {looked.parent} (for {looked.name} and so on)"
        beside = (path.with_suffix(suffix) for path in (looked, unlabelled[0]) for suffix in (".json", ".xml"))
        other = next((path for path in beside if path.is_file()), None)
        remedy = f"{other} is a label of another format, export it as YOLO" if other else "put the labels there"
        return [error(where, f"no image has a label file, {place}; {remedy}")]
    count = f"{len(unlabelled)} of {num_images} images have no label file"
    return [warning(where, f"{count} and count as background, the first is {unlabelled[0]} (looked for {looked})")]
