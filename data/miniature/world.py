"""Write the miniature world to disk: a detection data set in YOLO layout and its personal benchmark beside it."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from tqdm import tqdm

from data.boxes import xyxy_to_cxcywhn
from data.miniature.objects import SHAPES, PersonalObject, Split, personal_objects, random_object
from data.miniature.scenes import SCENE_SIZE, Scene, render_scene

_SPLIT_SEEDS: dict[Split, int] = {"train": 1, "val": 2, "benchmark": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldSize:
    """How much of the world is written."""

    train_scenes: int = 1600
    val_scenes: int = 200
    objects_per_shape: int = 3
    """Personal objects of the benchmark for each of the eight shapes; all in the same two colours."""
    scenes_per_object: int = 16
    """Benchmark scenes in which an object is the main one; support and query images are drawn from these."""


def scene_seed(seed: int, split: Split, index: int) -> tuple[int, int, int]:
    """Seed of one scene; no two splits share one."""
    return (seed, _SPLIT_SEEDS[split], index)


def make_miniature(root: Path, size: WorldSize, *, seed: int = 0, progress: bool = True) -> None:
    """Write `root/data.yaml` (train and val, classes = shapes) and `root/benchmark/data.yaml` (personal objects).

    The same size and seed write the same bytes. An earlier world in `root` is replaced as a whole.

    Args:
        root: Folder to write.
        size: Numbers of scenes and objects.
        seed: Any whole number; every scene derives its own seed from it.
        progress: Show a bar.
    """
    building = root.with_name(f"{root.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    scenes = [*_detection_scenes(size, seed), *_benchmark_scenes(size, seed)]
    for scene in tqdm(scenes, desc="scenes", unit="scene", disable=not progress):
        scene.write(building)
    _write_yaml(building / "data.yaml", {"train": "images/train", "val": "images/val", "names": list(SHAPES)})
    objects = benchmark_objects(size, seed)
    _write_yaml(
        building / "benchmark" / "data.yaml",
        {
            "test": "images",
            "names": [thing.name for thing in objects],
            "coarse_names": list(SHAPES),
            "coarse": [SHAPES.index(thing.shape) for thing in objects],
        },
    )
    shutil.rmtree(root, ignore_errors=True)
    building.rename(root)


def benchmark_objects(size: WorldSize, seed: int) -> tuple[PersonalObject, ...]:
    """The benchmark's personal objects, in the order of their ids."""
    return personal_objects(np.random.default_rng((seed, 0)), size.objects_per_shape, "benchmark")


@dataclass(frozen=True, slots=True)
class _PlannedScene:
    """A scene that is yet to be rendered, and where its files go."""

    folder: str
    split: Split
    seed: tuple[int, int, int]
    class_names: Sequence[str]
    objects: tuple[PersonalObject, ...]

    def write(self, root: Path) -> None:
        scene = render_scene(np.random.default_rng(self.seed), self.objects)
        image = root / self.folder.format(kind="images") / f"{self.seed[-1]:05d}.jpg"
        label = root / self.folder.format(kind="labels") / f"{self.seed[-1]:05d}.txt"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(image, quality=92, subsampling=0)
        label.write_text("".join(self._label_lines(scene)))

    def _label_lines(self, scene: Scene) -> Iterator[str]:
        boxes = xyxy_to_cxcywhn(scene.xyxy, SCENE_SIZE, SCENE_SIZE)
        for thing, box in zip(scene.objects, boxes, strict=True):
            name = thing.name if self.split == "benchmark" else thing.shape
            yield f"{self.class_names.index(name)} {' '.join(f'{value:.6f}' for value in box)}\n"


def _detection_scenes(size: WorldSize, seed: int) -> Iterator[_PlannedScene]:
    splits: tuple[tuple[Split, int], ...] = (("train", size.train_scenes), ("val", size.val_scenes))
    for split, count in splits:
        for index in range(count):
            at = scene_seed(seed, split, index)
            rng = np.random.default_rng((*at, 0))
            shapes = rng.choice(SHAPES, size=rng.integers(1, 5))
            objects = tuple(random_object(rng, str(shape), split) for shape in shapes)
            yield _PlannedScene(f"{{kind}}/{split}", split, at, SHAPES, objects)


def _benchmark_scenes(size: WorldSize, seed: int) -> Iterator[_PlannedScene]:
    """Every scene shows its main object, a distractor of the same shape and up to one more object of the benchmark."""
    objects = benchmark_objects(size, seed)
    names = [thing.name for thing in objects]
    for index in range(len(objects) * size.scenes_per_object):
        at = scene_seed(seed, "benchmark", index)
        rng = np.random.default_rng((*at, 0))
        main = objects[index % len(objects)]
        alike = [thing for thing in objects if thing.shape == main.shape and thing != main]
        others = [thing for thing in objects if thing.shape != main.shape]
        cast = [
            main,
            alike[rng.integers(len(alike))],
            *(others[rng.integers(len(others))] for _ in range(rng.integers(2))),
        ]
        yield _PlannedScene("benchmark/{kind}", "benchmark", at, names, tuple(cast))


def _write_yaml(path: Path, content: dict[str, object]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
