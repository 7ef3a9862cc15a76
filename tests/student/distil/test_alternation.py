"""`alternate`: three epochs in which the detector holds still to the bit, a fourth in which both learn."""

import csv
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import pytest
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.utils.torch_utils import unwrap_model

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.choices import ScheduleName
from mocha_pipe.student.distil.alternation import detector_learns, ends_turn, keep_statistics, warn_if_never
from mocha_pipe.student.distil.settings import DistillSettings, DistillSetup
from mocha_pipe.student.distil.trainer import DistillTrainer, distill
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.student_files import load_checkpoint
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS
from mocha_pipe.student.training.processes import run_in_processes

# Four batches an epoch and three per optimizer step: gradients wait at the ends of epochs.
ARGUMENTS = {
    "epochs": 5, "imgsz": 64, "batch": 4, "nbs": 12, "plots": False, "seed": 3, "warmup_epochs": 0, "lr0": 2e-3,
    "weight_decay": 0.05, "val": False,
}  # fmt: skip
NEVER = (
    "The detector is never trained: by --schedule alternate it learns in every 4th epoch, and the run has {}; "
    "train longer (--epochs), or pass --schedule joint."
)


class Watched(DistillTrainer):
    """Notes the weights before each epoch and after the last, and after how many batches each optimizer step came."""

    def __init__(self, setup: DistillSetup, overrides: dict[str, Any]) -> None:
        super().__init__(setup, overrides)
        self.weights: list[dict[str, Tensor]] = []
        self.averages: list[dict[str, Tensor]] = []
        self.steps: list[int] = []
        self.gradients: list[bool] = []
        """For each step, whether the detector had any."""
        self.num_batches = 0
        self.add_callback("on_train_start", Watched.note)
        self.add_callback("on_train_batch_start", Watched.count)
        self.add_callback("on_fit_epoch_end", Watched.note)

    def note(self) -> None:
        for states, model in ((self.weights, unwrap_model(self.model)), (self.averages, self.ema.ema)):
            states.append({name: value.clone() for name, value in model.state_dict().items()})

    def count(self) -> None:
        self.num_batches += 1

    def optimizer_step(self) -> None:
        self.steps.append(self.num_batches)
        self.gradients.append(any(value.grad is not None for value in unwrap_model(self.model).model.parameters()))
        super().optimizer_step()


class WithScaler(Watched):
    """Mixed precision as on a GPU: autocast, and gradients that are scaled."""

    def _setup_train(self) -> None:
        super()._setup_train()
        self.amp, self.scaler = True, torch.amp.GradScaler("cpu")


Setup = Callable[[ScheduleName], DistillSetup]
Watch = Callable[..., Watched]


@pytest.fixture(scope="module")
def setup(
    train_source: DetectionSource, val_source: DetectionSource, make_targets: Any, helpers: SimpleNamespace
) -> Setup:
    return lambda schedule: DistillSetup(
        train=train_source, val=val_source, targets=make_targets(train_source),
        first_row=helpers.first_rows(train_source), settings=DistillSettings(schedule=schedule),
    )  # fmt: skip


@pytest.fixture(scope="module")
def watch(setup: Setup, tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """A finished run."""

    def run(
        schedule: ScheduleName = "alternate", family: str = "v8", kind: type[Watched] = Watched, **arguments: Any
    ) -> Watched:
        folder = str(tmp_path_factory.mktemp(schedule))
        place = {"model": tiny_models[family], "project": folder, "name": "train", "exist_ok": True}
        trainer = kind(setup(schedule), {**place, **DEFAULT_TRAIN_ARGUMENTS, **ARGUMENTS, **arguments})
        trainer.train()
        return trainer

    return run


@pytest.fixture(scope="module")
def five_epochs(watch: Watch) -> Watched:
    """A small v8 by `alternate`."""
    return watch()


@pytest.fixture(scope="module")
def joint(watch: Watch) -> Watched:
    """Two epochs of it by `joint`."""
    return watch("joint", epochs=2)


def changed(states: list[dict[str, Tensor]], part: str) -> list[bool]:
    """For each epoch, whether parameters or statistics whose name starts so are other ones after it than before."""
    return [
        any(not torch.equal(value, after[name]) for name, value in before.items() if name.startswith(part))
        for before, after in pairwise(states)
    ]


def distance(states: tuple[dict[str, Tensor], dict[str, Tensor]], part: str) -> float:
    first, second = states
    names = [name for name in first if name.startswith(part) and first[name].is_floating_point()]
    return sum(float((first[name].double() - second[name].double()).square().sum()) for name in names)


# --- who learns when --------------------------------------------------------------------------------------------------


def test_the_detector_learns_in_every_epoch_or_in_every_fourth() -> None:
    names = get_args(ScheduleName)
    learns = {name: [epoch + 1 for epoch in range(9) if detector_learns(name, epoch)] for name in names}
    assert learns == {"joint": [1, 2, 3, 4, 5, 6, 7, 8, 9], "alternate": [4, 8]}
    ends = {name: [epoch + 1 for epoch in range(9) if ends_turn(name, epoch)] for name in names}
    assert ends == {"joint": [], "alternate": [3, 4, 7, 8]}


def test_a_detector_holds_still_to_the_bit_for_three_epochs_and_learns_in_the_fourth(five_epochs: Watched) -> None:
    assert changed(five_epochs.weights, "model.") == [False, False, False, True, False]
    assert changed(five_epochs.weights, "translation.") == [True] * 5
    third, fourth = five_epochs.weights[3:5]
    learned = {name for name in third if name.startswith("model.") and not torch.equal(third[name], fourth[name])}
    assert {name.rpartition(".")[2] for name in learned} == {
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip


@pytest.mark.parametrize(("family", "optimizer"), [("26", "SGD"), ("v8", "MuSGD")])
def test_neither_weight_decay_nor_momentum_moves_it(watch: Watch, family: str, optimizer: str) -> None:
    trainer = watch(family=family, optimizer=optimizer)
    assert changed(trainer.weights, "model.") == [False, False, False, True, False]


def test_by_default_both_learn_all_the_time(joint: Watched) -> None:
    assert DistillSettings().schedule == "joint"
    assert changed(joint.weights, "model.") == changed(joint.weights, "translation.") == [True, True]
    assert joint.steps == [3, 6]


def test_no_gradient_of_an_epoch_moves_the_detector_in_the_next(five_epochs: Watched) -> None:
    """Such an epoch ends with an optimizer step, and the next one comes as many batches later as ever."""
    end_of_the_fourth = 16
    assert five_epochs.steps == [3, 6, 9, 12, 15, end_of_the_fourth, 19]
    assert five_epochs.gradients == [False] * 4 + [True] * 2 + [False]


def test_the_average_of_a_detector_that_holds_still_approaches_it(five_epochs: Watched) -> None:
    assert changed(five_epochs.averages, "model.")[:3] == [False] * 3, "nothing to approach"
    fourth, fifth = list(zip(five_epochs.weights, five_epochs.averages, strict=True))[4:]
    assert 0 < distance(fifth, "model.") < distance(fourth, "model.")


def test_layers_that_the_user_froze_stay_frozen(watch: Watch) -> None:
    trainer = watch(epochs=4, freeze=[0, 2])
    for layer, learns in ((0, False), (1, True), (2, False), (3, True)):
        assert changed(trainer.weights, f"model.{layer}.") == [False] * 3 + [learns]


def test_works_in_mixed_precision(watch: Watch) -> None:
    trainer = watch(epochs=4, kind=WithScaler)
    assert trainer.scaler.get_scale() > 1
    assert changed(trainer.weights, "model.") == [False, False, False, True]
    assert changed(trainer.weights, "translation.") == [True] * 4
    assert all(value.isfinite().all() for value in trainer.weights[-1].values())


def results(trainer: Watched) -> list[dict[str, str]]:
    with trainer.csv.open() as stream:
        return list(csv.DictReader(stream))


def test_the_table_of_epochs_has_all_its_columns(five_epochs: Watched, joint: Watched) -> None:
    rows = results(five_epochs)
    assert [list(row) for row in rows] == [list(results(joint)[0])] * 5
    numbers = torch.tensor([[float(value) for value in row.values()] for row in rows])
    assert numbers.isfinite().all()
    assert all(float(row["train/box_loss"]) > 0 and float(row["train/dist_loss"]) > 0 for row in rows)


# --- its loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v8", "11", "26"])
def test_a_detector_that_holds_still_has_the_same_loss_and_no_gradient(
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


# --- resumed, and in several processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [5, 18])
def test_a_stopped_run_ends_like_an_uninterrupted_one(
    five_epochs: Watched, setup: Setup, tiny_models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:  # fmt: skip
    """Stopped in the second epoch, after one in which the detector held still, and in the fifth, after it learned."""
    given = setup("alternate")
    run = partial(
        distill, DistillSettings(schedule="alternate", train_arguments=ARGUMENTS), model=tiny_models["v8"],
        train=given.train, val=given.val, targets=given.targets, first_row=given.first_row, run=tmp_path,
    )  # fmt: skip
    preprocess, counted = DistillTrainer.preprocess_batch, [0]

    def stop(trainer: DistillTrainer, images: dict[str, Any]) -> Any:
        if counted[0] == batch:
            raise KeyboardInterrupt
        counted[0] += 1
        return preprocess(trainer, images)

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "preprocess_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    run(resume=True)
    resumed, whole = (
        load_checkpoint(folder / "weights/last.pt")["model"].state_dict()
        for folder in (tmp_path / "train", five_epochs.save_dir)
    )
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_two_processes_hold_the_detector_still_together(
    setup: Setup, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    arguments = {
        **DEFAULT_TRAIN_ARGUMENTS, **ARGUMENTS, "device": "cpu", "model": tiny_models["v8"], "project": str(tmp_path),
        "name": "train", "exist_ok": True, "batch": 8,
    }  # fmt: skip
    run_in_processes(partial(watch_and_save, setup("alternate"), arguments, tmp_path), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for weights in (first, second):
        assert changed(weights, "model.") == [False, False, False, True, False]
        assert changed(weights, "translation.") == [True] * 5
    learned = [name for name in first[-1] if "running_" not in name and "num_batches" not in name]
    assert all(torch.equal(first[-1][name], second[-1][name]) for name in learned)


def watch_and_save(setup: DistillSetup, arguments: dict[str, Any], folder: Path) -> None:
    from ultralytics.utils import RANK

    trainer = Watched(setup, arguments)
    trainer.train()
    assert type(trainer.model).__name__ == "DistributedDataParallel"
    torch.save(trainer.weights, folder / f"{RANK}.pt")


# --- a run that is too short ------------------------------------------------------------------------------------------


def test_a_run_that_is_too_short_says_so(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    watch(epochs=1)
    assert [line for line in caplog.messages if line.endswith(NEVER.format(1))]


@pytest.mark.parametrize(
    ("schedule", "num_epochs", "told"), [("alternate", 3, True), ("alternate", 4, False), ("joint", 1, False)]
)
def test_a_run_is_too_short_by_alternate_and_under_four_epochs(
    schedule: ScheduleName, num_epochs: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_never(schedule, num_epochs)
    assert [line.endswith(NEVER.format(num_epochs)) for line in caplog.messages] == [True] * told
