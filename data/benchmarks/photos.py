"""A benchmark of one's own from photographs: one subfolder per object, which has the object's name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.files import name_inside
from mocha_pipe.data.names import name_words, one_spelling
from mocha_pipe.data.parsing import load_yaml, shown
from mocha_pipe.data.readers.labels import read_labels
from mocha_pipe.data.readers.listing import walk_images
from mocha_pipe.data.readers.yolo import read_record, shared_labels
from mocha_pipe.data.source import without_errors
from mocha_pipe.data.types import DetectionSource, ImageRecord, PersonalBenchmark, Problem, error

_MOST_IDS = 1_000_000  # class ids in label files are compared, never looked up


class _Photo(NamedTuple):
    """One image of an object's folder."""

    record: ImageRecord
    label: Path | None
    label_ids: frozenset[int]
    """Class ids in the label file."""


def object_folders(folder: Path) -> list[Path]:
    """Subfolders that are not hidden, by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def read_photos(folder: Path, *, progress: bool = False) -> PersonalBenchmark:
    """Read `folder/my mug/*.jpg`, `folder/red mug/*.jpg` and so on; folders inside an object's folder count as it.

    Coarse class: what `folder/coarse.yaml` says in lines like `my cup: mug`, else the longest class name of the
    detector that ends the object's name: `my teddy bear` is a teddy bear where the detector knows those, else a bear.

    Boxes: a label file of YOLO beside the image, in a folder `labels` beside it, or in one beside its folder `images`.
    All its boxes are the folder's object, whatever their class id; different ids in one folder are refused, as one of
    them would be something else. An empty file says that the object is not in the picture.

    Without a label file the whole picture is the object's box. Such an image may be support; it may be query only where
    no image of the benchmark has a label file.

    Raises:
        DatasetError: An image, a label file or coarse.yaml breaks a rule, an object has no image or no coarse class.
    """
    root, folders = folder.resolve(), object_folders(folder)
    objects = tuple(one_spelling(path.name) for path in folders)
    said = _said_classes(folder / "coarse.yaml", objects)
    coarse = [_coarse_class(folder / "coarse.yaml", name, said) for name in objects]
    photos: list[_Photo] = []
    problems: list[Problem] = []
    for number, path in enumerate(folders):
        images = sorted(set(walk_images(path)))
        if not images:
            what = "every subfolder is an object with images, found none; put some there or remove it"
            problems.append(error(path, what))
        own: list[_Photo] = []
        for image in tqdm(images, f"read {path.name}", unit="image", delay=2, disable=not progress):
            photo, found = _read_photo(image, root, number)
            own += [photo] if photo else []
            problems += found
        problems += _other_things(path, own)
        photos += own
    photos.sort(key=lambda photo: photo.record.name)
    boxed = tuple(index for index, photo in enumerate(photos) if photo.label)
    coarse_names = tuple(dict.fromkeys(coarse))
    records = tuple(photo.record for photo in photos)
    source = DetectionSource(root=root, split="photos", class_names=objects, records=records, problems=tuple(problems))
    return PersonalBenchmark(
        name=root.name,
        source=without_errors(source),
        coarse_names=coarse_names,
        coarse_of=np.array([coarse_names.index(name) for name in coarse], np.int64),
        by_name=frozenset(number for number, name in enumerate(objects) if name not in said),
        query=boxed if 0 < len(boxed) < len(photos) else None,
        notes=_notes(root.name, len(boxed), len(photos)),
    )


def _read_photo(image: Path, root: Path, number: int) -> tuple[_Photo | None, list[Problem]]:
    """An image of the object with this id, where it can be read, and what is wrong with it."""
    name = name_inside(image, root)
    if name is None:
        what = f"an image must lie in the benchmark's folder {root}, but a link leads out of it; copy the images there"
        return None, [error(image, what)]
    label = _label_file(image)
    labels = read_labels(label, _MOST_IDS, 0) if label else None
    record, problems = read_record(root / name, name, labels)
    if record is None:
        return None, problems
    boxes = record.xyxy if labels else np.array([[0.0, 0.0, record.width, record.height]])
    record = replace(record, xyxy=boxes, class_ids=np.full(len(boxes), number, np.int64))
    return _Photo(record, label, frozenset(labels.class_ids.tolist() if labels else ())), problems


def _label_file(image: Path) -> Path | None:
    places = [image.parent, image.parent / "labels"]
    if image.parent.name == "images":
        places.append(image.parent.parent / "labels")
    files = [place / f"{image.stem}.txt" for place in places]
    return next((file for file in files if file.is_file()), None)


def _other_things(folder: Path, photos: Sequence[_Photo]) -> list[Problem]:
    """What makes it doubtful that the boxes of an object's folder are that object."""
    sharing = shared_labels((photo.record.path, photo.label) for photo in photos if photo.label)
    problems = [
        error(label, f"is the label file of both {one} and {two}; rename one image and its labels")
        for label, one, two in sharing
    ]
    where = {number: photo.label for photo in photos for number in photo.label_ids}
    if len(where) > 1:
        (first, one), (second, other) = sorted(where.items())[:2]
        found = f"found class ids {first} ({one}) and {second} ({other})"
        rule = f"all boxes here must be '{folder.name}', under one class id"
        problems.append(error(folder, f"{rule}, {found}; keep the boxes of it"))
    return problems


def _said_classes(file: Path, objects: Sequence[str]) -> dict[str, object]:
    """What a file says of objects, which need not be all."""
    if not file.is_file():
        return {}
    said = {one_spelling(name) if isinstance(name, str) else name: coarse for name, coarse in load_yaml(file).items()}
    if unknown := sorted(said.keys() - set(objects), key=str):
        raise DatasetError(
            f"{file}: every line is 'object: coarse class', but there is no object '{unknown[0]}'; the subfolders are "
            f"{', '.join(objects)}"
        )
    return said


def _coarse_class(file: Path, name: str, said: Mapping[str, object]) -> str:
    """What is said of an object, else the last word of its name."""
    words = name_words(name)
    coarse = said.get(name, words[-1] if words else None)
    if not isinstance(coarse, str) or not coarse:
        raise DatasetError(
            f"{file}: '{name}' must have a coarse class of the detector, found {shown(coarse)}; write a line such "
            f"as '{name}: mug'"
        )
    return coarse


def _notes(name: str, boxed: int, images: int) -> tuple[str, ...]:
    if boxed == images:
        return ()
    if boxed:
        unboxed = f"{images - boxed} of {images} images of {name} have no label file"
        return (f"{unboxed}: they teach with the whole picture, and are not asked about",)
    return (
        f"no image of {name} has a label file, so the whole picture is the object's box: a detection counts only where "
        "it covers half of the picture; draw boxes for figures that say more",
    )
