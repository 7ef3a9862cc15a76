"""A training run of ultralytics in `run/train/` that can be stopped anywhere; both stages of phase 2 are one.

- `weights/last.pt`: after every epoch, replaced whole; a stopped run goes on from it
- `weights/best.pt`: the epoch with the best mAP50-95 on the validation split
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import torch
import torch.distributed as dist
import ultralytics.engine.trainer
from torch import nn
from ultralytics.cfg import DEFAULT_CFG_DICT
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER, RANK, WORLD_SIZE
from ultralytics.utils.torch_utils import parse_device, strip_optimizer

from mocha_pipe.data.files import atomic_path
from mocha_pipe.student.environment import cpu_threads
from mocha_pipe.student.errors import TrainArgumentError
from mocha_pipe.student.network.student_files import load_checkpoint
from mocha_pipe.student.training.processes import run_in_processes, wrapped_for_cpu
from mocha_pipe.student.training.starting_model import find_model

_FINISHED = -1  # epoch of a checkpoint whose optimizer was dropped


class ResumableTrainer(DetectionTrainer):  # type: ignore[misc]  # ultralytics is untyped
    """ultralytics' trainer, with checkpoints that are never found in part, and all cores where it trains on the CPU."""

    def __init__(self, overrides: dict[str, Any]) -> None:
        super().__init__(overrides=overrides)
        if RANK >= 0 and self.device.type == "cpu":  # ultralytics counts processes by their GPUs
            self.world_size = WORLD_SIZE
        for event in ("on_train_start", "on_val_start"):
            self.add_callback(event, _use_all_cores)
        self.add_callback("on_train_start", _show_progress)

    def save_model(self) -> bool:
        """Writes last.pt and, where it is the best so far, best.pt; each replaces its predecessor whole."""
        last, best = self.wdir / "last.pt", self.wdir / "best.pt"
        self.last, self.best = self.wdir / ".last.pt", self.wdir / ".best.pt"
        try:
            saved = bool(super().save_model())
            for written, path in ((self.last, last), (self.best, best)):
                if written.exists():
                    with atomic_path(path) as temporary:
                        written.replace(temporary)
        finally:
            self.last, self.best = last, best
        return saved

    def final_eval(self) -> None:
        """Finishes the run without validating again: the figures of each checkpoint are in it."""
        if RANK in {-1, 0}:
            finish_run(self.wdir)

    def _setup_ddp(self) -> None:
        if self.device.type == "cpu":
            dist.init_process_group("gloo", rank=RANK, world_size=self.world_size)
        else:
            super()._setup_ddp()

    def _setup_train(self) -> None:
        with wrapped_for_cpu():
            super()._setup_train()


def train_to_end(
    make_trainer: Callable[[dict[str, Any]], ResumableTrainer],
    *,
    model: str,
    run: Path,
    arguments: Mapping[str, Any],
    resume: bool,
) -> Path:
    """Runs a trainer in `run/train/` from the start, or from where it stopped; returns that folder."""
    folder = run.resolve() / "train"
    last = folder / "weights" / "last.pt"
    overrides = {"project": str(folder.parent), "name": folder.name, "exist_ok": True, **arguments}
    if resume and last.exists():
        checkpoint = load_checkpoint(last)
        if checkpoint["epoch"] + 1 >= checkpoint["train_args"]["epochs"]:  # stopped between its last epoch and its end
            finish_run(last.parent)
            return folder
        if checkpoint["epoch"] == _FINISHED:
            return folder
        overrides.update(resume=str(last), save_dir=str(folder))
    else:
        overrides["model"] = find_model(model)
    run_one = partial(_train, make_trainer, overrides)
    count = num_devices(arguments)
    if count > 1:
        _check_for_several(arguments)
        run_in_processes(run_one, count)
    else:
        run_one()
    return folder


def _check_for_several(arguments: Mapping[str, Any]) -> None:
    """Raises TrainArgumentError for what one device alone can do."""
    batch = arguments.get("batch", DEFAULT_CFG_DICT["batch"])
    if batch < 1:
        raise TrainArgumentError(
            f"Several devices need a batch of whole images, found batch={batch}; "
            "pass --batch, a multiple of the devices."
        )
    if arguments.get("rect"):
        raise TrainArgumentError("rect=True orders images for one device; leave it out, or name one device.")


def num_devices(arguments: Mapping[str, Any]) -> int:
    """How many devices the training arguments name."""
    return len(parse_device(arguments.get("device", "")).split(","))


def _train(make_trainer: Callable[[dict[str, Any]], "ResumableTrainer"], overrides: dict[str, Any]) -> None:
    with quiet_ultralytics(), _own_threads():
        make_trainer(overrides).train()


def finish_run(weights: Path) -> None:
    """Drops the optimizer from best.pt and last.pt, in this order, which marks the run as finished."""
    for path in (weights / "best.pt", weights / "last.pt"):
        with quiet_ultralytics(), atomic_path(path) as temporary:
            strip_optimizer(path, s=str(temporary))


def read_metrics(weights: Path) -> dict[str, float]:
    """Validation metrics that a checkpoint of a run carries."""
    metrics = load_checkpoint(weights).get("train_metrics") or {}
    return {name: float(value) for name, value in metrics.items() if value is not None}


def amp_is_sound(model: nn.Module) -> bool:
    """Whether mixed precision gives finite predictions on this device; stands in for ultralytics' own check.

    Theirs compares two predictions of a model that it downloads for the purpose.
    """
    device = next(model.parameters()).device
    if device.type in {"cpu", "mps"}:
        return False
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    model.eval()  # the trainer sets its mode anew before each epoch
    with torch.no_grad(), torch.autocast(device.type):
        predictions: torch.Tensor = model(image)[0]
    return bool(torch.isfinite(predictions).all())


ultralytics.engine.trainer.check_amp = amp_is_sound


@contextmanager
def quiet_ultralytics() -> Iterator[None]:
    """Silences what ultralytics tells about itself; warnings, and the table of a training's epochs, still show."""
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def _show_progress(_trainer: ResumableTrainer) -> None:
    LOGGER.setLevel(logging.INFO)


def _use_all_cores(trainer_or_validator: Any) -> None:
    """On the CPU ultralytics leaves one core to its data loader, which there runs in the training process itself."""
    if trainer_or_validator.device.type == "cpu":
        torch.set_num_threads(max(1, cpu_threads() // WORLD_SIZE))


@contextmanager
def _own_threads() -> Iterator[None]:
    """Gives the process its number of threads back, which ultralytics changes."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
