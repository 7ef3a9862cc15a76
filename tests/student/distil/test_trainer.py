"""Whole runs on tiny scenes: pretraining and distillation, alone and offline.

Runs that are stopped and go on are in ../training/test_exact_resume.py.
"""

import csv
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings, DistillSetup
from mocha_pipe.student.distil.trainer import DistillTrainer, distill
from mocha_pipe.student.errors import RegionTargetError
from mocha_pipe.student.network.student_files import load_checkpoint, load_student
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS
from mocha_pipe.student.training.dataset import SourceDataset
from mocha_pipe.student.training.pretrain import pretrain
from mocha_pipe.student.training.resumable import ResumableTrainer, amp_is_sound, read_metrics
from tests.shared import DEVICE
from tests.student import conftest
from tests.student.conftest import first_rows, random_targets

QUICK = {"epochs": 1, "imgsz": 64, "batch": 8, "plots": False, "seed": 3}


def read_results(run: Path) -> list[dict[str, str]]:
    with (run / "train" / "results.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# --- what a run leaves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v8", "11", "26"])
def test_distils_every_family(distilled: Callable[[str], Path], family: str) -> None:
    run = distilled(family)
    row = read_results(run)[-1]
    assert {"train/dist_loss", "train/emb_loss", "metrics/mAP50-95(B)", "val/box_loss"} <= set(row)
    assert not {"val/dist_loss", "val/emb_loss"} & set(row)
    assert float(row["train/dist_loss"]) > 0
    metrics = read_metrics(load_checkpoint(run / "train/weights/last.pt"))
    assert not {"val/dist_loss", "val/emb_loss"} & set(metrics)
    assert {"metrics/mAP50-95(B)", "val/box_loss"} <= set(metrics)
    student = load_student(run / "student")
    assert student.class_names == ("square", "tall", "wide")
    assert student.meta == {"cache": "abc"}
    assert student.image_size == 64
    assert type(YOLO(run / "student/student.pt").model) is DetectionModel
    assert not (run / "train" / "results.png").exists(), "plots were switched off"
    assert sorted(path.name for path in (run / "train" / "weights").iterdir()) == ["best.pt", "last.pt"]


def test_the_distillation_losses_fall(
    train_source: DetectionSource, val_source: DetectionSource, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    setup = DistillSetup(
        train=train_source, val=val_source, targets=random_targets(train_source), first_row=first_rows(train_source),
        settings=DistillSettings(),
    )  # fmt: skip
    still = dict.fromkeys(("mosaic", "scale", "translate", "fliplr", "hsv_h", "hsv_s", "hsv_v", "warmup_epochs"), 0.0)
    place = {"model": tiny_models["v8"], "project": str(tmp_path), "name": "train", "device": DEVICE}
    arguments = {**DEFAULT_TRAIN_ARGUMENTS, **QUICK, **still, "epochs": 20, "lr0": 1e-2, "nbs": 8, "fraction": 8}
    DistillTrainer(setup, {**arguments, **place, "val": False, "save": False}).train()
    losses = [float(row["train/dist_loss"]) for row in read_results(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.fixture
def data_yaml(train_source: DetectionSource, val_source: DetectionSource, tmp_path: Path) -> Path:
    """The scenes as `yolo train` reads them, labels and all."""
    for source in (train_source, val_source):
        folder = tmp_path / "data" / "images" / source.split
        folder.mkdir(parents=True)
        labels = tmp_path / "data" / "labels" / source.split
        labels.mkdir(parents=True)
        for record in source.records:
            (folder / record.path.name).write_bytes(record.path.read_bytes())
            x1, y1, x2, y2 = (record.xyxy / 64).T
            columns = [record.class_ids, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            np.savetxt(labels / f"{record.path.stem}.txt", np.stack(columns, axis=1), fmt="%.6g")
    path = tmp_path / "data" / "data.yaml"
    names = dict(enumerate(train_source.class_names))
    path.write_text(
        yaml.safe_dump({"path": str(path.parent), "train": "images/train", "val": "images/val", "names": names}),
        encoding="utf-8",
    )
    return path


class Stopped(BaseException):
    """What Ctrl-C or a lost machine does to a run."""


def test_a_stopped_pretraining_goes_on_and_a_finished_one_is_kept(
    tiny_models: dict[str, str],
    train_source: DetectionSource,
    val_source: DetectionSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """test_any_student.py begins a distillation with weights."""
    arguments, sources = QUICK | {"epochs": 2}, (train_source, val_source)
    save = ResumableTrainer.save_model

    def save_and_stop(trainer: ResumableTrainer) -> bool:
        save(trainer)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(ResumableTrainer, "save_model", save_and_stop)
        with pytest.raises(Stopped):
            pretrain(tiny_models["v8"], sources, tmp_path / "base", arguments)
    result = pretrain(tiny_models["v8"], sources, tmp_path / "base", arguments, resume=True)
    assert [row["epoch"] for row in read_results(tmp_path / "base")] == ["1", "2"]
    assert result.weights == tmp_path / "base" / "train" / "weights" / "best.pt"
    assert "metrics/mAP50-95(B)" in result.metrics
    monkeypatch.setattr(ResumableTrainer, "train", lambda _: pytest.fail("trained again"))
    assert pretrain(tiny_models["v8"], sources, tmp_path / "base", arguments, resume=True) == result
    assert load_student(result.weights).translation is None


def test_pretraining_believes_the_data_alone_and_leaves_nothing_beside_it(
    tiny_models: dict[str, str], data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that an earlier training by ultralytics left are neither read nor touched."""
    monkeypatch.setattr("ultralytics.data.dataset.load_dataset_cache_file", lambda _: pytest.fail("was read"))
    for image in data_yaml.parent.glob("images/*/*.png"):
        np.save(image.with_suffix(".npy"), np.zeros((64, 64, 3), np.uint8))
    (data_yaml.parent / "labels/train.cache").write_bytes(b"of another time")

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in data_yaml.parent.rglob("*") if path.is_file()}

    before = content()
    sources = open_source(data_yaml, "train"), open_source(data_yaml, "val")
    seen: list[float] = []
    load = SourceDataset.load_image

    def spy(dataset: SourceDataset, *arguments: Any, **named: Any) -> Any:
        found = load(dataset, *arguments, **named)
        seen.append(float(found[0].max()))
        return found

    monkeypatch.setattr(SourceDataset, "load_image", spy)
    pretrain(tiny_models["v8"], sources, tmp_path / "base", QUICK | {"epochs": 1, "cache": "disk", "workers": 0})
    assert content() == before
    assert max(seen) > 50
    assert not (tmp_path / "base/train/decoded").exists()


def test_pretraining_is_what_ultralytics_does_with_the_same_data(
    tiny_models: dict[str, str], data_yaml: Path, tmp_path: Path
) -> None:
    """Of boxes that were read twice, as shares of float32 and as pixels."""
    arguments = QUICK | {"epochs": 1, "workers": 0, "mosaic": 0.7, "nbs": 8, "device": DEVICE}
    sources = open_source(data_yaml, "train"), open_source(data_yaml, "val")
    ours = load_checkpoint(pretrain(tiny_models["v8"], sources, tmp_path / "base", arguments).weights)["model"]
    place = {"model": tiny_models["v8"], "project": str(tmp_path), "name": "plain", "data": str(data_yaml)}
    ResumableTrainer({**arguments, **place}).train()
    theirs = load_checkpoint(tmp_path / "plain/weights/best.pt")["model"]
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name].float(), value.float(), rtol=0, atol=2e-3, msg=name)


def test_a_run_stopped_before_its_optimizer_was_dropped_is_finished(
    distil_tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "final_eval", lambda _: (_ for _ in ()).throw(Stopped()))
        with pytest.raises(Stopped):
            distil_tiny(tmp_path, epochs=1, val=False)
    monkeypatch.setattr(DistillTrainer, "train", lambda _: pytest.fail("trained again"))
    distil_tiny(tmp_path, epochs=1, val=False, resume=True)
    assert load_checkpoint(tmp_path / "train" / "weights" / "last.pt")["epoch"] == -1
    assert (tmp_path / "student" / "student.json").exists()


def test_trains_on_what_the_cache_holds_and_says_what_it_does_not(
    tiny_models: dict[str, str],
    train_source: DetectionSource,
    val_source: DetectionSource,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Regions without a target are NaN in the cache, and an image that cannot be decoded never reaches the loader."""
    threads = torch.get_num_threads()
    first_row = first_rows(train_source)
    lost = replace(train_source.records[1], path=tmp_path / "broken.png", readable=False, width=1, height=1)
    lost.path.write_bytes(b"no picture")
    records = (train_source.records[0], lost, *train_source.records[2:])
    values = random_targets(train_source).values.copy()
    aside = [*range(first_row[1], first_row[2]), int(first_row[2]), int(first_row[4])]
    values[aside] = np.nan
    val = replace(val_source, records=(replace(val_source.records[0], readable=False), *val_source.records[1:]))
    distill(
        DistillSettings(train_arguments=QUICK),
        model=tiny_models["v8"],
        train=replace(train_source, records=records),
        val=val,
        targets=conftest.ArrayTargets(values),
        first_row=first_row,
        run=tmp_path / "run",
    )
    (row,) = read_results(tmp_path / "run")
    assert all(np.isfinite(float(value)) for value in row.values())
    assert float(row["train/dist_loss"]) > 0
    translation = load_student(tmp_path / "run" / "student").translation
    assert all(value.isfinite().all() for value in translation.state_dict().values())
    in_use = train_source.num_regions - (first_row[2] - first_row[1])
    told = [re.sub(r"^.*?(train|val): (\x1b\[0m)?", "", line) for line in caplog.messages if " of " in line]
    assert told == [
        f"2 of {in_use} regions have no target, set aside by the teacher cache; they count for detection only",
        "1 of 16 images cannot be decoded and are left out",
        "1 of 8 images cannot be decoded and are left out",
    ]
    assert torch.get_num_threads() == threads, "ultralytics changes them"


def test_targets_of_other_boxes_are_refused(
    train_source: DetectionSource, val_source: DetectionSource, tmp_path: Path
) -> None:
    with pytest.raises(RegionTargetError) as error:
        distill(
            DistillSettings(train_arguments=QUICK),
            model="yolov8n.yaml",
            train=train_source,
            val=val_source,
            targets=random_targets(val_source),
            first_row=first_rows(val_source),
            run=tmp_path,
        )
    assert str(error.value) == (
        f"Every training box must have its target: found {train_source.num_regions} boxes in 16 images, "
        f"and {val_source.num_regions} targets of 8 images; run `mocha-pipe cache build` again."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("able", [True, False])
def test_mixed_precision_is_checked_on_the_model_itself(
    tiny_models: dict[str, str], able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocha_pipe.student.training.resumable.multiplies_bfloat16", lambda: able)
    model = DetectionModel(tiny_models["v8"], verbose=False)
    assert amp_is_sound(model) is able
    assert sys.modules["ultralytics.engine.trainer"].check_amp is amp_is_sound
