"""A training run of ultralytics in `run/train/` that can be stopped anywhere and goes on from its last whole epoch.

- `weights/last.pt`: after every epoch, replaced whole; a stopped run goes on from it
- `weights/best.pt`: the epoch with the best mAP50-95 on the validation split
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import ultralytics.engine.trainer
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import strip_optimizer, unwrap_model

from mocha_pipe.data.files import atomic_path
from mocha_pipe.student.environment import cpu_threads
from mocha_pipe.student.network.student_files import load_checkpoint
from mocha_pipe.student.training.arguments import find_model, num_devices
from mocha_pipe.student.training.cpu import LossInFloat32, multiplies_bfloat16
from mocha_pipe.student.training.processes import run_in_processes

_FINISHED = -1  # epoch of a checkpoint whose optimizer was dropped


class ResumableTrainer(DetectionTrainer):  # type: ignore[misc]  # ultralytics is untyped
    """ultralytics' trainer, with checkpoints that are never found in part, and made quicker on a CPU (cpu.py).

    There it takes all cores, and mixed precision only where `amp` is given.
    """

    def __init__(self, overrides: dict[str, Any]) -> None:
        super().__init__(overrides=overrides)
        if self.device.type == "cpu" and "amp" not in overrides:
            self.args.amp = False
        for event in ("on_train_start", "on_val_start"):
            self.add_callback(event, _use_all_cores)
        self.add_callback("on_train_start", _show_progress)

    def build_optimizer(self, *arguments: Any, **named: Any) -> torch.optim.Optimizer:
        """Ultralytics' optimizer; Adam and AdamW in torch's fused form, which takes a third of the time on a CPU.

        SGD's fused form fails where some weights had their first gradient later than others, as by `alternate`.
        """
        optimizer: torch.optim.Optimizer = super().build_optimizer(*arguments, **named)
        if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            for group in optimizer.param_groups:
                group["fused"] = True
        return optimizer

    def _setup_train(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*GradScaler is enabled, but CUDA is not available")
            super()._setup_train()
        if self.device.type != "cpu":
            return
        model = unwrap_model(self.model)
        for weights in (model, self.ema.ema) if self.ema else (model,):
            weights.to(memory_format=torch.channels_last)
        if self.amp:
            model.criterion = LossInFloat32(model.init_criterion())

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device; on a CPU its images have their channels last."""
        batch = super().preprocess_batch(batch)
        if self.device.type == "cpu":
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

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


def train_to_end(
    make_trainer: Callable[[dict[str, Any]], ResumableTrainer],
    *,
    model: str,
    run: Path,
    arguments: Mapping[str, Any],
    resume: bool,
) -> Path:
    """Runs a trainer in `run/train/` from the start, or from where it stopped; returns that folder.

    Args:
        make_trainer: takes ultralytics' overrides; must pickle where several devices are named.
        model: a `.pt` file or a `.yaml`, as in `find_model`.
        run: folder of the run.
        arguments: of `yolo train`.
        resume: go on with a stopped run, and leave a finished one as it is; otherwise start anew.
    """
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
        # The device is asked for anew: the checkpoint names one that this machine may not have.
        overrides.update(resume=str(last), save_dir=str(folder), device=arguments.get("device", ""))
    else:
        overrides["model"] = find_model(model)
    run_one = partial(_train, make_trainer, overrides)
    count = num_devices(arguments)
    if count > 1:
        run_in_processes(run_one, count)
    else:
        run_one()
    return folder


def _train(make_trainer: Callable[[dict[str, Any]], ResumableTrainer], overrides: dict[str, Any]) -> None:
    threads = torch.get_num_threads()
    try:
        with quiet_ultralytics():
            make_trainer(overrides).train()
    finally:
        torch.set_num_threads(threads)  # which ultralytics changes


def finish_run(weights: Path) -> None:
    """Drops the optimizer from best.pt and last.pt, in this order, which marks the run as finished."""
    for path in (weights / "best.pt", weights / "last.pt"):
        with quiet_ultralytics(), atomic_path(path) as temporary:
            strip_optimizer(path, s=str(temporary))


def read_metrics(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """Validation metrics that a checkpoint of a run carries, named as in results.csv."""
    metrics = checkpoint.get("train_metrics") or {}
    return {name: float(value) for name, value in metrics.items() if value is not None}


def amp_is_sound(model: nn.Module) -> bool:
    """Whether mixed precision is quicker and gives finite predictions here; stands in for ultralytics' own check.

    Theirs compares two predictions of a model that it downloads for the purpose.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        return multiplies_bfloat16()
    if device.type == "mps":
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
        torch.set_num_threads(cpu_threads())
