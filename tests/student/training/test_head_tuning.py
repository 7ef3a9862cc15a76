"""The classification branch learns, and nothing else does."""

from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.errors import TrainArgumentError
from mocha_pipe.student.network.student_files import load_detector
from mocha_pipe.student.training import head_tuning as head
from mocha_pipe.student.training.head_tuning import tune_classification
from tests.student.conftest import CLASS_NAMES, SIDE

BRANCHES = ("cv3.", "one2one_cv3.")
FEW = {"epochs": 1, "imgsz": SIDE, "batch": 8, "device": "cpu", "workers": 0, "seed": 3, "nbs": 8, "warmup_epochs": 0}


def save_detector(config: str, path: Path) -> Path:
    torch.manual_seed(0)
    model: Any = DetectionModel(config, nc=len(CLASS_NAMES), verbose=False)
    model.names = dict(enumerate(CLASS_NAMES))
    torch.save({"model": model.half(), "ema": None, "epoch": -1, "train_args": {"imgsz": SIDE}}, path)
    return path


@pytest.fixture(params=["v8", "26"])
def weights(request: pytest.FixtureRequest, tiny_models: dict[str, str], tmp_path: Path) -> Path:
    return save_detector(tiny_models[request.param], tmp_path / "base.pt")


def parts(detector: DetectionModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of the classification branches, and of all else."""
    state = detector.model.state_dict()
    inside = {name for name in state if name.split(".", 1)[1].startswith(BRANCHES)}
    return {name: state[name] for name in inside}, {name: state[name] for name in state.keys() - inside}


def test_the_branch_learns_and_all_else_stays_to_the_bit(
    weights: Path, train_source: DetectionSource, tmp_path: Path
) -> None:
    before, _ = load_detector(weights)
    after = tune_classification(weights, train_source, tmp_path / "run", FEW)
    (branch, others), (tuned, same) = parts(before), parts(after)
    assert all(torch.equal(others[name], same[name]) for name in others)
    last = [name for name in branch if name.endswith(".2.weight")]
    assert last
    assert all(not torch.equal(branch[name], tuned[name]) for name in last)
    assert all(torch.isfinite(value).all() for value in tuned.values())


def test_training_itself_leaves_all_else(
    tiny_models: dict[str, str], train_source: DetectionSource, tmp_path: Path
) -> None:
    """Frozen weights are not merely put back: training on others' features would fit another detector."""
    weights = save_detector(tiny_models["v8"], tmp_path / "base.pt")
    tune_classification(weights, train_source, tmp_path / "run", FEW)
    _, others = parts(load_detector(weights)[0])
    _, trained = parts(load_detector(tmp_path / "run/train/weights/last.pt")[0])
    for name, value in others.items():
        torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=1e-6)


def test_equal_seeds_repeat_it(tiny_models: dict[str, str], train_source: DetectionSource, tmp_path: Path) -> None:
    weights = save_detector(tiny_models["v8"], tmp_path / "base.pt")
    first, second = (tune_classification(weights, train_source, tmp_path / run, FEW) for run in ("a", "b"))
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_classes_are_told_apart_after_it(
    tiny_models: dict[str, str], train_source: DetectionSource, tmp_path: Path
) -> None:
    weights = save_detector(tiny_models["v8"], tmp_path / "base.pt")
    tune_classification(weights, train_source, tmp_path / "run", {**FEW, "epochs": 12, "lr0": 0.02})
    lines = [line.split(",") for line in (tmp_path / "run/train/results.csv").read_text().splitlines()]
    column = lines[0].index("train/cls_loss")
    assert float(lines[-1][column]) < 0.8 * float(lines[1][column])


def test_a_finished_run_is_read(
    tiny_models: dict[str, str], train_source: DetectionSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = save_detector(tiny_models["v8"], tmp_path / "base.pt")
    first = tune_classification(weights, train_source, tmp_path / "run", FEW)
    monkeypatch.setattr(head.SourceTrainer, "train", lambda _: pytest.fail("trained again"))
    again = tune_classification(weights, train_source, tmp_path / "run", FEW)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in first.state_dict().items())


def test_arguments_are_checked_before_anything_is_written(
    tiny_models: dict[str, str], train_source: DetectionSource, tmp_path: Path
) -> None:
    weights = save_detector(tiny_models["v8"], tmp_path / "base.pt")
    with pytest.raises(TrainArgumentError, match="did you mean 'epochs'"):
        tune_classification(weights, train_source, tmp_path / "run", {"epoch": 1})
    assert not (tmp_path / "run").exists()
