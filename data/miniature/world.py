"""Write the miniature world to disk: a detection data set in YOLO layout and its personal benchmark beside it.

`make_validation` writes a second personal benchmark, on which settings are chosen: objects of the validation split.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from PIL import Image
from tqdm import tqdm

from mocha_pipe.data.boxes import xyxy_to_cxcywhn
from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.files import is_vacant
from mocha_pipe.data.miniature.objects import (
    SHAPES,
    PersonalObject,
    Shift,
    Split,
    personal_objects,
    random_object,
    shifted,
)
from mocha_pipe.data.miniature.scenes import SCENE_SIZE, Scene, render_scene

Personal = Literal["benchmark", "validation"]
"""The two personal benchmarks."""
Part = Literal["train", "val"] | Personal
"""What is written of a world."""

_SCENE_STREAMS: dict[Part, int] = {"train": 1, "val": 2, "benchmark": 3, "validation": 4}
_OBJECT_STREAMS: dict[Personal, int] = {"benchmark": 0, "validation": 5}
_SHOWN: dict[Personal, Split] = {"benchmark": "benchmark", "validation": "val"}
"""The split whose objects a personal benchmark shows."""
_WORTH_PROCESSES = 300
"""Scenes; fewer are written before other processes have started."""


def scene_seed(seed: int, part: Part, index: int) -> tuple[int, int, int]:
    """Seed of one scene; no two parts share one."""
    return (seed, _SCENE_STREAMS[part], index)


def make_miniature(root: Path, size: WorldSize, *, seed: int = 0, progress: bool = True) -> None:
    """Write `root/data.yaml` (train and val, classes = shapes) and `root/benchmark/data.yaml` (personal objects).

    The same size and seed write the same bytes; the files data.yaml come last.

    Args:
        root: New or empty folder.
        size: Numbers of scenes and objects.
        seed: Any whole number; every scene derives its own seed from it.
        progress: Show a bar.

    Raises:
        DatasetError: There is something in the folder.
    """
    scenes = [*_detection_scenes(size, seed), *_personal_scenes("benchmark", size, seed)]
    detection = {"train": "images/train", "val": "images/val", "names": list(SHAPES)}
    _write_world(root, scenes, {".": detection, "benchmark": _personal_keys("benchmark", size, seed)}, progress)


def make_validation(root: Path, size: WorldSize, *, seed: int = 0, progress: bool = True) -> None:
    """Write `root/data.yaml`, laid out like the benchmark's: a personal benchmark of objects of the validation split.

    Neither training nor the benchmark shows one of its objects, so that settings can be chosen on it. The same size and
    seed write the same bytes.

    Args:
        root: New or empty folder.
        size: Only the numbers of objects and of scenes per object matter.
        seed: Any whole number; equal to that of the miniature, the scenes still differ.
        progress: Show a bar.

    Raises:
        DatasetError: There is something in the folder.
    """
    scenes = list(_personal_scenes("validation", size, seed))
    _write_world(root, scenes, {".": _personal_keys("validation", size, seed)}, progress)


def make_cast(root: Path, size: WorldSize, *, seed: int, shift: Shift = "none", progress: bool = True) -> None:
    """Write `root/data.yaml`, laid out like the benchmark's: the benchmark of the miniature of this seed, and no more.

    By `shift` each object, or each scene, is replaced by its counterpart in another world. The same size, seed and
    shift write the same bytes. An earlier world in `root` is replaced as a whole.

    Args:
        root: Folder to write.
        size: Only the numbers of objects and of scenes per object matter.
        seed: Any whole number; each is another cast of objects in other scenes.
        shift: How the world differs from that of training.
        progress: Show a bar.
    """
    scenes = [replace(scene, folder="{kind}") for scene in _personal_scenes("benchmark", size, seed, shift)]
    _write_world(root, scenes, {".": _personal_keys("benchmark", size, seed, shift)}, progress)


def training_objects(size: WorldSize, *, seed: int = 0) -> list[tuple[PersonalObject, ...]]:
    """What each training scene of a miniature shows, in the order of its boxes; the scenes are drawn again for it."""
    return [scene.render().objects for scene in _detection_scenes(size, seed) if scene.part == "train"]


def personal_cast(part: Personal, size: WorldSize, seed: int, shift: Shift = "none") -> tuple[PersonalObject, ...]:
    """The personal objects of a benchmark, in the order of their ids."""
    rng = np.random.default_rng((seed, _OBJECT_STREAMS[part]))
    return tuple(shifted(thing, shift) for thing in personal_objects(rng, size.objects_per_shape, _SHOWN[part]))


@dataclass(frozen=True, slots=True)
class _PlannedScene:
    """A scene that is yet to be rendered, and where its files go."""

    folder: str
    """With `{kind}` where `images` or `labels` stands."""
    part: Part
    seed: tuple[int, int, int]
    class_ids: Mapping[PersonalObject, int]
    """Of each object, in the label file."""
    objects: tuple[PersonalObject, ...]
    side: int = SCENE_SIZE
    """Pixels; objects stay as large as they are."""

    def render(self) -> Scene:
        return render_scene(np.random.default_rng(self.seed), self.objects, self.side)

    def write(self, root: Path) -> None:
        scene = self.render()
        image = root / self.folder.format(kind="images") / f"{self.seed[-1]:05d}.jpg"
        label = root / self.folder.format(kind="labels") / f"{self.seed[-1]:05d}.txt"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(image, quality=92, subsampling=0)
        boxes = xyxy_to_cxcywhn(scene.xyxy, self.side, self.side)
        rows = [(self.class_ids[thing], *box) for thing, box in zip(scene.objects, boxes, strict=True)]
        label.write_text("".join("{} {:.6f} {:.6f} {:.6f} {:.6f}\n".format(*row) for row in rows))


def _detection_scenes(size: WorldSize, seed: int) -> Iterator[_PlannedScene]:
    splits: tuple[tuple[Literal["train", "val"], int], ...] = (("train", size.train_scenes), ("val", size.val_scenes))
    for split, count in splits:
        for index in range(count):
            at = scene_seed(seed, split, index)
            rng = np.random.default_rng((*at, 0))
            shapes = rng.choice(SHAPES, size=rng.integers(1, 5))
            objects = tuple(random_object(rng, str(shape), split) for shape in shapes)
            class_ids = {thing: SHAPES.index(thing.shape) for thing in objects}
            yield _PlannedScene(f"{{kind}}/{split}", split, at, class_ids, objects)


def _personal_scenes(part: Personal, size: WorldSize, seed: int, shift: Shift = "none") -> Iterator[_PlannedScene]:
    """Every scene shows its main object, a distractor of the same shape and up to one more object of the benchmark."""
    folder = "benchmark/{kind}" if part == "benchmark" else "{kind}"
    objects = personal_cast(part, size, seed, shift)
    side = 2 * SCENE_SIZE if shift == "small" else SCENE_SIZE
    for index in range(len(objects) * size.scenes_per_object):
        at = scene_seed(seed, part, index)
        rng = np.random.default_rng((*at, 0))
        main = objects[index % len(objects)]
        alike = [thing for thing in objects if thing.shape == main.shape and thing != main]
        others = [thing for thing in objects if thing.shape != main.shape]
        cast = [
            main,
            alike[rng.integers(len(alike))],
            *(others[rng.integers(len(others))] for _ in range(rng.integers(2))),
        ]
        class_ids = {thing: objects.index(thing) for thing in cast}
        yield _PlannedScene(folder, part, at, class_ids, tuple(cast), side)


def _personal_keys(part: Personal, size: WorldSize, seed: int, shift: Shift = "none") -> dict[str, object]:
    """data.yaml of a personal benchmark."""
    objects = personal_cast(part, size, seed, shift)
    return {
        "test": "images",
        "names": [thing.name for thing in objects],
        "coarse_names": list(SHAPES),
        "coarse": [SHAPES.index(thing.shape) for thing in objects],
    }


def _write_world(
    root: Path, scenes: Sequence[_PlannedScene], keys: Mapping[str, Mapping[str, object]], progress: bool
) -> None:
    """Write scenes, and then a data.yaml with these keys for each folder."""
    if not is_vacant(root):
        raise DatasetError(f"{root}: a world is written to a new or empty folder, found something there; name another")
    write = partial(_PlannedScene.write, root=root)
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        few = len(scenes) < _WORTH_PROCESSES
        done = map(write, scenes) if few else pool.map(write, scenes, chunksize=32)
        for _ in tqdm(done, "scenes", len(scenes), unit="scene", disable=not progress):
            pass
    for folder, content in keys.items():
        (root / folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
