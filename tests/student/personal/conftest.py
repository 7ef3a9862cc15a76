"""Tiny students that nothing was taught, pictures for them, and the files that one of them is exported to."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from ultralytics.data.augment import LetterBox

from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.student.choices import FeatureSet
from mocha_pipe.student.fewshot.strangers import save_strangers
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import region_features, tap
from mocha_pipe.student.network.student_files import save_student
from mocha_pipe.student.personal.export import FILE_FORMATS, export_student
from tests.shared import made_once

if TYPE_CHECKING:
    from tests.student.personal.wanted import Runner, Wanted

SIZE = 96
SIZES = [(90, 60), (64, 64), (37, 101), (200, 80), (96, 70)]  # width, height; the last fits as it is
CLASSES = ("mug", "ball", "boot")
WIDTH = 24
RATE = 0.3
STRANGERS = np.linspace(-1, 0.9, 1999)
PICTURES = 100


def letterboxed(path: Path, size: int) -> NDArray[np.float32]:
    """(1, 3, size, size): what a device's program gives to an exported student."""
    pixels = LetterBox((size, size), auto=False)(image=read_image(path))
    return pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255


def picture_source(folder: Path) -> DetectionSource:
    """Random blocks in five sizes, one after the other, as PNG, which every library decodes alike."""
    rng, records = np.random.default_rng(0), []
    folder.mkdir()
    for index in range(PICTURES):
        width, height = SIZES[index % len(SIZES)]
        path = folder / f"picture{index:02}.png"
        blocks = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        blocks.resize((width, height), Image.Resampling.NEAREST).save(path)
        nothing = {"xyxy": np.zeros((0, 4)), "class_ids": np.zeros(0, np.int64)}
        records.append(ImageRecord(path=path, name=path.name, width=width, height=height, **nothing))
    return DetectionSource(root=folder, split="test", class_names=CLASSES, records=tuple(records))


def spread_scores(model: DistillModel, images: torch.Tensor) -> None:
    """Scores over all of 0..1, most of them low, and boxes of some cells, so that neighbours overlap."""
    head = model.model[-1]
    for scores, sides in zip(head.cv3, head.cv2, strict=True):
        scores[-1].bias.data.zero_()
        if head.reg_max > 1:
            sides[-1].bias.data = -torch.arange(head.reg_max).repeat(4).float() / 5
    with torch.no_grad():
        found = model(images)[1]
    logits = found.get("one2many", found)["scores"]
    for level in head.cv3:
        level[-1].weight.data *= 1.5 / logits.std()
        level[-1].bias.data -= 3 + 1.5 * logits.mean() / logits.std()


def make_student(
    config: str, folder: Path, source: DetectionSource, *, features: FeatureSet, names: tuple[str, ...]
) -> None:
    """A student whose features are of size one on images of this source, and whose scores spread."""
    torch.manual_seed(0)
    model = DistillModel(config, num_classes=len(names), features=features, target_dim=WIDTH)
    model.names = dict(enumerate(names))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            layer.momentum = None  # statistics of what passes now
            if layer.affine:  # nearly linear: random layers blow up rounding, as trained ones do not
                torch.nn.init.constant_(layer.weight, 0.1)
    images = torch.from_numpy(np.concatenate([letterboxed(record.path, SIZE) for record in source.records[:16]]))
    model.train()
    with torch.no_grad(), tap(model, features) as maps:
        model(images)
        corners = torch.rand(64, 2, 2).sort(dim=1).values.flatten(1)
        maps = model.translation.own_maps(maps)
        model.translation(region_features(maps, torch.arange(64) % len(images), corners))
    spread_scores(model.eval(), images)
    save_student(model, folder, image_size=SIZE, meta={})
    save_strangers(folder, STRANGERS)


@pytest.fixture(scope="session")
def made(tiny_models: dict[str, str]) -> Path:
    """`pictures`, students `v8`, `v8-paper` and others of it, `11`, `26`; the first in each format, v8-deep.onnx."""

    def make(folder: Path) -> None:
        source = picture_source(folder / "pictures")
        for family in tiny_models:
            make_student(tiny_models[family], folder / family, source, features="fine", names=CLASSES)
        make_student(tiny_models["v8"], folder / "v8-paper", source, features="paper", names=("cup", "ball", "böot"))
        for features in ("deep", "reference"):
            make_student(tiny_models["v8"], folder / f"v8-{features}", source, features=features, names=CLASSES)
        for form in FILE_FORMATS:
            export_student(folder / "v8", folder / f"v8.{form}", file_format=form, false_accept_rate=RATE)
        export_student(folder / "v8-deep", folder / "v8-deep.onnx")

    return made_once("personal", make)


@pytest.fixture(scope="session")
def folder(made: Path) -> Path:
    """The student that most tests use."""
    return made / "v8"


@pytest.fixture(scope="session")
def exported(made: Path) -> Path:
    """Of that student."""
    return made / "v8.onnx"


@pytest.fixture(scope="session")
def many_pictures(made: Path) -> DetectionSource:
    nothing = {"xyxy": np.zeros((0, 4)), "class_ids": np.zeros(0, np.int64)}
    records = [
        ImageRecord(path=path, name=path.name, width=width, height=height, **nothing)
        for path in sorted((made / "pictures").iterdir())
        for width, height in [Image.open(path).size]
    ]
    return DetectionSource(root=made / "pictures", split="test", class_names=CLASSES, records=tuple(records))


@pytest.fixture(scope="session")
def pictures(many_pictures: DetectionSource) -> DetectionSource:
    """One of each size."""
    return replace(many_pictures, records=many_pictures.records[: len(SIZES)])


@pytest.fixture(scope="session")
def wanted(folder: Path, many_pictures: DetectionSource) -> "Wanted":
    from tests.student.personal.wanted import want

    return want(folder, many_pictures)


@pytest.fixture(scope="session")
def run(exported: Path) -> "Runner":
    from tests.student.personal.wanted import onnx_runner

    return onnx_runner(exported)
