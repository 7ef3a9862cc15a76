"""The classification branch learns, and nothing else does."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.errors import TrainArgumentError
from mocha_pipe.student.network.student_files import load_detector
from mocha_pipe.student.training.head_tuning import tune_classification
from mocha_pipe.student.training.source_trainer import SourceTrainer
from tests.shared import DEVICE
from tests.student.conftest import CLASS_NAMES, SIDE

BRANCHES = ("cv3.", "one2one_cv3.")
ARGUMENTS = {
    "imgsz": SIDE, "batch": 8, "device": DEVICE, "workers": 0, "seed": 3, "nbs": 8, "warmup_epochs": 0, "lr0": 0.02,
    "save": False,
}  # fmt: skip
EPOCHS = {"v8": 12, "26": 1}
State = dict[str, Any]


def save_detector(config: str, path: Path) -> Path:
    torch.manual_seed(0)
    model: Any = DetectionModel(config, nc=len(CLASS_NAMES), verbose=False)
    model.names = dict(enumerate(CLASS_NAMES))
    torch.save({"model": model.half(), "ema": None, "epoch": -1, "train_args": {"imgsz": SIDE}}, path)
    return path


def parts(detector: DetectionModel) -> tuple[State, State]:
    """State of the classification branches, and of all else."""
    state = detector.model.state_dict()
    inside = {name for name in state if name.split(".", 1)[1].startswith(BRANCHES)}
    return {name: state[name] for name in inside}, {name: state[name] for name in state.keys() - inside}


@pytest.fixture(scope="module")
def tuned(
    tiny_models: dict[str, str], train_source: DetectionSource, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, DetectionModel]]:
    """The folder with base.pt and the run, and the tuned detector, by family."""
    done: dict[str, tuple[Path, DetectionModel]] = {}

    def tune(family: str) -> tuple[Path, DetectionModel]:
        if family not in done:
            folder = tmp_path_factory.mktemp(family)
            weights = save_detector(tiny_models[family], folder / "base.pt")
            arguments = {**ARGUMENTS, "epochs": EPOCHS[family]}
            done[family] = folder, tune_classification(weights, train_source, folder / "run", arguments)
        return done[family]

    return tune


@pytest.mark.parametrize("family", EPOCHS)
def test_the_branch_learns_and_all_else_stays_to_the_bit(
    tuned: Callable[[str], tuple[Path, DetectionModel]], family: str
) -> None:
    folder, after = tuned(family)
    (branch, others), (learned, same) = parts(load_detector(folder / "base.pt")[0]), parts(after)
    assert all(torch.equal(others[name], same[name]) for name in others)
    last = [name for name in branch if name.endswith(".2.weight")]
    assert len(last) == (3 if family == "v8" else 6)
    assert all(not torch.equal(branch[name], learned[name]) for name in last)
    assert all(torch.isfinite(value).all() for value in learned.values())


def test_training_itself_leaves_all_else(tuned: Callable[[str], tuple[Path, DetectionModel]]) -> None:
    """Frozen weights are not merely put back: training on others' features would fit another detector."""
    folder, _ = tuned("v8")
    _, others = parts(load_detector(folder / "base.pt")[0])
    _, trained = parts(load_detector(folder / "run/train/weights/last.pt")[0])
    for name, value in others.items():
        torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=1e-6)


def test_classes_are_told_apart_after_it(tuned: Callable[[str], tuple[Path, DetectionModel]]) -> None:
    with (tuned("v8")[0] / "run/train/results.csv").open() as stream:
        losses = [float(row["train/cls_loss"]) for row in csv.DictReader(stream)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_finished_run_is_read(
    tuned: Callable[[str], tuple[Path, DetectionModel]], train_source: DetectionSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = tuned("v8")
    monkeypatch.setattr(SourceTrainer, "train", lambda _: pytest.fail("trained again"))
    again = tune_classification(folder / "base.pt", train_source, folder / "run", {**ARGUMENTS, "epochs": 12})
    assert all(torch.equal(again.state_dict()[name], value) for name, value in first.state_dict().items())


def test_arguments_are_checked_before_anything_is_written(
    tiny_models: dict[str, str], train_source: DetectionSource, tmp_path: Path
) -> None:
    weights = save_detector(tiny_models["v8"], tmp_path / "base.pt")
    with pytest.raises(TrainArgumentError, match="did you mean 'epochs'"):
        tune_classification(weights, train_source, tmp_path / "run", {"epoch": 1})
    assert not (tmp_path / "run").exists()
