"""Training in two processes over gloo: the loss of all regions, equal weights everywhere, failures in words.

All proofs are from one pair of processes, since a process takes seconds to import what it needs.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from ultralytics.utils import RANK, WORLD_SIZE
from ultralytics.utils.torch_utils import unwrap_model

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings, DistillSetup
from mocha_pipe.student.distil.trainer import DistillTrainer
from mocha_pipe.student.environment import cpu_threads
from mocha_pipe.student.errors import TrainArgumentError, TrainingProcessError
from mocha_pipe.student.network.distill_model import DistillModel, gather_rows
from mocha_pipe.student.network.features import FeatureMaps
from mocha_pipe.student.network.student_files import load_checkpoint
from mocha_pipe.student.training import resumable
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS
from mocha_pipe.student.training.processes import run_in_processes
from mocha_pipe.student.training.resumable import train_to_end
from tests.shared import made_once
from tests.student.conftest import first_rows, random_targets
from tests.student.watched import Watched, changed

COUNTS = ((3, 5), (0, 4), (2, 2))
"""Rows of the two processes."""
DIM = 4


def rows_of(rank: int, counts: tuple[int, ...]) -> Tensor:
    return torch.randn(sum(counts), DIM, generator=torch.Generator().manual_seed(0)).split(counts)[rank]


def weights_of(rows: Tensor) -> Tensor:
    return torch.arange(1.0, 1 + rows.numel()).view_as(rows)


def model_and_batch(file: str) -> tuple[DistillModel, FeatureMaps, dict[str, Tensor]]:
    """A model, feature maps of six images, and their boxes with targets."""
    torch.manual_seed(1)
    model = DistillModel(file, num_classes=3, features="fine", target_dim=DIM)
    fine, pyramid = ((8, 32), (8, 16)), ((16, 8), (32, 4), (64, 2))
    maps = FeatureMaps(*([torch.randn(6, channels, side, side) for channels, side in kind] for kind in (fine, pyramid)))
    batch_idx = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])
    batch = {
        "img": torch.zeros(6, 3, 64, 64),
        "rows": torch.arange(8),
        "batch_idx": batch_idx,
        "bboxes": torch.rand(8, 4) * 0.4 + 0.3,
        "targets": torch.randn(8, DIM),
    }
    return model, maps, batch


def each_level(maps: FeatureMaps, change: Callable[[Tensor], Tensor]) -> FeatureMaps:
    fine, pyramid, deep = ([change(level) for level in kind] for kind in (maps.fine, maps.pyramid, maps.deep))
    return maps._replace(fine=fine, pyramid=pyramid, deep=deep)


def part(batch: dict[str, Tensor], maps: FeatureMaps, first: int, stop: int) -> tuple[dict[str, Tensor], FeatureMaps]:
    """The images first to stop of a batch."""
    mine = (batch["batch_idx"] >= first) & (batch["batch_idx"] < stop)
    boxes = {name: batch[name][mine] for name in ("rows", "bboxes", "targets")}
    cut = {**boxes, "batch_idx": batch["batch_idx"][mine] - first, "img": batch["img"][first:stop]}
    return cut, each_level(maps, lambda level: level[first:stop])


def terms_and_gradients(model: DistillModel, maps: FeatureMaps, batch: dict[str, Tensor]) -> dict[str, Any]:
    maps = each_level(maps, lambda level: level.clone().requires_grad_())
    terms = model._distillation_terms(maps, batch)
    (terms.sum() * len(batch["img"])).backward()
    return {
        "terms": terms.detach(),
        "maps": [level.grad for level in maps.pyramid],
        "translation": {name: value.grad for name, value in model.translation.named_parameters()},
        "buffers": dict(model.translation.named_buffers()),
    }


# --- what each of the two processes does ------------------------------------------------------------------------------


def start_gloo() -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))


def gathered() -> list[tuple[Tensor, Tensor | None]]:
    found = []
    for counts in COUNTS:
        mine = rows_of(RANK, counts).requires_grad_()
        everybody = gather_rows(mine)
        (everybody.square() * weights_of(everybody)).sum().backward()
        found.append((everybody.detach(), mine.grad))
    return found


def of_a_part(file: str) -> dict[str, Any]:
    model, maps, batch = model_and_batch(file)
    cut, levels = part(batch, maps, *((0, 2) if RANK == 0 else (2, 6)))
    return terms_and_gradients(model, levels, cut)


def where_one_has_no_targets(file: str) -> dict[str, Any]:
    model, maps, batch = model_and_batch(file)
    if RANK == 1:
        batch["rows"] = torch.full_like(batch["rows"], -1)
    return terms_and_gradients(model, maps, batch)


class OnTheCpu(Watched):
    """In several processes without a GPU, which ultralytics itself cannot do."""

    def __init__(self, setup: DistillSetup, overrides: dict[str, Any]) -> None:
        super().__init__(setup, overrides)
        self.world_size = WORLD_SIZE

    def _setup_ddp(self) -> None:
        start_gloo()

    def _setup_train(self) -> None:
        wrap = nn.parallel.DistributedDataParallel
        named = "torch.nn.parallel.DistributedDataParallel"
        with patch(named, lambda model, device_ids, **arguments: wrap(model, **arguments)):
            super()._setup_train()


def work(setup: DistillSetup, models: dict[str, str], folder: Path) -> None:
    start_gloo()
    found: dict[str, Any] = {
        "gathered": gathered(), "part": of_a_part(models["v8"]), "no targets": where_one_has_no_targets(models["v8"]),
    }  # fmt: skip
    dist.destroy_process_group()
    arguments = {
        **DEFAULT_TRAIN_ARGUMENTS, "epochs": 5, "imgsz": 64, "batch": 4, "fraction": 8, "nbs": 8, "plots": False,
        "warmup_epochs": 0, "device": "cpu", "model": models["26"], "project": str(folder), "name": "train",
        "exist_ok": True,
    }  # fmt: skip
    trainer = OnTheCpu(setup, arguments)
    trainer.train()
    assert isinstance(trainer.model, nn.parallel.DistributedDataParallel)
    found.update(epochs=trainer.weights, final=unwrap_model(trainer.model).state_dict())
    torch.save(found, folder / f"{RANK}.pt")
    dist.barrier()
    if RANK == 1:
        os.dup2(os.open(folder / "errors.txt", os.O_WRONLY | os.O_CREAT), 2)
        raise ValueError("no")
    dist.barrier()  # waits for the other, in vain


@pytest.fixture(scope="session")
def folder(train_source: DetectionSource, val_source: DetectionSource, tiny_models: dict[str, str]) -> Path:
    """What the two processes left behind, of which one failed in the end."""
    setup = DistillSetup(
        train=train_source, val=val_source, targets=random_targets(train_source), first_row=first_rows(train_source),
        settings=DistillSettings(schedule="alternate"),
    )  # fmt: skip

    def make(folder: Path) -> None:
        environment = dict(os.environ)
        with pytest.raises(TrainingProcessError) as error:
            run_in_processes(partial(work, setup, tiny_models, folder), 2)
        assert dict(os.environ) == environment
        # They end with an error on purpose; any other one must not be kept as if it were that.
        assert (folder / "errors.txt").read_text().rstrip().endswith("ValueError: no")
        assert all((folder / f"{rank}.pt").is_file() for rank in range(2))
        (folder / "error.txt").write_text(str(error.value))

    return made_once(f"two-processes-on-{cpu_threads()}", make)


@pytest.fixture(scope="session")
def both(folder: Path) -> Callable[[str], list[Any]]:
    found = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    return lambda name: [process[name] for process in found]


# --- one loss ---------------------------------------------------------------------------------------------------------


def test_gathered_rows_are_those_of_all_ranks_and_gradients_find_their_way_back(
    both: Callable[[str], list[Any]],
) -> None:
    for counts, *found in zip(COUNTS, *both("gathered"), strict=True):
        joint = torch.cat([rows_of(rank, counts) for rank in range(2)])
        assert all(torch.equal(rows, joint) for rows, _ in found)
        # Each of the two processes sent back its gradient of the same sum.
        gradient = torch.cat([gradient for _, gradient in found])
        torch.testing.assert_close(gradient, 2 * 2 * joint * weights_of(joint))


def test_alone_nothing_is_gathered() -> None:
    rows = rows_of(0, COUNTS[0])
    assert gather_rows(rows) is rows


def test_two_processes_have_the_loss_and_the_gradients_of_one_with_the_joint_batch(
    both: Callable[[str], list[Any]], tiny_models: dict[str, str]
) -> None:
    parts = both("part")
    model, maps, batch = model_and_batch(tiny_models["v8"])
    joint = terms_and_gradients(model, maps, batch)
    for found in parts:
        torch.testing.assert_close(found["terms"], joint["terms"])
        torch.testing.assert_close(found["buffers"], joint["buffers"])
    for level, expected in enumerate(joint["maps"]):
        torch.testing.assert_close(torch.cat([found["maps"][level] for found in parts]), expected)
    for name, expected in joint["translation"].items():
        # The wrap takes the mean over processes of a loss that the trainer has multiplied by their number: the sum.
        torch.testing.assert_close(parts[0]["translation"][name] + parts[1]["translation"][name], expected)


def test_a_process_whose_batch_has_no_targets_does_not_keep_the_others_waiting(
    both: Callable[[str], list[Any]],
) -> None:
    with_targets, without = both("no targets")
    torch.testing.assert_close(with_targets["terms"], without["terms"])
    assert all(level.any() for level in with_targets["maps"])
    assert not any(level.any() for level in without["maps"])


def test_the_relational_loss_of_one_process_alone_would_be_another(tiny_models: dict[str, str]) -> None:
    model, maps, batch = model_and_batch(tiny_models["v8"])
    cut, levels = part(batch, maps, 0, 2)
    assert not torch.allclose(model._distillation_terms(maps, batch), model._distillation_terms(levels, cut))


# --- a whole training -------------------------------------------------------------------------------------------------


def test_two_processes_train_to_the_end_and_agree(folder: Path, both: Callable[[str], list[Any]]) -> None:
    first, second = both("final")
    learned = [name for name in first if "running_" not in name and "num_batches" not in name]
    assert any(name.startswith("translation") for name in learned)
    assert all(torch.equal(first[name], second[name]) for name in learned)
    assert load_checkpoint(folder / "train/weights/last.pt")["epoch"] == -1


def test_two_processes_leave_the_detector_as_it_is_together(both: Callable[[str], list[Any]]) -> None:
    for weights in both("epochs"):
        assert changed(weights, "model.") == [False, False, False, True, False]
        assert changed(weights, "translation.") == [True] * 5


def test_a_process_that_fails_ends_all_with_one_line(folder: Path) -> None:
    assert (folder / "error.txt").read_text() == (
        "every process of a training must reach its end; number 1 of 2 ended with code 1, its message stands above; "
        "run the same command again: it goes on after the last finished epoch"
    )
    assert "ValueError: no" in (folder / "errors.txt").read_text()


# --- how many ---------------------------------------------------------------------------------------------------------


def test_devices_are_counted_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[int] = []
    monkeypatch.setattr(resumable, "run_in_processes", lambda _, count: started.append(count))
    for device in ("0,1", [0, 1, 2]):
        train_to_end(DistillTrainer, model="yolov8n.yaml", run=tmp_path, arguments={"device": device}, resume=False)
    assert started == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"batch": 0.6},
            "Several devices need a batch of whole images, found batch=0.6; pass --batch, a multiple of the devices.",
        ),
        ({"rect": True}, "rect=True orders images for one device; leave it out, or name one device."),
    ],
)
def test_what_one_device_alone_can_do_is_refused_for_several(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainArgumentError) as error:
        train_to_end(
            DistillTrainer, model="yolov8n.yaml", run=tmp_path, arguments={"device": "0,1", **arguments}, resume=False
        )
    assert str(error.value) == message
