"""`frozen`: a trained detector stays as it is to the bit, and may know other classes than the data."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mocha_pipe.student.training  # noqa: F401  (prepares the environment)

# isort: split

import numpy as np
import pytest
import torch
from ultralytics import YOLO

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.trainer import distill
from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.network.deep import last_stage
from mocha_pipe.student.network.student_files import load_student, read_detector
from tests.student.conftest import first_rows, random_targets

QUICK = {"epochs": 2, "imgsz": 96, "batch": 8, "plots": False, "seed": 3, "lr0": 0.01, "nbs": 8, "warmup_epochs": 0}


def distil_frozen(run: Path, model: str, train: DetectionSource, val: DetectionSource) -> Path:
    return distill(
        DistillSettings(features="deep", schedule="frozen", train_arguments=QUICK), model=model, train=train, val=val,
        targets=random_targets(train), first_row=first_rows(train), run=run,
    ).folder  # fmt: skip


def other_classes(source: DetectionSource) -> DetectionSource:
    """The same boxes under one class more than the detector has."""
    names = ("a", "b", "c", "things")
    records = tuple(replace(record, class_ids=np.full_like(record.class_ids, 3)) for record in source.records)
    return replace(source, class_names=names, records=records)


@pytest.fixture(scope="module")
def base(distilled: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained detector in float32, whose weights float16 does not hold, and which was trained at 64 px."""
    path = tmp_path_factory.mktemp("base") / "base.pt"
    checkpoint = torch.load(distilled("v8") / "student/student.pt", weights_only=False)
    generator = torch.Generator().manual_seed(0)
    detector = checkpoint["model"].float()
    for weight in detector.parameters():
        weight.data *= 1 + 1e-5 * torch.rand(weight.shape, generator=generator)
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def student(
    base: Path, train_source: DetectionSource, val_source: DetectionSource, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Distilled from boxes of classes that the detector does not know."""
    run = tmp_path_factory.mktemp("frozen")
    return distil_frozen(run, str(base), other_classes(train_source), other_classes(val_source))


def test_yolo_predicts_with_the_student_bitwise_what_it_does_with_the_base(
    student: Path, base: Path, val_source: DetectionSource
) -> None:
    images = [str(record.path) for record in val_source.records[:6]]
    ours, theirs = (YOLO(path).predict(images, conf=0.001, verbose=False) for path in (student / "student.pt", base))
    assert sum(len(result.boxes) for result in theirs) > 20
    for found, expected in zip(ours, theirs, strict=True):
        assert found.names == expected.names
        assert torch.equal(found.boxes.data, expected.boxes.data)
    weights = read_detector(student / "student.pt")[0].state_dict()
    assert all(torch.equal(weights[name], value) for name, value in read_detector(base)[0].state_dict().items())


def test_only_the_embedding_learns_and_nothing_measures_a_detection(student: Path) -> None:
    loaded = load_student(student)
    assert loaded.class_names == ("square", "tall", "wide")
    assert loaded.image_size == 96
    assert loaded.translation is not None
    with (student.parent / "train/results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {name for name in rows[0] if name.startswith(("train/", "val/", "metrics/"))} == {
        "train/dist_loss", "train/emb_loss",
    }  # fmt: skip
    assert all(np.isfinite(float(row["train/dist_loss"])) for row in rows)
    trained = loaded.translation.state_dict()
    stage = last_stage(loaded.detector).state_dict()
    assert (trained["stage.0.conv.weight"] - stage["0.conv.weight"]).abs().max() > 1e-3
    for name, value in stage.items():
        if "running" in name:  # a checkpoint holds averaged weights in float16
            assert torch.allclose(trained[f"stage.{name}"], value, rtol=2e-3, atol=1e-5)


def test_a_model_without_weights_cannot_stay_as_it_is(
    tiny_models: dict[str, str], train_source: DetectionSource, val_source: DetectionSource, tmp_path: Path
) -> None:
    with pytest.raises(StudentModelError) as raised:
        distil_frozen(tmp_path, tiny_models["v8"], train_source, val_source)
    assert str(raised.value) == (
        f"--schedule frozen keeps a trained detector as it is, found {tiny_models['v8']}, which has no weights yet: "
        "name a .pt with --student, or pass --schedule joint."
    )
