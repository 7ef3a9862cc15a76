"""A trainer whose stopped runs go on as if they never had been stopped, and whose runs repeat under their seed.

ultralytics' last.pt holds the averaged weights and the optimizer, in float16. What it lacks lies beside it in full
precision: the weights in training, their average, the optimizer, the gradients that wait for the next optimizer step,
and how many batches gave these gradients.

    weights/exact-7.pt    the state after epoch 7; it counts once that epoch's last.pt is there, which is written later

The order of the images and their augmentation follow from seed, epoch and image (seeded_order.py). So a resumed run
equals an uninterrupted one bit for bit where the device computes deterministically, but for one case: each loader
worker keeps the recent partners of its mosaics. With workers and without `cache=ram`, other partners may be drawn.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from mocha_pipe.data.files import atomic_path
from mocha_pipe.student.training.resumable import ResumableTrainer
from mocha_pipe.student.training.seeded_order import EpochBatches, seed_everything


class ExactTrainer(ResumableTrainer):
    """ultralytics' trainer with an order of its own, exact checkpoints and exact resuming."""

    def __init__(self, overrides: dict[str, Any]) -> None:
        self._batches_per_step, self._cadence_shift = 1, 0
        self._batches_waiting = 0  # batches whose gradients are summed up and not yet applied
        self._order: EpochBatches | None = None
        self.exact_state: dict[str, Any] | None = None
        """What the next epoch begins with, where the run was resumed."""
        super().__init__(overrides)
        self.add_callback("on_train_epoch_start", ExactTrainer._begin_epoch)
        self.add_callback("on_train_batch_start", ExactTrainer._count_batch)

    @property
    def accumulate(self) -> int:
        """Batches per optimizer step, as ultralytics' loop reads them.

        The loop steps when so many batches have passed since its last step. It counts too many after a resume, where it
        counts from the run's first batch, and after `apply_waiting`, a step of which it does not know. The shift makes
        up for these.
        """
        return self._batches_per_step + self._cadence_shift

    @accumulate.setter
    def accumulate(self, batches: int) -> None:
        self._batches_per_step = batches

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Ultralytics' loader; the training images come in our order."""
        loader = super().get_dataloader(dataset_path, batch_size=batch_size, rank=rank, mode=mode)
        if mode == "train":
            self._order = EpochBatches(
                len(loader.dataset),
                loader.batch_size,
                shuffle=not loader.dataset.rect,
                seed=self.args.seed,
                process=max(RANK, 0),
                processes=max(self.world_size, 1),
            )
            object.__setattr__(loader, "batch_sampler", self._order)  # a loader forbids it by the plain way
        return loader

    def optimizer_step(self) -> None:
        """One step, which applies all gradients that wait."""
        super().optimizer_step()
        self._batches_waiting = self._cadence_shift = 0

    def apply_waiting(self) -> None:
        """One optimizer step out of turn, where gradients wait; the loop's next step comes a full turn later."""
        if self._batches_waiting:
            shift = self._cadence_shift + self._batches_waiting
            self.optimizer_step()
            self._cadence_shift = shift

    def save_model(self) -> bool:
        """Write the exact state of the epoch, then ultralytics' checkpoints, which make it count."""
        parameters = unwrap_model(self.model).named_parameters()
        state = {
            **training_state(self),
            "gradients": {name: value.grad for name, value in parameters if value.grad is not None},
            "batches_waiting": self._batches_waiting,
        }
        path = _state_path(self.wdir, self.epoch)
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
        saved = super().save_model()
        _remove_states(self.wdir, but=path)
        return saved

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Go on from a checkpoint, exactly where its exact state is there."""
        super().resume_training(ckpt)
        if not (self.resume and ckpt):
            return
        if RANK in {-1, 0}:
            _forget_later_epochs(self.csv, self.start_epoch)
        path = _state_path(self.wdir, ckpt["epoch"])
        if path.is_file():
            self.exact_state = torch.load(path, map_location=self.device, weights_only=True)
            restore_training_state(self, self.exact_state)

    def final_eval(self) -> None:
        """Finish the run; nobody goes on from here."""
        super().final_eval()
        if RANK in {-1, 0}:
            _remove_states(self.wdir)

    def _begin_epoch(self) -> None:
        """Called before each epoch."""
        if self._order:
            self._order.epoch = self.epoch
        seed_everything(self.args.seed, self.epoch, RANK + 1)
        if self.exact_state is None:
            return
        # Only now, since the loop begins by clearing all gradients.
        waiting: dict[str, Tensor] = self.exact_state["gradients"]
        for name, parameter in unwrap_model(self.model).named_parameters():
            parameter.grad = waiting.get(name)
        self._batches_waiting = self.exact_state["batches_waiting"]
        self._cadence_shift = len(self.train_loader) * self.epoch - self._batches_waiting
        self.exact_state = None

    def _count_batch(self) -> None:
        self._batches_waiting += 1


def training_state(trainer: Any) -> dict[str, Any]:
    """Weights in training, their average and the optimizer of an ultralytics trainer, in full precision."""
    return {
        "model": unwrap_model(trainer.model).state_dict(),
        "average": trainer.ema.ema.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
    }


def restore_training_state(trainer: Any, state: dict[str, Any]) -> None:
    """Put back what `training_state` took."""
    unwrap_model(trainer.model).load_state_dict(state["model"])
    trainer.ema.ema.load_state_dict(state["average"])
    trainer.optimizer.load_state_dict(state["optimizer"])


def _state_path(folder: Path, epoch: int) -> Path:
    return folder / f"exact-{epoch}.pt"


def _remove_states(folder: Path, but: Path | None = None) -> None:
    for path in folder.glob("exact-*.pt"):
        if path != but:
            path.unlink(missing_ok=True)


def _forget_later_epochs(results: Path, num_epochs: int) -> None:
    """Drop the lines of a results.csv after its first epochs: that of an epoch that ended without its checkpoint."""
    if results.is_file():
        lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = lines[:1] + [line for line in lines[1:] if float(line.partition(",")[0]) <= num_epochs]
        if kept != lines:
            with atomic_path(results) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")
