"""Training in two processes over gloo: the loss of all regions, equal weights everywhere, failures in words."""

from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings, DistillSetup
from mocha_pipe.student.distil.trainer import DistillTrainer
from mocha_pipe.student.errors import TrainArgumentError, TrainingProcessError
from mocha_pipe.student.network.distill_model import DistillModel, gather_rows
from mocha_pipe.student.network.features import FeatureMaps
from mocha_pipe.student.network.student_files import load_checkpoint
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS
from mocha_pipe.student.training.processes import run_in_processes
from mocha_pipe.student.training.resumable import train_to_end

COUNTS = ((3, 5), (0, 4), (2, 2))
"""Rows of the two processes."""
DIM = 4


def rows_of(rank: int, counts: tuple[int, ...]) -> Tensor:
    return torch.randn(sum(counts), DIM, generator=torch.Generator().manual_seed(0)).split(counts)[rank]


def start_gloo() -> int:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    return dist.get_rank()


def gather_and_save(folder: Path) -> None:
    rank, found = start_gloo(), []
    for counts in COUNTS:
        mine = rows_of(rank, counts).requires_grad_()
        everybody = gather_rows(mine)
        (everybody.square() * weights_of(everybody)).sum().backward()
        found.append((everybody.detach(), mine.grad))
    torch.save(found, folder / f"{rank}.pt")


def weights_of(rows: Tensor) -> Tensor:
    return torch.arange(1.0, 1 + rows.numel()).view_as(rows)


def test_gathered_rows_are_those_of_all_ranks_and_gradients_find_their_way_back(tmp_path: Path) -> None:
    run_in_processes(partial(gather_and_save, tmp_path), 2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for counts, *found in zip(COUNTS, *results, strict=True):
        joint = torch.cat([rows_of(rank, counts) for rank in range(2)])
        assert all(torch.equal(rows, joint) for rows, _ in found)
        # Each of the two processes sent back its gradient of the same sum.
        gradient = torch.cat([gradient for _, gradient in found])
        torch.testing.assert_close(gradient, 2 * 2 * joint * weights_of(joint))


def test_alone_nothing_is_gathered() -> None:
    rows = rows_of(0, COUNTS[0])
    assert gather_rows(rows) is rows


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


def part(batch: dict[str, Tensor], maps: FeatureMaps, first: int, stop: int) -> tuple[dict[str, Tensor], FeatureMaps]:
    """The images first to stop of a batch."""
    mine = (batch["batch_idx"] >= first) & (batch["batch_idx"] < stop)
    boxes = {name: batch[name][mine] for name in ("rows", "bboxes", "targets")}
    cut = {**boxes, "batch_idx": batch["batch_idx"][mine] - first, "img": batch["img"][first:stop]}
    return cut, FeatureMaps(*([level[first:stop] for level in kind] for kind in maps))


def terms_and_gradients(model: DistillModel, maps: FeatureMaps, batch: dict[str, Tensor]) -> dict[str, Any]:
    maps = FeatureMaps(*([level.clone().requires_grad_() for level in kind] for kind in maps))
    terms = model._distillation_terms(maps, batch)
    (terms.sum() * len(batch["img"])).backward()
    return {
        "terms": terms.detach(),
        "maps": [level.grad for level in maps.pyramid],
        "translation": {name: value.grad for name, value in model.translation.named_parameters()},
        "buffers": dict(model.translation.named_buffers()),
    }


def save_part(file: str, folder: Path) -> None:
    rank = start_gloo()
    model, maps, batch = model_and_batch(file)
    cut, levels = part(batch, maps, *((0, 2) if rank == 0 else (2, 6)))
    torch.save(terms_and_gradients(model, levels, cut), folder / f"{rank}.pt")


def test_two_processes_have_the_loss_and_the_gradients_of_one_with_the_joint_batch(
    tiny_models: dict[str, str], tmp_path: Path
) -> None:
    run_in_processes(partial(save_part, tiny_models["v8"], tmp_path), 2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
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


def save_without_targets(file: str, folder: Path) -> None:
    rank = start_gloo()
    model, maps, batch = model_and_batch(file)
    if rank == 1:
        batch["rows"] = torch.full_like(batch["rows"], -1)
    torch.save(terms_and_gradients(model, maps, batch), folder / f"{rank}.pt")


def test_a_process_whose_batch_has_no_targets_does_not_keep_the_others_waiting(
    tiny_models: dict[str, str], tmp_path: Path
) -> None:
    run_in_processes(partial(save_without_targets, tiny_models["v8"], tmp_path), 2)
    with_targets, without = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    torch.testing.assert_close(with_targets["terms"], without["terms"])
    assert all(level.any() for level in with_targets["maps"])
    assert not any(level.any() for level in without["maps"])


def test_the_relational_loss_of_one_process_alone_would_be_another(tiny_models: dict[str, str]) -> None:
    model, maps, batch = model_and_batch(tiny_models["v8"])
    cut, levels = part(batch, maps, 0, 2)
    assert not torch.allclose(model._distillation_terms(maps, batch), model._distillation_terms(levels, cut))


@pytest.mark.parametrize("family", ["v8", "26"])
def test_two_processes_train_to_the_end_and_agree(
    family: str, train_source: DetectionSource, val_source: DetectionSource, make_targets: Any,
    helpers: SimpleNamespace, tiny_models: dict[str, str], tmp_path: Path,
) -> None:  # fmt: skip
    setup = DistillSetup(
        train=train_source, val=val_source, targets=make_targets(train_source),
        first_row=helpers.first_rows(train_source), settings=DistillSettings(),
    )  # fmt: skip
    arguments = {
        "epochs": 2, "imgsz": 64, "batch": 8, "plots": False, "device": "cpu", "model": tiny_models[family],
        "project": str(tmp_path), "name": "train", "exist_ok": True, **DEFAULT_TRAIN_ARGUMENTS,
    }  # fmt: skip
    run_in_processes(partial(train_and_save, setup, arguments, tmp_path), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    learned = [name for name in first if "running_" not in name and "num_batches" not in name]
    assert any(name.startswith("translation") for name in learned)
    assert all(torch.equal(first[name], second[name]) for name in learned)
    assert load_checkpoint(tmp_path / "train/weights/last.pt")["epoch"] == -1


def train_and_save(setup: DistillSetup, arguments: dict[str, Any], folder: Path) -> None:
    from ultralytics.utils import RANK
    from ultralytics.utils.torch_utils import unwrap_model

    trainer = DistillTrainer(setup, arguments)
    trainer.train()
    assert type(trainer.model).__name__ == "DistributedDataParallel"
    torch.save(unwrap_model(trainer.model).state_dict(), folder / f"{RANK}.pt")


def fail_on_one() -> None:
    if start_gloo() == 1:
        raise ValueError("no")
    dist.barrier()  # waits for the other, in vain


def test_a_process_that_fails_ends_all_with_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingProcessError) as error:
        run_in_processes(fail_on_one, 2)
    assert str(error.value) == (
        "every process of a training must reach its end; number 1 of 2 ended with code 1, its message stands above; "
        "run the same command again: it goes on after the last finished epoch"
    )
    assert "ValueError: no" in capfd.readouterr().err


def test_devices_are_counted_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[int] = []
    monkeypatch.setattr("mocha_pipe.student.training.pretrain.run_in_processes", lambda _, count: started.append(count))
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
