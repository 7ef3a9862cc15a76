"""Reads COCO detection json: `images`, `annotations` with bbox x y w h in pixels, `categories`.

Categories become class ids in ascending order of their ids, without gaps. Crowd boxes (`iscrowd`) are skipped.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from posixpath import normpath
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.boxes import clip_boxes, xywh_to_xyxy
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.files import name_inside
from mocha_pipe.data.images import inspect_image
from mocha_pipe.data.types import DetectionSource, ImageRecord, Problem, error, warning


class _Box(NamedTuple):
    where: str
    class_id: int
    xywh: tuple[float, float, float, float]


def split_of_coco_file(file: Path) -> str:
    """Split in a file name: instances_train2017.json -> train2017."""
    return file.stem.rsplit("_", 1)[-1]


def read_coco(
    file: Path, split: str, *, class_names: tuple[str, ...] | None = None, progress: bool = False
) -> DetectionSource:
    """Read a COCO json: image headers and boxes, no pixels.

    The folder of images is the first that holds one of them: the json's folder, images/ in it, and then, from the
    parent of the json's folder: train2017, images/train2017 (split from the file name), images, the parent itself.

    Args:
        file: The json.
        split: Name given to the split.
        class_names: Names in the data.yaml that names this file, where there is one; the categories must equal them.
        progress: Show a bar when reading takes longer than two seconds.

    Raises:
        DatasetNotFoundError: No image is there.
        DatasetError: It is no COCO json, or has no image.
    """
    content = _load(file)
    class_of, names = _categories(file, content["categories"])
    if class_names is not None and class_names != names:
        raise DatasetError(
            f"{file}: categories {list(names)} differ from 'names:' {list(class_names)}; remove 'names:'"
        )
    images, problems = _images(file, content["images"])
    boxes, found = _boxes(file, content["annotations"], images, class_of)
    problems += found
    if not images:
        raise DatasetError(f"{file}: split '{split}' is empty, 'images' lists none that can be used; add images")
    folder = _image_folder(file, images)
    records, missing = [], []
    by_name = sorted((image["file_name"], image_id) for image_id, image in images.items())
    for name, image_id in tqdm(by_name, f"read {split}", unit="image", delay=2, disable=not progress):
        path = folder / name
        if name_inside(path, folder) is None:
            problems.append(
                error(file, f"file_name '{name}' leaves the image folder {folder} by a link; copy the image")
            )
        elif not path.exists():
            missing.append(name)
        else:
            record, found = _read_image(path, name, images[image_id], boxes[image_id])
            records += [record] if record else []
            problems += found
    if missing:
        count = f"{len(missing)} of {len(images)} images are missing"
        problems.append(error(file, f"{count}, the first is {missing[0]}, looked in {folder}; put them there"))
    return DetectionSource(
        root=folder, split=split, class_names=names, records=tuple(records), problems=tuple(problems)
    )


def _load(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as reason:
        raise DatasetError(f"{file}: is not valid JSON ({reason}); export it again") from None
    keys = ("images", "annotations", "categories")
    for key in keys:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(f"{file}: COCO json needs the list '{key}', found none; export it as COCO detection")
    return {key: content[key] for key in keys}


def _categories(file: Path, categories: list[Any]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Map of category id -> class id, and the class names."""
    names: dict[int, str] = {}
    for entry in categories:
        if not _is_entry(entry, "name"):
            raise DatasetError(f"{file}: a category is {{'id': whole number, 'name': text}}, found {entry!r}; mend it")
        if entry["id"] in names:
            raise DatasetError(f"{file}: category id {entry['id']} is there twice; give each category an id of its own")
        names[entry["id"]] = entry["name"]
    if not names:
        raise DatasetError(f"{file}: 'categories' is empty; add one {{'id': 1, 'name': ...}} per class")
    ordered = sorted(names)
    return {number: index for index, number in enumerate(ordered)}, tuple(names[number] for number in ordered)


def _images(file: Path, entries: list[Any]) -> tuple[dict[int, Mapping[str, Any]], list[Problem]]:
    """Usable image entries by id, their file names in POSIX form."""
    images: dict[int, Mapping[str, Any]] = {}
    problems = []
    names = set[str]()
    for index, entry in enumerate(entries):
        if not _is_entry(entry, "file_name"):
            wrong = f"an image is {{'id': whole number, 'file_name': path}}, found {entry!r}; mend it"
        elif (name := normpath(entry["file_name"].replace("\\", "/"))) == ".." or name.startswith(("../", "/")):
            wrong = f"file_name '{entry['file_name']}' leaves the image folder; write a path inside it"
        elif entry["id"] in images or name in names:
            twice = f"id {entry['id']}" if entry["id"] in images else f"file_name '{name}'"
            wrong = f"image {twice} is there twice; keep one entry per image"
        else:
            images[entry["id"]] = {**entry, "file_name": name}
            names.add(name)
            continue
        problems.append(error(f"{file}: images[{index}]", wrong))
    return images, problems


def _is_entry(entry: Any, text: str) -> bool:
    """Whether an entry has an id, and a text under that key."""
    return isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get(text), str)


def _boxes(
    file: Path, annotations: list[Any], images: Mapping[int, object], class_of: Mapping[int, int]
) -> tuple[dict[int, list[_Box]], list[Problem]]:
    """Boxes by image id in the order of the file, without crowds, and annotations that are wrong."""
    boxes: dict[int, list[_Box]] = defaultdict(list)
    problems = []
    for index, entry in enumerate(annotations):
        where = f"{file}: annotations[{index}]"
        if not isinstance(entry, dict):
            problems.append(error(where, f"an annotation is a map, found {entry!r}; remove it"))
        elif not _is_id(entry.get("image_id"), images):
            problems.append(error(where, f"image_id {entry.get('image_id')} is not in 'images'; remove the annotation"))
        elif not _is_id(entry.get("category_id"), class_of):
            problems.append(error(where, f"category_id {entry.get('category_id')} is not in 'categories'; mend the id"))
        elif not entry.get("iscrowd"):
            xywh = _numbers(entry.get("bbox"))
            if isinstance(xywh, str):
                problems.append(error(where, xywh))
            elif xywh[2] == 0 or xywh[3] == 0:  # COCO 2017 itself has a few
                problems.append(warning(where, f"bbox {list(xywh)} has no area; dropped"))
            else:
                boxes[entry["image_id"]].append(_Box(where, class_of[entry["category_id"]], xywh))
    return boxes, problems


def _is_id(value: object, known: Mapping[int, object]) -> bool:
    return isinstance(value, int) and value in known


def _numbers(bbox: object) -> tuple[float, float, float, float] | str:
    """The four numbers of a bbox, or what is wrong with it."""
    if isinstance(bbox, list) and len(bbox) == 4 and all(type(number) in (int, float) for number in bbox):
        x, y, width, height = map(float, bbox)
        if all(map(math.isfinite, bbox)) and min(width, height) >= 0:
            return x, y, width, height
    return f"bbox must be four finite numbers x y width height, the last two 0 or more, found {bbox!r}; mend it"


def _image_folder(file: Path, images: Mapping[int, Mapping[str, Any]]) -> Path:
    """The first folder tried that holds one of the images, resolved."""
    here = file.parent.resolve()
    root, split = here.parent, split_of_coco_file(file)
    places = [here, here / "images", root / split, root / "images" / split, root / "images", root]
    names = [image["file_name"] for image in images.values()]
    for place in places:
        if any((place / name).is_file() for name in names):
            return place.resolve()
    tried = ", ".join(str(place) for place in places)
    raise DatasetNotFoundError(
        f"{file}: none of {len(images)} images found, such as {names[0]}, tried {tried}; put them in one"
    )


def _read_image(
    path: Path, name: str, entry: Mapping[str, Any], boxes: list[_Box]
) -> tuple[ImageRecord | None, list[Problem]]:
    """The record where the image can be read, and the problems of the image and its boxes."""
    size, problems = inspect_image(path)
    if not size and not problems[0].unreadable:
        return None, problems
    width, height = size or _stated_size(entry, boxes)
    stated = (entry.get("width", width), entry.get("height", height))
    if size and stated != size:
        found = f"{width} x {height} (upright), but the json says {stated[0]} x {stated[1]}"
        return None, [*problems, error(path, f"the image is {found}; mend the json or put the right image there")]
    kept = {}
    clipped = clip_boxes(xywh_to_xyxy([box.xywh for box in boxes]), width, height)
    for box, xyxy in zip(boxes, clipped, strict=True):
        if (xyxy[2:] <= xyxy[:2]).any():
            outside = f"bbox {list(box.xywh)} lies outside the image of {width} x {height}"
            problems.append(error(box.where, f"{outside}; mend or remove the annotation"))
        else:
            kept[box.class_id, box.xywh] = xyxy
    if repeated := len(boxes) - len({box[1:] for box in boxes}):
        problems.append(warning(path, f"{repeated} duplicate annotation{'s' if repeated > 1 else ''} dropped"))
    record = ImageRecord(
        path=path,
        name=name,
        width=width,
        height=height,
        xyxy=np.array(list(kept.values()), dtype=np.float64).reshape(-1, 4),
        class_ids=np.array([class_id for class_id, _ in kept], dtype=np.int64),
        readable=size is not None,
    )
    return record, problems


def _stated_size(entry: Mapping[str, Any], boxes: list[_Box]) -> tuple[int, int]:
    """Size of an image that cannot be decoded: as the json states it, else the smallest that holds its boxes."""
    width, height = entry.get("width"), entry.get("height")
    if isinstance(width, int) and isinstance(height, int):
        return width, height
    right, bottom = (max((box.xywh[axis] + box.xywh[axis + 2] for box in boxes), default=1) for axis in (0, 1))
    return max(1, math.ceil(right)), max(1, math.ceil(bottom))
