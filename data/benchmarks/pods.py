"""PODS (Sundaram, Chae et al. 2025, arXiv 2412.16156; MIT): 100 household objects of 5 kinds, each photographed alone.

The public stand-in for POD. Boxes are those of its masks, so that only masked photographs count: three of each object
to learn from, and those of `test_dense` to ask about.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.benchmarks.episode_files import read_json
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError, MochaError
from mocha_pipe.data.files import name_inside
from mocha_pipe.data.images import inspect_image, message_of, read_image
from mocha_pipe.data.parsing import is_path, load_yaml, shown
from mocha_pipe.data.readers.listing import walk_images
from mocha_pipe.data.source import without_errors
from mocha_pipe.data.types import DetectionSource, ImageRecord, PersonalBenchmark, Problem, error

_INFO = "pods_info.json"
_SUPPORT, _QUERY = "train", "test_dense"


def read_pods(root: Path, *, progress: bool = False) -> PersonalBenchmark:
    """Read the folder of PODS.

    Layout: `train/OBJECT/` and `test_dense/OBJECT/` with photographs, `train_masks/OBJECT/` and
    `test_dense_masks/OBJECT/` with a mask of the same stem for each; pods_info.json, whose `classes` are the objects in
    the order of their ids and whose `class_to_sc` is the kind of each. A kind is a class of the detector, unless
    `coarse.yaml` (not published) says which one is, in lines like `tote: handbag`.

    Args:
        root: Holds the folders.
        progress: Show a bar when reading takes longer than two seconds.

    Raises:
        DatasetNotFoundError: A folder is not there.
        DatasetError: An image or a mask breaks a rule, or there is none of an object.
        EpisodeError: pods_info.json is not JSON.
    """
    folder = root.resolve()
    for name in (_SUPPORT, f"{_SUPPORT}_masks", _QUERY, f"{_QUERY}_masks", _INFO):
        if not (folder / name).exists():
            raise DatasetNotFoundError(
                f"{root}: pods has '{name}', which is not in it; name the folder that holds it with --data"
            )
    objects = _objects(folder / _INFO)
    names_of_kind = _detector_classes(folder / "coarse.yaml", set(objects.values()))
    photos = [
        (split, number, image)
        for split in (_SUPPORT, _QUERY)
        for number, thing in enumerate(objects)
        for image in sorted(walk_images(folder / split / thing))
    ]
    records: list[ImageRecord] = []
    problems: list[Problem] = []
    photos.sort(key=lambda photo: photo[2].as_posix())
    for split, number, image in tqdm(photos, "read pods", unit="image", delay=2, disable=not progress):
        record, found = _read_photo(image, folder, split, number)
        records += [record] if record else []
        problems += found
    for number, thing in enumerate(objects):
        if not any(image for split, of, image in photos if (split, of) == (_SUPPORT, number)):
            problems.append(
                error(folder / _SUPPORT / thing, "every object must have photographs, found none; put some there")
            )
    kinds = tuple(dict.fromkeys(names_of_kind[kind] for kind in objects.values()))
    source = DetectionSource(
        root=folder, split="pods", class_names=tuple(objects), records=tuple(records), problems=tuple(problems)
    )
    places = [(index, record.name.split("/")[0], int(record.class_ids[0])) for index, record in enumerate(records)]
    return PersonalBenchmark(
        name="pods",
        source=replace(without_errors(source), problems=()),
        coarse_names=kinds,
        coarse_of=np.array([kinds.index(names_of_kind[kind]) for kind in objects.values()], np.int64),
        support=tuple(
            tuple(index for index, split, of in places if (split, of) == (_SUPPORT, number))
            for number in range(len(objects))
        ),
        query=tuple(index for index, split, _ in places if split == _QUERY),
        notes=(
            f"all {len(objects)} objects of pods are told apart; its authors report on the part that they call test",
        ),
    )


def _objects(file: Path) -> dict[str, str]:
    """Object -> kind, in the order of the ids."""
    info: Any = read_json(file)
    classes, kinds = (info.get(key) if isinstance(info, Mapping) else None for key in ("classes", "class_to_sc"))
    if not (isinstance(classes, list) and classes and isinstance(kinds, Mapping)):
        raise DatasetError(f"{file}: must hold 'classes', a list, and 'class_to_sc', a map; get the file again")
    for thing in classes:
        is_folder = isinstance(thing, str) and is_path(thing) and Path(thing).name == thing != ".."
        if not is_folder or not isinstance(kinds.get(thing), str):
            raise DatasetError(
                f"{file}: every class must be the name of a folder and have a kind in 'class_to_sc', found "
                f"{shown(thing)}; get the file again"
            )
    return {thing: kinds[thing] for thing in classes}


def _detector_classes(file: Path, kinds: set[str]) -> dict[str, str]:
    """Kind -> what the detector calls it."""
    said = load_yaml(file) if file.is_file() else {}
    if unknown := sorted(said.keys() - kinds):
        raise DatasetError(
            f"{file}: every line is 'kind: class of the detector', but pods has no kind '{unknown[0]}'; its kinds are "
            f"{', '.join(sorted(kinds))}"
        )
    return {kind: str(said.get(kind, kind)) for kind in kinds}


def _read_photo(image: Path, root: Path, split: str, number: int) -> tuple[ImageRecord | None, list[Problem]]:
    """A photograph with the box of its mask, and what is wrong with either."""
    name = name_inside(image, root)
    if name is None:
        return None, [error(image, f"an image must lie in {root}, but a link leads out of it; copy the images there")]
    size, problems = inspect_image(image)
    if size is None:
        return None, problems
    place = root / f"{split}_masks" / image.relative_to(root / split).parent
    mask = next((file for file in sorted(walk_images(place)) if file.stem == image.stem), None)
    if mask is None:
        return None, [error(image, f"every photograph needs a mask, none of its name in {place}; get the masks again")]
    try:
        xyxy, mask_size = _box(read_image(mask)[..., 0])
    except MochaError as refused:
        return None, [error(mask, message_of(refused, mask))]
    if mask_size != size or xyxy is None:
        found = "an empty one" if xyxy is None else f"{mask_size[0]} x {mask_size[1]} pixels"
        rule = f"a mask must show something and be as large as its image, {size[0]} x {size[1]}"
        return None, [error(mask, f"{rule}, found {found}; get it again")]
    return ImageRecord(
        path=image, name=name, width=size[0], height=size[1], xyxy=xyxy, class_ids=np.array([number], np.int64)
    ), problems


def _box(mask_HW: NDArray[np.uint8]) -> tuple[NDArray[np.float64] | None, tuple[int, int]]:
    """Tight box (1, 4) of what is brighter than half of the brightest, as JPEG blurs edges; and width and height."""
    rows, columns = np.nonzero(mask_HW > mask_HW.max() / 2)
    size = (mask_HW.shape[1], mask_HW.shape[0])
    if not len(rows):
        return None, size
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float64), size
