"""Students of every family and scale, from `.yaml` and `.pt`, trained as `yolo train` would with the same arguments."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import pytest
import torch
from torch import Tensor
from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.trainer import DistillTrainer, distill
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS

FAMILIES = ("v8", "11", "26")
FINE_LAYER = 2
"""Of all three families: the block before the convolution that goes on to stride 8."""

Run = Callable[..., Path]


@pytest.fixture
def run(
    train_source: DetectionSource, val_source: DetectionSource, make_targets: Any, helpers: SimpleNamespace,
    tmp_path: Path,
) -> Run:  # fmt: skip
    """Distils and returns the folder of the student."""

    def run(model: str, name: str = "run", **arguments: Any) -> Path:
        result = distill(
            DistillSettings(train_arguments=arguments), model=model, train=train_source, val=val_source,
            targets=make_targets(train_source), first_row=helpers.first_rows(train_source), run=tmp_path / name,
        )  # fmt: skip
        return result.folder

    return run


# --- families and scales ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", "nsmlx")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_scale_is_as_wide_as_its_layers_say_and_learns(family: str, scale: str) -> None:
    model = DistillModel(f"yolo{family}{scale}.yaml", num_classes=3, features="fine", target_dim=8)
    model.args = get_cfg()
    head_inputs = [branch[0].conv.in_channels for branch in model.model[-1].cv2]
    assert len(head_inputs) == 3
    stem, stage = model.model[0].conv, model.model[FINE_LAYER].cv2.conv
    assert model.translation.dims == (sum(head_inputs), stem.out_channels + stage.out_channels)
    loss, items = model.loss(tiny_batch())
    assert loss.isfinite().all()
    assert items["dist_loss"] > 0
    assert items["emb_loss"] > 0
    loss[-2:].sum().backward()
    learns = [*model.translation.parameters(), model.model[0].conv.weight]
    assert all(value.grad is not None and value.grad.isfinite().all() and value.grad.any() for value in learns)


def tiny_batch() -> dict[str, Tensor]:
    """Two images with two boxes and one."""
    generator = torch.Generator().manual_seed(0)
    return {
        "img": torch.rand(2, 3, 64, 64, generator=generator),
        "batch_idx": torch.tensor([0.0, 0, 1]),
        "cls": torch.tensor([[0.0], [1], [2]]),
        "bboxes": torch.tensor([[0.3, 0.4, 0.3, 0.5], [0.7, 0.6, 0.4, 0.2], [0.5, 0.5, 0.6, 0.6]]),
        "rows": torch.arange(3),
        "targets": torch.randn(3, 8, generator=generator),
    }


# --- .yaml and .pt ----------------------------------------------------------------------------------------------------


def test_a_name_with_a_scale_starts_anew_and_weights_go_on(run: Run) -> None:
    """Of the family with two heads; test_trainer.py trains small ones of all three."""
    quick = {"epochs": 1, "imgsz": 64, "batch": 16, "plots": False}
    begun = run("yolo26n.yaml", **quick)
    weights = load_student(begun).detector.state_dict()
    stock = DetectionModel("yolo26n.yaml", nc=3, verbose=False).state_dict()
    assert {key: value.shape for key, value in weights.items()} == {key: value.shape for key, value in stock.items()}
    went_on = run(str(begun / "student.pt"), "again", **quick, lr0=0.0, warmup_epochs=0, seed=5)
    again = load_student(went_on).detector.state_dict()
    assert all(torch.equal(again[key], value) for key, value in weights.items() if key.endswith("conv.weight"))


# --- arguments --------------------------------------------------------------------------------------------------------

GIVEN = {
    "epochs": 7, "imgsz": 96, "batch": 5, "nbs": 10, "seed": 11, "device": "cpu", "optimizer": "RMSprop", "lr0": 3e-4,
    "lrf": 0.2, "momentum": 0.8, "weight_decay": 1e-3, "cos_lr": True, "warmup_epochs": 1.5, "warmup_bias_lr": 0.05,
    "patience": 3, "freeze": [0], "amp": False, "cache": "ram", "close_mosaic": 2, "mosaic": 0.3, "mixup": 0.15,
    "cutmix": 0.1, "degrees": 7.5, "shear": 2.0, "perspective": 1e-4, "translate": 0.2, "scale": 0.3, "fliplr": 0.1,
    "flipud": 0.2, "hsv_h": 0.02, "hsv_s": 0.5, "hsv_v": 0.3, "box": 6.0, "cls": 0.7, "plots": False, "val": False,
}  # fmt: skip
OF_THE_RUN = {"model", "project", "name", "exist_ok", "save_dir", "device", "workers"}
"""Which run it is, and what ultralytics makes of the machine."""


class Begun(Exception):  # noqa: N818
    """Everything is set up, and nothing trained."""


@pytest.fixture
def set_up(run: Run, tiny_models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., DistillTrainer]:
    """A trainer before its first batch."""
    trainers = []

    def begin(trainer: DistillTrainer) -> None:
        trainer._setup_train()
        trainers.append(trainer)
        raise Begun

    def set_up(**arguments: Any) -> DistillTrainer:
        with pytest.raises(Begun):
            run(tiny_models["v8"], **arguments)
        return trainers[-1]

    monkeypatch.setattr(DistillTrainer, "_do_train", begin)
    return set_up


def test_arguments_reach_the_trainer_as_they_were_given(set_up: Callable[..., DistillTrainer]) -> None:
    trainer = set_up(**GIVEN)
    found = vars(trainer.args)
    assert {name: found[name] for name in GIVEN} == GIVEN
    # and they are what it works with
    assert (trainer.epochs, trainer.train_loader.batch_size, trainer.train_loader.dataset.imgsz) == (7, 5, 96)
    assert type(trainer.optimizer).__name__ == "RMSprop"
    assert {(group["momentum"], group["initial_lr"]) for group in trainer.optimizer.param_groups} == {(0.8, 3e-4)}
    assert not trainer.model.model[0].conv.weight.requires_grad


def test_what_nobody_gave_is_as_in_yolo_train_but_for_the_optimizer(set_up: Callable[..., DistillTrainer]) -> None:
    found = {name: value for name, value in vars(set_up().args).items() if name not in OF_THE_RUN}
    assert found.keys() > {"imgsz", "batch", "mosaic"}
    assert {name: value for name, value in found.items() if value != DEFAULT_CFG_DICT[name]} == DEFAULT_TRAIN_ARGUMENTS
