"""A run that was stopped goes on as if it never had been, and a run repeats under its seed."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer

from mocha_pipe.student.distil.trainer import DistillTrainer
from mocha_pipe.student.environment import cpu_threads
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.student_files import load_checkpoint
from mocha_pipe.student.training.exact_resume import ExactTrainer
from tests.shared import made_once

Run = Callable[..., Any]


class Stopped(BaseException):
    """What Ctrl-C, SIGKILL or a lost machine does to a run."""


def results(folder: Path) -> list[dict[str, str]]:
    with (folder / "train/results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        del row["time"]
    return rows


def student_of(run: Path) -> tuple[dict[str, bytes], dict[str, Tensor]]:
    """Files of the student, student.pt by its weights."""
    files = {path.name: path.read_bytes() for path in (run / "student").iterdir() if path.name != "student.pt"}
    return files, torch.load(run / "student/student.pt", weights_only=False)["model"].state_dict()


def stop_in_the_second_epoch(patch: pytest.MonkeyPatch) -> None:
    """Before its second batch."""
    counted = [0]
    preprocess = DistillTrainer.preprocess_batch

    def count(trainer: DistillTrainer, batch: dict[str, Any]) -> dict[str, Any]:
        counted[0] += 1
        if counted[0] == 5:
            raise Stopped
        return preprocess(trainer, batch)  # type: ignore[no-any-return]

    patch.setattr(DistillTrainer, "preprocess_batch", count)


def stop_at_the_end_of_the_third_epoch(patch: pytest.MonkeyPatch) -> None:
    """While last.pt is written: results.csv has the epoch, and its exact state is there already."""
    written = [0]
    write = Path.write_bytes

    def break_off(path: Path, content: bytes) -> int:
        if path.name.endswith("last.pt"):
            written[0] += 1
            if written[0] == 3:
                write(path, content[:1000])
                raise Stopped
        return write(path, content)

    patch.setattr(Path, "write_bytes", break_off)


STOPS = {"v8": stop_at_the_end_of_the_third_epoch, "26": stop_in_the_second_epoch}


@pytest.fixture(scope="session")
def stopped(distil_tiny: Run) -> Callable[[str], Path]:
    """The folder of a stopped run by family, to be read only."""

    def make(family: str, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            STOPS[family](patch)
            with pytest.raises(Stopped):
                distil_tiny(folder, family)

    return lambda family: made_once(f"stopped-{family}-on-{cpu_threads()}", lambda folder: make(family, folder))


def test_a_checkpoint_is_never_found_in_part_and_nothing_is_distilled_yet(stopped: Callable[[str], Path]) -> None:
    for family, epochs in (("v8", 2), ("26", 1)):
        last = load_checkpoint(stopped(family) / "train/weights/last.pt")
        assert last["epoch"] == epochs - 1
        assert isinstance(last["ema"], DistillModel)
        assert (stopped(family) / f"train/weights/exact-{epochs - 1}.pt").is_file()
        assert not (stopped(family) / "student").exists()
    assert [row["epoch"] for row in results(stopped("v8"))] == ["1", "2", "3"], "the third without its checkpoint"


def test_the_exact_state_is_read_without_running_code(stopped: Callable[[str], Path]) -> None:
    state = torch.load(stopped("26") / "train/weights/exact-0.pt", weights_only=True)
    assert state["batches_waiting"] > 0
    assert state["gradients"]
    assert all(value.dtype == torch.float32 for value in state["gradients"].values())
    moments = [value for slot in state["optimizer"]["state"].values() for value in slot.values()]
    assert moments
    assert all(value.dtype == torch.float32 for value in moments), "ultralytics' own checkpoint rounds them"
    assert all(group["fused"] for group in state["optimizer"]["param_groups"])


@pytest.mark.parametrize("family", STOPS)
def test_a_stopped_run_ends_like_an_uninterrupted_one(
    distil_tiny: Run, distilled: Callable[[str], Path], stopped: Callable[[str], Path], tmp_path: Path, family: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, run = distilled(family), tmp_path / "run"
    shutil.copytree(stopped(family), run)
    done = distil_tiny(run, family, resume=True)
    assert results(run) == results(whole)
    (files, detector), (expected_files, expected_detector) = student_of(run), student_of(whole)
    assert files == expected_files
    assert all(torch.equal(value, expected_detector[name]) for name, value in detector.items())
    assert sorted(path.name for path in (run / "train/weights").iterdir()) == ["best.pt", "last.pt"]
    if family == "v8":  # a finished run is not trained again, and its student is written anew
        monkeypatch.setattr(DistillTrainer, "train", lambda _: pytest.fail("trained again"))
        shutil.rmtree(done.folder)
        assert distil_tiny(run, family, resume=True) == done
        assert student_of(run)[0] == files


def resumed_trainer(distil_tiny: Run, run: Path, patch: pytest.MonkeyPatch) -> DistillTrainer:
    """The trainer that goes on with a stopped run, before its first batch."""
    trainers = []

    def stop(trainer: DistillTrainer) -> None:
        trainers.append(trainer)
        raise Stopped

    patch.setattr(DistillTrainer, "_begin_schedule", stop)
    with pytest.raises(Stopped):
        distil_tiny(run, resume=True)
    return trainers[0]


def test_without_its_exact_state_a_run_goes_on_from_the_stock_checkpoint(
    distil_tiny: Run, stopped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped("v8"), run, ignore=shutil.ignore_patterns("exact-*"))
    trainer = resumed_trainer(distil_tiny, run, monkeypatch)
    assert (trainer.start_epoch, trainer.exact_state) == (2, None)
    expected = load_checkpoint(run / "train/weights/last.pt")["ema"].float().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in trainer.ema.ema.state_dict().items())
    assert [row["epoch"] for row in results(run)] == ["1", "2"]


def test_a_run_goes_on_where_its_device_is_not_there(
    distil_tiny: Run, stopped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ultralytics notes the number of the GPU that `auto` was, and would ask for that one again."""
    run = tmp_path / "run"
    shutil.copytree(stopped("v8"), run)
    last = run / "train/weights/last.pt"
    checkpoint = torch.load(last, weights_only=False)
    checkpoint["train_args"]["device"] = "3"
    torch.save(checkpoint, last)

    assert resumed_trainer(distil_tiny, run, monkeypatch).start_epoch == 2


def test_without_resume_a_run_starts_anew_and_another_seed_gives_another(
    distil_tiny: Run, distilled: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(distilled("v8"), run)
    distil_tiny(run, epochs=1, seed=4)
    (row,) = results(run)
    assert row["epoch"] == "1"
    first = results(distilled("v8"))[0]
    assert row["train/dist_loss"] != first["train/dist_loss"]
    assert row["train/box_loss"] != first["train/box_loss"]


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_fused_optimizer_steps_like_ultralytics_own(tiny_models: dict[str, str], name: str) -> None:
    trainer = ExactTrainer.__new__(ExactTrainer)
    trainer.args, trainer.data = get_cfg(), {"nc": 3}
    states, fused = [], []
    for kind in (ExactTrainer, DetectionTrainer):
        torch.manual_seed(0)
        model = DistillModel(tiny_models["v8"], num_classes=3, features="fine", target_dim=8)
        optimizer = kind.build_optimizer(trainer, model, name=name, lr=1e-2, momentum=0.9, decay=0.05)
        fused.append([group["fused"] for group in optimizer.param_groups])
        for _ in range(3):
            for value in model.parameters():
                value.grad = torch.randn_like(value)
            optimizer.step()
        states.append(model.state_dict())
    assert (all(fused[0]), any(fused[1])) == (True, False)
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-6)
