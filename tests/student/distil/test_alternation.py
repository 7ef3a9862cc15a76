"""`alternate`: three epochs in which the detector stays as it is to the bit, a fourth in which both learn."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.choices import ScheduleName
from mocha_pipe.student.distil.alternation import detector_learns, ends_turn, warn_if_never
from mocha_pipe.student.distil.settings import DistillSettings, DistillSetup
from mocha_pipe.student.distil.trainer import DistillTrainer
from mocha_pipe.student.network.deep import keep_statistics
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS
from mocha_pipe.student.training.resumable import train_to_end
from tests.shared import DEVICE
from tests.student.conftest import first_rows, random_targets
from tests.student.watched import Watched, changed

# Three batches an epoch and two per optimizer step: gradients wait at the ends of epochs.
ARGUMENTS = {
    "epochs": 5, "imgsz": 64, "batch": 4, "nbs": 8, "fraction": 12, "plots": False, "seed": 3, "warmup_epochs": 0,
    "lr0": 2e-3, "weight_decay": 0.05, "val": False, "save": False,
}  # fmt: skip
NEVER = (
    "The detector is never trained: by --schedule alternate it learns in every 4th epoch, and the run has {}; "
    "train longer (--epochs), or pass --schedule joint or frozen."
)


class WithScaler(Watched):
    """Mixed precision as on a GPU: autocast, and gradients that are scaled."""

    def _setup_train(self) -> None:
        super()._setup_train()
        self.amp, self.scaler = True, torch.amp.GradScaler("cpu")


Setup = Callable[[ScheduleName], DistillSetup]
Watch = Callable[..., Watched]


@pytest.fixture(scope="module")
def setup(train_source: DetectionSource, val_source: DetectionSource) -> Setup:
    return lambda schedule: DistillSetup(
        train=train_source, val=val_source, targets=random_targets(train_source), first_row=first_rows(train_source),
        settings=DistillSettings(schedule=schedule),
    )  # fmt: skip


@pytest.fixture(scope="module")
def watch(setup: Setup, tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """A finished run."""

    def run(schedule: ScheduleName = "alternate", kind: type[Watched] = Watched, **arguments: Any) -> Watched:
        folder = str(tmp_path_factory.mktemp(schedule))
        place = {"model": tiny_models["v8"], "project": folder, "name": "train", "exist_ok": True}
        trainer = kind(setup(schedule), {**place, **DEFAULT_TRAIN_ARGUMENTS, **ARGUMENTS, **arguments})
        trainer.train()
        return trainer

    return run


@pytest.fixture(scope="module")
def five_epochs(watch: Watch) -> Watched:
    """A small v8 by `alternate`."""
    return watch()


def distance(states: tuple[dict[str, Tensor], dict[str, Tensor]], part: str) -> float:
    first, second = states
    names = [name for name in first if name.startswith(part) and first[name].is_floating_point()]
    return sum(float((first[name].double() - second[name].double()).square().sum()) for name in names)


def results(trainer: Watched) -> list[dict[str, str]]:
    with trainer.csv.open() as stream:
        return list(csv.DictReader(stream))


# --- who learns when --------------------------------------------------------------------------------------------------


def test_the_detector_learns_in_every_epoch_or_in_every_fourth() -> None:
    schedules: tuple[ScheduleName, ...] = get_args(ScheduleName)
    learns = {name: [epoch + 1 for epoch in range(9) if detector_learns(name, epoch)] for name in schedules}
    assert learns == {"joint": [1, 2, 3, 4, 5, 6, 7, 8, 9], "alternate": [4, 8], "frozen": []}
    ends = {name: [epoch + 1 for epoch in range(9) if ends_turn(name, epoch)] for name in schedules}
    assert ends == {"joint": [], "alternate": [3, 4, 7, 8], "frozen": []}


def test_a_detector_stays_as_it_is_to_the_bit_for_three_epochs_and_learns_in_the_fourth(five_epochs: Watched) -> None:
    assert changed(five_epochs.weights, "model.") == [False, False, False, True, False]
    assert changed(five_epochs.weights, "translation.") == [True] * 5
    third, fourth = five_epochs.weights[3:5]
    learned = {name for name in third if name.startswith("model.") and not torch.equal(third[name], fourth[name])}
    assert {name.rpartition(".")[2] for name in learned} == {
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip


def test_neither_weight_decay_nor_momentum_moves_it_in_mixed_precision(watch: Watch) -> None:
    trainer = watch(kind=WithScaler, optimizer="SGD")
    assert trainer.scaler.get_scale() > 1
    assert changed(trainer.weights, "model.") == [False, False, False, True, False]
    assert changed(trainer.weights, "translation.") == [True] * 5
    assert all(value.isfinite().all() for value in trainer.weights[-1].values())


def test_layers_that_the_user_froze_stay_frozen_with_muon(watch: Watch) -> None:
    trainer = watch(freeze=[0, 2], optimizer="MuSGD")
    for layer, learns in ((0, False), (1, True), (2, False), (3, True)):
        assert changed(trainer.weights, f"model.{layer}.") == [False] * 3 + [learns, False]


def test_by_default_both_learn_all_the_time(watch: Watch, five_epochs: Watched) -> None:
    assert DistillSettings().schedule == "joint"
    joint = watch("joint", epochs=2)
    assert changed(joint.weights, "model.") == changed(joint.weights, "translation.") == [True, True]
    assert joint.steps == [2, 4, 6]
    assert [list(row) for row in results(joint)] == [list(row) for row in results(five_epochs)[:2]]


def test_no_gradient_of_an_epoch_moves_the_detector_in_the_next(five_epochs: Watched) -> None:
    """Such an epoch ends with an optimizer step, and the next one comes as many batches later as ever."""
    end_of_the_third, end_of_the_fourth = 9, 12
    assert five_epochs.steps == [2, 4, 6, 8, end_of_the_third, 11, end_of_the_fourth, 14]
    assert five_epochs.gradients == [False] * 5 + [True] * 2 + [False]


def test_the_average_of_a_detector_that_stays_as_it_is_approaches_it(five_epochs: Watched) -> None:
    assert changed(five_epochs.averages, "model.")[:3] == [False] * 3, "nothing to approach"
    fourth, fifth = list(zip(five_epochs.weights, five_epochs.averages, strict=True))[4:]
    assert 0 < distance(fifth, "model.") < distance(fourth, "model.")


def test_the_table_of_epochs_has_its_figures(five_epochs: Watched) -> None:
    rows = results(five_epochs)
    numbers = torch.tensor([[float(value) for value in row.values()] for row in rows])
    assert len(numbers) == 5
    assert numbers.isfinite().all()
    assert all(float(row["train/box_loss"]) > 0 and float(row["train/dist_loss"]) > 0 for row in rows)


# --- its loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v8", "11", "26"])
def test_a_detector_that_stays_as_it_is_has_the_same_loss_and_no_gradient(
    tiny_models: dict[str, str], family: str
) -> None:
    torch.manual_seed(0)
    model = DistillModel(tiny_models[family], num_classes=3, features="fine", target_dim=8)
    model.args = get_cfg()
    batch = {
        "img": torch.rand(2, 3, 64, 64), "batch_idx": torch.tensor([0.0, 0, 1]), "cls": torch.tensor([[0.0], [1], [2]]),
        "bboxes": torch.tensor([[0.4, 0.4, 0.3, 0.3]]).repeat(3, 1), "rows": torch.arange(3),
        "targets": torch.randn(3, 8),
    }  # fmt: skip
    keep_statistics(model.train().model)
    statistics = {name: value.clone() for name, value in model.model.named_buffers()}
    translation = {name: value.clone() for name, value in model.translation.named_buffers()}
    loss, items = model.loss(batch)
    model.translation.load_state_dict(translation, strict=False)
    model.detector_learns = False
    alone, alone_items = model.loss(batch)
    torch.testing.assert_close(alone, loss, rtol=0, atol=0)
    torch.testing.assert_close(alone_items, items, rtol=0, atol=0)
    alone.sum().backward()
    assert all(value.grad is None for value in model.model.parameters())
    assert all(value.grad is not None for value in model.translation.parameters())
    assert all(torch.equal(value, statistics[name]) for name, value in model.model.named_buffers())
    assert "detector_learns" not in model.stripped().__dict__


# --- resumed ----------------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_twice_ends_like_an_uninterrupted_one(
    five_epochs: Watched, setup: Setup, tiny_models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second epoch, after one in which the detector stayed as it is, and in the fifth, after it learned."""
    arguments = {**DEFAULT_TRAIN_ARGUMENTS, **ARGUMENTS, "save": True}
    run = partial(
        train_to_end, partial(DistillTrainer, setup("alternate")), model=tiny_models["v8"], run=tmp_path,
        arguments=arguments,
    )  # fmt: skip
    preprocess, left = DistillTrainer.preprocess_batch, [0]

    def stop(trainer: DistillTrainer, images: dict[str, Any]) -> Any:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return preprocess(trainer, images)

    monkeypatch.setattr(DistillTrainer, "preprocess_batch", stop)
    for resume, batches in ((False, 4), (True, 10)):
        left[0] = batches
        with pytest.raises(KeyboardInterrupt):
            run(resume=resume)
    left[0] = 3
    run(resume=True)
    assert left == [0], "the fifth epoch alone was left"
    resumed, whole = (
        torch.load(folder / "weights/last.pt", weights_only=False)["model"].state_dict()
        for folder in (tmp_path / "train", five_epochs.save_dir)
    )
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


# --- a run that is too short ------------------------------------------------------------------------------------------


def test_a_run_that_is_too_short_says_so(
    setup: Setup, tiny_models: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = {"model": tiny_models["v8"], "project": str(tmp_path), "name": "train", "epochs": 1, "device": DEVICE}
    DistillTrainer(setup("alternate"), place).run_callbacks("on_train_start")
    assert [line for line in caplog.messages if line.endswith(NEVER.format(1))]


@pytest.mark.parametrize(
    ("schedule", "num_epochs", "told"), [("alternate", 3, True), ("alternate", 4, False), ("joint", 1, False)]
)
def test_a_run_is_too_short_by_alternate_and_under_four_epochs(
    schedule: ScheduleName, num_epochs: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_never(schedule, num_epochs)
    assert [line.endswith(NEVER.format(num_epochs)) for line in caplog.messages] == [True] * told
