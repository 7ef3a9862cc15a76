"""Tiny scenes, tiny models, targets and trained students for the tests of phase 2."""

import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before any test imports ultralytics: its settings go to a folder of this test run.
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="mocha-pipe-tests-"))

from mocha_pipe.student.environment import cpu_threads

# isort: split

import numpy as np
import pytest
import ultralytics
import yaml
from numpy.typing import NDArray
from PIL import Image

from mocha_pipe.data.types import DetectionSource, ImageRecord
from tests.shared import made_once

gc.freeze()  # every training collects garbage several times; what is imported need not be looked at each time

SIDE = 64
CLASS_NAMES = ("square", "tall", "wide")
SHAPES = ((18, 18), (12, 26), (26, 12))  # width, height by class


class ArrayTargets:
    """Targets in memory; remembers which rows were asked for."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values
        self.dim = values.shape[1]
        self.asked: list[int] = []
        self.set_aside = np.flatnonzero(np.isnan(values).any(axis=1))

    def __len__(self) -> int:
        return len(self.values)

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        self.asked.extend(rows.tolist())
        return self.values[rows]


def row_colour(row: int) -> tuple[int, int, int]:
    """A colour per row, 1 to 5 in steps of 51 in each channel, so that neighbours stay apart after interpolation."""
    return tuple(51 * (1 + (row // 5**power) % 5) for power in range(3))


def row_of_colour(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(..., 3) -> (...): the row whose colour is nearest; -1 where no colour is near."""
    level = np.rint(pixels / 51).astype(np.int64) - 1
    near = (
        (np.abs(pixels - 51.0 * (level + 1)).max(axis=-1) <= 10) & (level >= 0).all(axis=-1) & (level < 5).all(axis=-1)
    )
    return np.where(near, level @ np.array([1, 5, 25]), -1)


def make_source(root: Path, *, images: int, split: str, seed: int, side: int = SIDE) -> DetectionSource:
    """Rectangles on black whose colour tells their row; every eighth image is empty."""
    generator = np.random.default_rng(seed)
    folder = root / split
    folder.mkdir(parents=True)
    records, row = [], 0
    for index in range(images):
        canvas = np.zeros((side, side, 3), dtype=np.uint8)
        boxes, classes = [], []
        for corner in generator.permutation(4)[: 0 if index % 8 == 7 else generator.integers(1, 4)]:
            kind = int(generator.integers(len(SHAPES)))
            width, height = SHAPES[kind]
            left = int(corner % 2) * side // 2 + int(generator.integers(0, side // 2 - width + 1))
            top = int(corner // 2) * side // 2 + int(generator.integers(0, side // 2 - height + 1))
            canvas[top : top + height, left : left + width] = row_colour(row)
            boxes.append([left, top, left + width, top + height])
            classes.append(kind)
            row += 1
        path = folder / f"{index:03d}.png"
        Image.fromarray(canvas).save(path)
        records.append(
            ImageRecord(
                path=path,
                name=f"{split}/{path.name}",
                width=side,
                height=side,
                xyxy=np.array(boxes, dtype=np.float64).reshape(-1, 4),
                class_ids=np.array(classes, dtype=np.int64),
            )
        )
    return DetectionSource(root=root, split=split, class_names=CLASS_NAMES, records=tuple(records))


def first_rows(source: DetectionSource) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(record.class_ids) for record in source.records)])


def tiny_model(family: str, folder: Path) -> str:
    """A model file: v8 at width 0.0625, 11 and 26 (which has two heads) at 0.125."""
    shipped = Path(ultralytics.__file__).parent / "cfg" / "models"
    config = yaml.safe_load((shipped / family / f"yolo{family}.yaml").read_text(encoding="utf-8"))
    del config["scales"]
    config |= {"depth_multiple": 0.33, "width_multiple": {"v8": 0.0625, "11": 0.125, "26": 0.125}[family]}
    path = folder / f"tiny-{family}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


def random_targets(source: DetectionSource, dim: int = 8) -> ArrayTargets:
    """Random targets for the boxes of a source."""
    values = np.random.default_rng(3).standard_normal((source.num_regions, dim))
    return ArrayTargets(values.astype(np.float32))


@pytest.fixture(scope="session")
def train_source(tmp_path_factory: pytest.TempPathFactory) -> DetectionSource:
    return make_source(tmp_path_factory.mktemp("scenes"), images=16, split="train", seed=1)


@pytest.fixture(scope="session")
def val_source(tmp_path_factory: pytest.TempPathFactory) -> DetectionSource:
    return make_source(tmp_path_factory.mktemp("scenes"), images=8, split="val", seed=2)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Model files by family."""
    folder = tmp_path_factory.mktemp("models")
    return {family: tiny_model(family, folder) for family in ("v8", "11", "26")}


@pytest.fixture(scope="session")
def make_targets() -> Callable[[DetectionSource, int], ArrayTargets]:
    return random_targets


@pytest.fixture(scope="session")
def distil_tiny(
    train_source: DetectionSource, val_source: DetectionSource, tiny_models: dict[str, str]
) -> Callable[..., Any]:
    """Distils into a tiny model: `distil_tiny(folder of the run, family or .pt, resume=..., **arguments)`.

    An epoch has three batches and an optimizer step takes four, so that gradients wait across epochs. Mosaic draws
    partners.
    """
    from mocha_pipe.student.distil.settings import DistillSettings
    from mocha_pipe.student.distil.trainer import distill

    def run(folder: Path, family: str = "v8", *, resume: bool = False, **arguments: Any) -> Any:
        quick = {
            "epochs": EPOCHS.get(family, 1), "imgsz": SIDE, "batch": 6, "nbs": 24, "plots": False, "seed": 3,
            "mosaic": 0.7, "close_mosaic": 1, "warmup_epochs": 1, "lr0": 2e-3,
        }  # fmt: skip
        return distill(
            DistillSettings(train_arguments=quick | arguments),
            model=tiny_models.get(family, family),
            train=train_source,
            val=val_source,
            targets=random_targets(train_source),
            first_row=first_rows(train_source),
            run=folder,
            resume=resume,
            meta={"cache": "abc"},
        )

    return run


EPOCHS = {"v8": 3, "11": 1, "26": 2}
"""Of `distil_tiny`, unless others are given."""


@pytest.fixture(scope="session")
def distilled(distil_tiny: Callable[..., Any]) -> Callable[[str], Path]:
    """The folder of a finished run by family, to be read only: `train/` and `student/`.

    Runs are compared with it to the bit, which another number of threads might change.
    """
    return lambda family: made_once(
        f"distilled-{family}-on-{cpu_threads()}", lambda folder: distil_tiny(folder, family)
    )


@pytest.fixture(scope="session")
def helpers() -> SimpleNamespace:
    """The plain functions of this file."""
    return SimpleNamespace(
        first_rows=first_rows, make_source=make_source, row_of_colour=row_of_colour, row_colour=row_colour
    )
