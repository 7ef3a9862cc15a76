"""Students of every family and scale, from `.yaml` and `.pt`, trained as `yolo train` would with the same arguments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.cfg import DEFAULT_CFG_DICT
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.data.errors import MochaWarning
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.trainer import DistillTrainer, distill
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.student_files import class_names, load_detector, save_student
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS
from tests.shared import DEVICE
from tests.student.conftest import first_rows, random_targets

FINE_LAYER = 2
"""Of all three families: the block before the convolution that goes on to stride 8."""


@pytest.mark.parametrize("scale", "nsmlx")
@pytest.mark.parametrize("family", ["v8", "11", "26"])
def test_every_scale_is_as_wide_as_its_layers_say(family: str, scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without numbers, which the head needs; test_distill_model.py trains small ones of all families."""
    monkeypatch.setattr(Detect, "bias_init", lambda _: None)
    monkeypatch.setattr(Detect, "forward", lambda _, maps: {"feats": maps, "one2many": {"feats": maps}})
    with torch.device("meta"):
        model = DistillModel(f"yolo{family}{scale}.yaml", num_classes=3, features="fine", target_dim=8)
    head_inputs = [branch[0].conv.in_channels for branch in model.model[-1].cv2]
    assert len(head_inputs) == 3
    stem, stage = model.model[0].conv, model.model[FINE_LAYER].cv2.conv
    assert model.translation.dims == (sum(head_inputs), stem.out_channels + stage.out_channels, 0)


# --- a trainer before its first batch ---------------------------------------------------------------------------------

GIVEN = {
    "epochs": 7, "imgsz": 96, "batch": 5, "nbs": 10, "seed": 11, "device": DEVICE, "optimizer": "RMSprop", "lr0": 3e-4,
    "lrf": 0.2, "momentum": 0.8, "weight_decay": 1e-3, "cos_lr": True, "warmup_epochs": 1.5, "warmup_bias_lr": 0.05,
    "patience": 3, "freeze": [0], "amp": False, "cache": "ram", "close_mosaic": 2, "mosaic": 0.3, "mixup": 0.15,
    "cutmix": 0.1, "degrees": 7.5, "shear": 2.0, "perspective": 1e-4, "translate": 0.2, "scale": 0.3, "fliplr": 0.1,
    "flipud": 0.2, "hsv_h": 0.02, "hsv_s": 0.5, "hsv_v": 0.3, "box": 6.0, "cls": 0.7, "plots": False, "val": False,
}  # fmt: skip
OF_THE_RUN = {"model", "project", "name", "exist_ok", "save_dir", "device", "workers"}
"""Which run it is, and what ultralytics makes of the machine."""

SetUp = Callable[..., DistillTrainer]


class Begun(Exception):  # noqa: N818
    """Everything is set up, and nothing trained."""


@pytest.fixture
def set_up(
    train_source: DetectionSource, val_source: DetectionSource, tiny_models: dict[str, str], tmp_path: Path
) -> SetUp:
    trainers = []

    def begin(trainer: DistillTrainer) -> None:
        trainer._setup_train()
        trainers.append(trainer)
        raise Begun

    def set_up(model: str = tiny_models["v8"], **arguments: Any) -> DistillTrainer:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Begun):  # noqa: PT012
            patch.setattr(DistillTrainer, "_do_train", begin)
            distill(
                DistillSettings(train_arguments=arguments), model=model, train=train_source, val=val_source,
                targets=random_targets(train_source), first_row=first_rows(train_source), run=tmp_path / "run",
            )  # fmt: skip
        return trainers[-1]

    return set_up


def test_a_name_with_a_scale_starts_anew(set_up: SetUp) -> None:
    found = set_up("yolov8n.yaml", imgsz=64).model.model.state_dict()
    stock = DetectionModel("yolov8n.yaml", nc=3, verbose=False).model.state_dict()
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in stock.items()}


def test_weights_go_on(set_up: SetUp, distilled: Callable[[str], Path]) -> None:
    """Of the family with two heads, which a distillation left."""
    weights = distilled("26") / "student/student.pt"
    found = set_up(str(weights), imgsz=64).model.model.state_dict()
    expected = load_detector(weights)[0].model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_head_for_other_classes_is_new(set_up: SetUp, tiny_models: dict[str, str], tmp_path: Path) -> None:
    five = DistillModel(tiny_models["v8"], num_classes=5, features="paper", target_dim=4)
    weights = save_student(five, tmp_path / "five", image_size=64, meta={}) / "student.pt"
    model = set_up(str(weights), imgsz=64).model
    assert model.model[-1].nc == 3
    assert class_names(model) == ("square", "tall", "wide")
    backbone = load_detector(weights)[0].model[0].conv.weight
    assert torch.equal(model.model[0].conv.weight, backbone)


def test_arguments_reach_the_trainer_as_they_were_given(set_up: SetUp) -> None:
    with pytest.warns(MochaWarning, match="hsv_h=0.02, hsv_s=0.5, hsv_v=0.3 changes the colours"):
        trainer = set_up(**GIVEN)
    found = vars(trainer.args)
    assert {name: found[name] for name in GIVEN} == GIVEN
    # and they are what it works with
    assert (trainer.epochs, trainer.train_loader.batch_size, trainer.train_loader.dataset.imgsz) == (7, 5, 96)
    assert type(trainer.optimizer).__name__ == "RMSprop"
    assert {(group["momentum"], group["initial_lr"]) for group in trainer.optimizer.param_groups} == {(0.8, 3e-4)}
    assert not trainer.model.model[0].conv.weight.requires_grad


def test_what_nobody_gave_is_as_in_yolo_train_but_for_the_optimizer(set_up: SetUp) -> None:
    found = {name: value for name, value in vars(set_up().args).items() if name not in OF_THE_RUN}
    assert found.keys() > {"imgsz", "batch", "mosaic"}
    ours = {name: value for name, value in found.items() if value != DEFAULT_CFG_DICT[name]}
    assert ours == {**DEFAULT_TRAIN_ARGUMENTS, "amp": False}  # on a CPU mixed precision is for those who ask for it
