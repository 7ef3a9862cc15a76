"""A run that was stopped, by an error or by SIGKILL, goes on as if it never had been."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import pytest
import torch

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.trainer import DistillTrainer, distill
from mocha_pipe.student.network.student_files import load_checkpoint
from mocha_pipe.student.training.exact_resume import ExactTrainer

# Three batches an epoch and four per optimizer step: gradients wait across epochs. Mosaic draws partners.
ARGUMENTS = {
    "epochs": 3, "imgsz": 64, "batch": 6, "nbs": 24, "plots": False, "seed": 3, "mosaic": 0.7, "close_mosaic": 1,
    "warmup_epochs": 1, "lr0": 2e-3,
}  # fmt: skip

Run = Callable[..., None]


class Stopped(Exception):  # noqa: N818
    """Stands for whatever ends a process."""


@pytest.fixture
def run(
    train_source: DetectionSource, val_source: DetectionSource, make_targets: Any, helpers: SimpleNamespace,
    tiny_models: dict[str, str],
) -> Run:  # fmt: skip
    def run(folder: Path, *, family: str = "v8", resume: bool = False, **arguments: Any) -> None:
        distill(
            DistillSettings(train_arguments=ARGUMENTS | arguments),
            model=tiny_models[family],
            train=train_source,
            val=val_source,
            targets=make_targets(train_source),
            first_row=helpers.first_rows(train_source),
            run=folder,
            resume=resume,
        )

    return run


def results(folder: Path) -> list[dict[str, str]]:
    with (folder / "train/results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        del row["time"]
    return rows


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(folder / "train/weights/last.pt")["model"].state_dict()
    return state


def assert_equal_runs(first: Path, second: Path) -> None:
    assert results(first) == results(second)
    expected = weights(first)
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())


def stop_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Let the training break off before its batch of that number, counted over all epochs."""
    counted = [0]
    preprocess = DistillTrainer.preprocess_batch

    def count(self: DistillTrainer, batch_: dict[str, Any]) -> dict[str, Any]:
        if counted[0] == batch:
            raise Stopped
        counted[0] += 1
        return preprocess(self, batch_)  # type: ignore[no-any-return]

    monkeypatch.setattr(DistillTrainer, "preprocess_batch", count)


@pytest.mark.parametrize("family", ["v8", "26"])
@pytest.mark.parametrize("batch", [4, 7])
def test_a_stopped_run_ends_like_an_uninterrupted_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, batch: int
) -> None:
    run(tmp_path / "whole", family=family)
    with monkeypatch.context() as patch:
        stop_at(patch, batch)
        with pytest.raises(Stopped):
            run(tmp_path / "stopped", family=family)
    assert [path.name for path in (tmp_path / "stopped/train/weights").glob("exact-*")] == [
        f"exact-{batch // 3 - 1}.pt"
    ]
    run(tmp_path / "stopped", family=family, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")
    assert not list((tmp_path / "stopped/train/weights").glob("exact-*")), "a finished run needs none"


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_the_fused_optimizer_steps_like_ultralytics_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    seen: list[bool] = []
    step = ExactTrainer.optimizer_step

    def look(self: ExactTrainer) -> None:
        seen.append(all(group["fused"] for group in self.optimizer.param_groups))
        step(self)

    monkeypatch.setattr(ExactTrainer, "optimizer_step", look)
    arguments = {"epochs": 1, "nbs": 6, "optimizer": optimizer}
    run(tmp_path / "fused", **arguments)
    monkeypatch.delattr(ExactTrainer, "build_optimizer")
    run(tmp_path / "plain", **arguments)
    assert seen == [True] * 3 + [False] * 3
    expected = weights(tmp_path / "plain")
    for name, value in weights(tmp_path / "fused").items():
        torch.testing.assert_close(value.float(), expected[name].float(), rtol=1e-2, atol=1e-3)


def test_equal_seeds_repeat_a_run_and_another_seed_does_not(run: Run, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(tmp_path / name, epochs=1, seed=seed)
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    assert results(tmp_path / "c") != results(tmp_path / "a")


def test_an_epoch_without_its_checkpoint_is_not_counted_twice(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between results.csv and last.pt, the epoch is done again and has one line."""
    save = DistillTrainer.save_model

    def fail_in_the_second(self: DistillTrainer) -> bool:
        if self.epoch == 1:
            raise Stopped
        return save(self)

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "save_model", fail_in_the_second)
        with pytest.raises(Stopped):
            run(tmp_path)
    assert [row["epoch"] for row in results(tmp_path)] == ["1", "2"]
    run(tmp_path, resume=True)
    assert [row["epoch"] for row in results(tmp_path)] == ["1", "2", "3"]


def test_without_its_exact_state_a_run_goes_on_from_the_stock_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Stopped):
            run(tmp_path)
    for path in (tmp_path / "train/weights").glob("exact-*"):
        path.unlink()
    run(tmp_path, resume=True)
    assert [row["epoch"] for row in results(tmp_path)] == ["1", "2", "3"]


def test_the_exact_state_is_read_without_running_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 4)
    with pytest.raises(Stopped):
        run(tmp_path)
    (path,) = (tmp_path / "train/weights").glob("exact-*")
    state = torch.load(path, weights_only=True)
    assert state["batches_waiting"] > 0
    assert state["gradients"]
    assert all(value.dtype == torch.float32 for value in state["gradients"].values())
    moments = [value for slot in state["optimizer"]["state"].values() for value in slot.values()]
    assert moments
    assert all(value.dtype == torch.float32 for value in moments), "ultralytics' own checkpoint rounds them"
