"""Whole runs on tiny scenes: pretraining and distillation, stopped and resumed, alone and offline."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.trainer import DistillResult, DistillTrainer, distill
from mocha_pipe.student.errors import (
    RegionTargetError,
    StudentModelError,
    StudentModelNotFoundError,
    TrainArgumentError,
)
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.student_files import load_checkpoint, load_student, save_student
from mocha_pipe.student.training.arguments import checked_arguments, find_model
from mocha_pipe.student.training.pretrain import pretrain
from mocha_pipe.student.training.resumable import ResumableTrainer, amp_is_sound

QUICK = {"epochs": 1, "imgsz": 64, "batch": 8, "plots": False, "seed": 3}
Distill = Callable[..., DistillResult]


@pytest.fixture
def run_distill(
    train_source: DetectionSource, val_source: DetectionSource, make_targets: Any, helpers: SimpleNamespace
) -> Distill:
    def run(model: str, run: Path, *, resume: bool = False, **arguments: Any) -> DistillResult:
        return distill(
            DistillSettings(train_arguments=QUICK | arguments),
            model=model,
            train=train_source,
            val=val_source,
            targets=make_targets(train_source),
            first_row=helpers.first_rows(train_source),
            run=run,
            resume=resume,
            meta={"cache": "abc"},
        )

    return run


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


def read_results(run: Path) -> list[dict[str, str]]:
    with (run / "train" / "results.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("family", ["v8", "11", "26"])
def test_distils_every_family(tiny_models: dict[str, str], run_distill: Distill, tmp_path: Path, family: str) -> None:
    threads = torch.get_num_threads()
    result = run_distill(tiny_models[family], tmp_path, plots=family == "v8")
    (row,) = read_results(tmp_path)
    assert {"train/dist_loss", "train/emb_loss", "metrics/mAP50-95(B)", "val/box_loss"} <= set(row)
    assert not {"val/dist_loss", "val/emb_loss"} & set(row)
    assert float(row["train/dist_loss"]) > 0
    assert not {"val/dist_loss", "val/emb_loss"} & set(result.metrics)
    assert {"metrics/mAP50-95(B)", "val/box_loss"} <= set(result.metrics)
    assert result.folder == tmp_path / "student"
    student = load_student(result.folder)
    assert student.class_names == ("square", "tall", "wide")
    assert student.meta == {"cache": "abc"}
    assert student.image_size == 64
    assert type(YOLO(result.folder / "student.pt").model) is DetectionModel
    assert torch.get_num_threads() == threads
    assert (tmp_path / "train" / "results.png").exists() == (family == "v8")
    assert sorted(path.name for path in (tmp_path / "train" / "weights").iterdir()) == ["best.pt", "last.pt"]


def test_repeats_bitwise_under_a_seed(tiny_models: dict[str, str], run_distill: Distill, tmp_path: Path) -> None:
    folders = [run_distill(tiny_models["v8"], tmp_path / name).folder for name in ("a", "b")]
    for name in ("student.pt", "translation.safetensors", "student.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    other = run_distill(tiny_models["v8"], tmp_path / "c", seed=4).folder
    name = "translation.safetensors"
    assert (folders[0] / name).read_bytes() != (other / name).read_bytes()


def test_the_distillation_losses_fall(tiny_models: dict[str, str], run_distill: Distill, tmp_path: Path) -> None:
    still = dict.fromkeys(("mosaic", "scale", "translate", "fliplr", "hsv_h", "hsv_s", "hsv_v", "warmup_epochs"), 0.0)
    run_distill(tiny_models["v8"], tmp_path, epochs=20, lr0=1e-2, nbs=8, val=False, **still)
    losses = [float(row["train/dist_loss"]) for row in read_results(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]


class Stopped(BaseException):
    """What Ctrl-C or a lost machine does to a run."""


@pytest.fixture
def stop_after_first_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Stops the next run after its first epoch was saved; called, it lets later runs go on."""
    original = ResumableTrainer.save_model

    def save_and_stop(trainer: ResumableTrainer) -> bool:
        original(trainer)
        raise Stopped

    monkeypatch.setattr(ResumableTrainer, "save_model", save_and_stop)
    return lambda: monkeypatch.setattr(ResumableTrainer, "save_model", original)


def test_a_stopped_distillation_goes_on(
    tiny_models: dict[str, str],
    run_distill: Distill,
    tmp_path: Path,
    stop_after_first_epoch: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_models["26"]
    with pytest.raises(Stopped):
        run_distill(model, tmp_path, epochs=2, nbs=8)
    assert not (tmp_path / "student").exists()
    stopped = load_checkpoint(tmp_path / "train" / "weights" / "last.pt")
    assert stopped["epoch"] == 0
    assert isinstance(stopped["ema"], DistillModel)
    stop_after_first_epoch()
    result = run_distill(model, tmp_path, epochs=2, nbs=8, resume=True)
    assert [row["epoch"] for row in read_results(tmp_path)] == ["1", "2"]
    before, after = stopped["ema"].translation.state_dict(), load_student(result.folder).translation.state_dict()
    assert before["channels.running_mean"].any()
    assert not torch.equal(before["channels.running_mean"].float(), after["channels.running_mean"])
    # A finished run is not trained again, and its student is written anew.
    monkeypatch.setattr(DistillTrainer, "train", lambda _: pytest.fail("trained again"))
    (result.folder / "student.json").unlink()
    again = run_distill(model, tmp_path, epochs=2, nbs=8, resume=True)
    assert again.metrics == result.metrics
    assert (again.folder / "student.json").exists()


def test_a_run_stopped_before_its_optimizer_was_dropped_is_finished(
    tiny_models: dict[str, str],
    run_distill: Distill,
    tmp_path: Path,
    stop_after_first_epoch: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Stopped):
        run_distill(tiny_models["v8"], tmp_path)
    monkeypatch.setattr(DistillTrainer, "train", lambda _: pytest.fail("trained again"))
    run_distill(tiny_models["v8"], tmp_path, resume=True)
    assert load_checkpoint(tmp_path / "train" / "weights" / "last.pt")["epoch"] == -1
    assert (tmp_path / "student" / "student.json").exists()


def test_a_checkpoint_is_never_found_in_part(
    tiny_models: dict[str, str], run_distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "train" / "weights" / "last.pt"
    write = Path.write_bytes

    def break_off(path: Path, content: bytes) -> int:
        if path.name.endswith("last.pt") and last.exists():
            write(path, content[:1000])
            raise Stopped
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", break_off)
    with pytest.raises(Stopped):
        run_distill(tiny_models["v8"], tmp_path, epochs=3)
    assert load_checkpoint(last)["epoch"] == 0


def test_without_resume_a_run_starts_anew(tiny_models: dict[str, str], run_distill: Distill, tmp_path: Path) -> None:
    run_distill(tiny_models["v8"], tmp_path)
    run_distill(tiny_models["v8"], tmp_path, epochs=2)
    assert [row["epoch"] for row in read_results(tmp_path)] == ["1", "2"]


def test_pretrains_and_distils_on(
    tiny_models: dict[str, str],
    run_distill: Distill,
    data_yaml: Path,
    tmp_path: Path,
    stop_after_first_epoch: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = QUICK | {"epochs": 2}
    with pytest.raises(Stopped):
        pretrain(tiny_models["v8"], data_yaml, tmp_path / "base", arguments)
    stop_after_first_epoch()
    result = pretrain(tiny_models["v8"], data_yaml, tmp_path / "base", arguments, resume=True)
    assert [row["epoch"] for row in read_results(tmp_path / "base")] == ["1", "2"]
    assert result.weights == tmp_path / "base" / "train" / "weights" / "best.pt"
    assert "metrics/mAP50-95(B)" in result.metrics
    monkeypatch.setattr(ResumableTrainer, "train", lambda _: pytest.fail("trained again"))
    assert pretrain(tiny_models["v8"], data_yaml, tmp_path / "base", arguments, resume=True) == result
    monkeypatch.undo()
    base = load_student(result.weights)
    assert base.translation is None
    run_distill(str(result.weights), tmp_path / "student", lr0=0.0, warmup_epochs=0)
    distilled = load_student(tmp_path / "student" / "student")
    base_weights = base.detector.state_dict()
    learned = {name: value for name, value in distilled.detector.state_dict().items() if name.endswith("conv.weight")}
    for name, value in learned.items():
        torch.testing.assert_close(value, base_weights[name], rtol=0, atol=2e-3)


def test_a_head_for_other_classes_is_new(tiny_models: dict[str, str], run_distill: Distill, tmp_path: Path) -> None:
    five = DistillModel(tiny_models["11"], num_classes=5, features="paper", target_dim=4)
    weights = save_student(five, tmp_path / "five", image_size=64, meta={}) / "student.pt"
    student = load_student(run_distill(str(weights), tmp_path).folder)
    assert student.detector.model[-1].nc == 3
    assert student.class_names == ("square", "tall", "wide")


def test_trains_on_what_the_cache_holds_and_says_what_it_does_not(
    tiny_models: dict[str, str],
    train_source: DetectionSource,
    val_source: DetectionSource,
    make_targets: Any,
    helpers: SimpleNamespace,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Regions without a target are NaN in the cache, and an image that cannot be decoded never reaches the loader."""
    first_row = helpers.first_rows(train_source)
    lost = replace(train_source.records[1], path=tmp_path / "broken.png", readable=False, width=1, height=1)
    lost.path.write_bytes(b"no picture")
    records = (train_source.records[0], lost, *train_source.records[2:])
    values = make_targets(train_source).values.copy()
    aside = [*range(first_row[1], first_row[2]), int(first_row[2]), int(first_row[4])]
    values[aside] = np.nan
    val = replace(val_source, records=(replace(val_source.records[0], readable=False), *val_source.records[1:]))
    distill(
        DistillSettings(train_arguments=QUICK),
        model=tiny_models["v8"],
        train=replace(train_source, records=records),
        val=val,
        targets=type(make_targets(train_source))(values),
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


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_bare_name_of_weights_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudentModelNotFoundError) as error:
        find_model("yolov8n.pt")
    assert str(error.value) == (
        "yolov8n.pt: no such file, and weights are not downloaded. Get it from "
        "https://github.com/ultralytics/assets/releases and pass its path with --student, "
        "or pass --student yolov8n.yaml to start from random weights."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["yolov8n", "https://example.com/yolov8n.yaml", "model.onnx"])
def test_other_kinds_of_models_are_refused(model: str) -> None:
    with pytest.raises(StudentModelError) as error:
        find_model(model)
    assert str(error.value) == (
        f"--student must be a local .pt file or a .yaml, found {model!r}; "
        "for example --student yolov8n.yaml, or --student path/to/yolov8n.pt."
    )


def test_an_unknown_yaml_is_refused() -> None:
    with pytest.raises(StudentModelNotFoundError) as error:
        find_model("yolov99n.yaml")
    assert str(error.value) == (
        "yolov99n.yaml: no such file, and no model that ultralytics ships; for example --student yolov8n.yaml."
    )


def test_a_yaml_for_another_task_is_refused() -> None:
    with pytest.raises(StudentModelError) as error:
        find_model("yolov8n-seg.yaml")
    assert str(error.value) == "yolov8n-seg.yaml: the student must be a YOLO detector, this is a model for 'segment'."


def test_models_are_found_where_they_are(tiny_models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model("yolo26n.yaml") == "yolo26n.yaml"
    path = Path(tiny_models["11"])
    monkeypatch.chdir(path.parent)
    assert find_model(path.name) == str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "x.yaml"}, "Training argument 'data' is set by mocha-pipe; leave it out."),
        ({"epoch": 3}, "Training argument 'epoch' is not one of ultralytics'; did you mean 'epochs'?"),
        ({"zzzzz": 3}, "Training argument 'zzzzz' is not one of ultralytics'; `yolo cfg` lists them."),
    ],
)
def test_training_arguments_are_checked_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainArgumentError) as error:
        checked_arguments(arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("arguments", [{"epochs": "many"}, {"mosaic": 1.5}])
def test_training_arguments_are_checked_by_value(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(TrainArgumentError, match=rf"^Training argument refused by ultralytics: .*{name}=.*$"):
        checked_arguments(arguments)


def test_targets_of_other_boxes_are_refused(
    train_source: DetectionSource,
    val_source: DetectionSource,
    make_targets: Any,
    helpers: SimpleNamespace,
    tmp_path: Path,
) -> None:
    with pytest.raises(RegionTargetError) as error:
        distill(
            DistillSettings(train_arguments=QUICK),
            model="yolov8n.yaml",
            train=train_source,
            val=val_source,
            targets=make_targets(val_source),
            first_row=helpers.first_rows(val_source),
            run=tmp_path,
        )
    assert str(error.value) == (
        f"Every training box must have its target: found {train_source.num_regions} boxes in 16 images, "
        f"and {val_source.num_regions} targets of 8 images; run `mocha-pipe cache build` again."
    )
    assert not list(tmp_path.iterdir())


def test_mixed_precision_is_checked_on_the_model_itself(tiny_models: dict[str, str]) -> None:
    model = DetectionModel(tiny_models["v8"], verbose=False)
    assert amp_is_sound(model) is False  # the CPU trains in float32
    assert sys.modules["ultralytics.engine.trainer"].check_amp is amp_is_sound


# --- alone ------------------------------------------------------------------------------------------------------------

ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"transformers", "tokenizers", "teacher_cache"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Absent())
def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        raise RuntimeError(f"network: {event} {arguments}")
sys.addaudithook(refuse)
"""


def run_alone(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "YOLO_CONFIG_DIR"}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", ALONE + script, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_phase_2_runs_offline_without_transformers_and_writes_only_its_run(
    tiny_models: dict[str, str], tmp_path: Path
) -> None:
    script = """
import importlib.util
from pathlib import Path
spec = importlib.util.spec_from_file_location("scenes", sys.argv[1])
scenes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scenes)
import numpy as np
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.trainer import distill
train = scenes.make_source(Path("scenes"), images=8, split="train", seed=1)
val = scenes.make_source(Path("scenes"), images=4, split="val", seed=2)
distill(
    DistillSettings(train_arguments={"epochs": 1, "imgsz": 64, "batch": 8}),
    model=sys.argv[2],
    train=train,
    val=val,
    targets=scenes.ArrayTargets(np.zeros((train.num_regions, 4), dtype=np.float32)),
    first_row=scenes.first_rows(train),
    run=Path("run"),
)
assert "transformers" not in sys.modules
"""
    done = run_alone(script, tmp_path, str(Path(__file__).with_name("conftest.py")), tiny_models["v8"])
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "scenes", "run"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"train", "student"}
    assert "Epoch" in done.stdout + done.stderr  # the table of epochs shows
    assert "engine/trainer" not in done.stdout + done.stderr  # and the list of arguments does not


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import transformers", "transformers is blocked"),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "network: socket."),
    ],
)
def test_the_proof_above_can_fail(tmp_path: Path, script: str, reason: str) -> None:
    done = run_alone(script, tmp_path)
    assert done.returncode != 0
    assert reason in done.stderr
