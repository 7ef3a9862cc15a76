"""What a user asks of a training is checked before it begins."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from mocha_pipe.student.errors import StudentModelError, StudentModelNotFoundError, TrainArgumentError
from mocha_pipe.student.training.arguments import (
    _CHOICES,
    DEEP_ARGUMENTS,
    DEFAULT_TRAIN_ARGUMENTS,
    FROZEN_ARGUMENTS,
    checked_arguments,
    colour_warning,
    find_model,
)

# isort: split

from ultralytics.engine.trainer import BaseTrainer


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
    assert str(error.value) == (
        "yolov8n-seg.yaml: the student must be a YOLO detector that needs no text (v3, v5, v6, v8, v9, v10, 11, 12 or "
        "26), this is another kind of model (segmentation; its last layer is Segment); for example --student "
        "yolov8n.yaml."
    )


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("yolov8s-world.yaml", "YOLO-World, which is asked by texts; its last layer is WorldDetect"),
        ("yolov8s-worldv2.yaml", "YOLO-World, which is asked by texts; its last layer is WorldDetect"),
        ("yoloe-11s.yaml", "YOLOE, which is asked by texts; its last layer is YOLOEDetect"),
        ("yoloe-26n-seg.yaml", "segmentation; its last layer is YOLOESegment26"),
        ("rtdetr-l.yaml", "RT-DETR, a transformer; its last layer is RTDETRDecoder"),
        ("yolov8n-rtdetr.yaml", "RT-DETR, a transformer; its last layer is RTDETRDecoder"),
        ("yolo11n-cls.yaml", "classification; its last layer is Classify"),
    ],
)
def test_detectors_that_cannot_be_students_are_refused_in_one_line(model: str, kind: str) -> None:
    with pytest.raises(StudentModelError) as error:
        find_model(model)
    assert f"this is another kind of model ({kind})" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_yaml_that_describes_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("nc: 3\n")
    with pytest.raises(StudentModelError, match=r"another kind of model \(another purpose; its last layer is none\)"):
        find_model(str(tmp_path / "empty.yaml"))


@pytest.mark.parametrize("given", [{"hsv_s": 0.7}, {"hsv_h": 0.01, "bgr": 0.5}])
def test_changed_colours_are_said(given: dict[str, float]) -> None:
    told = str(colour_warning({**DEFAULT_TRAIN_ARGUMENTS, **given}))
    assert told.startswith(", ".join(f"{name}={value}" for name, value in given.items()) + " changes the colours of")


@pytest.mark.parametrize("given", [{}, DEEP_ARGUMENTS, FROZEN_ARGUMENTS, {"hsv_s": 0.0}])
def test_no_recipe_of_distillation_changes_colours(given: dict[str, Any]) -> None:
    arguments = {**DEFAULT_TRAIN_ARGUMENTS, **given}
    assert colour_warning(arguments) is None
    assert {arguments[name] for name in ("hsv_h", "hsv_s", "hsv_v")} == {0.0}


def test_models_are_found_where_they_are(tiny_models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model("yolo26n.yaml") == "yolo26n.yaml"
    path = Path(tiny_models["11"])
    monkeypatch.chdir(path.parent)
    assert find_model(path.name) == str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "x.yaml"}, "Training argument 'data' is set by mocha-pipe; leave it out."),
        ({"split": "test"}, "Training argument 'split' is set by mocha-pipe; leave it out."),
        ({"epoch": 3}, "Training argument 'epoch' is not one of ultralytics'; did you mean 'epochs'?"),
        ({"zzzzz": 3}, "Training argument 'zzzzz' is not one of ultralytics'; `yolo cfg` lists them."),
        (
            {"cache": "disc"},
            "Training argument 'cache' must be one of True, False, None, ram, disk, found 'disc'; did you mean disk?",
        ),
        (
            {"optimizer": "AdaW"},
            "Training argument 'optimizer' must be one of auto, Adam, Adamax, AdamW, MuSGD, NAdam, RAdam, RMSprop, "
            "SGD, found 'AdaW'; did you mean AdamW?",
        ),
        ({"workers": -3}, "Training argument 'workers' must be at least 0, found -3."),
        ({"nbs": 0}, "Training argument 'nbs' must be at least 1, found 0."),
    ],
)
def test_training_arguments_are_checked_before_ultralytics_meets_them(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainArgumentError) as error:
        checked_arguments(arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("arguments", [{"epochs": "many"}, {"mosaic": 1.5}])
def test_training_arguments_are_checked_by_value(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(TrainArgumentError, match=rf"^Training argument refused by ultralytics: .*{name}=.*$"):
        checked_arguments(arguments)


def test_optimizers_and_caches_that_ultralytics_knows_pass() -> None:
    assert set(_CHOICES["optimizer"]) == _optimizers_of_ultralytics()
    for arguments in ({"optimizer": "adamw", "cache": True}, {"cache": "RAM", "workers": 0}, {"cache": None}):
        assert checked_arguments(arguments) == arguments


def _optimizers_of_ultralytics() -> set[str]:
    """As its trainer lists them in the source."""
    source = inspect.getsource(BaseTrainer.build_optimizer)
    return set(re.findall(r'"(\w+)"', source.partition("optimizers = {")[2].partition("}")[0]))
