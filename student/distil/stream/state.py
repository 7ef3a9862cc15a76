"""The state of a run within a streamed epoch, so that a killed run goes on by shard and not from the epoch's beginning.

ultralytics keeps checkpoints between epochs only, and an epoch of a large stream may last a day. So weights, their
average, optimizer and scaler are saved within the epoch too, together with the list of the shards that they have been
trained on, whenever shards were finished. A resumed run repeats at most the shards that were begun and not finished.
"""

import time
from pathlib import Path
from typing import Any

import torch

from mocha_pipe.data.files import atomic_path
from mocha_pipe.student.training.exact_resume import restore_training_state, training_state

STATE_FILE = "stream.pt"
SECONDS_BETWEEN = 120.0
"""Least time between two savings; saving a small detector takes a fraction of a second."""


class StreamKeeper:
    """Saves the state of a streamed epoch, and restores it where a run comes back to that epoch.

    Args:
        trainer: an ultralytics trainer whose `train_loader` is a `StreamLoader`.
    """

    def __init__(self, trainer: Any) -> None:
        self.path = Path(trainer.wdir) / STATE_FILE
        self._done: tuple[int, ...] = ()
        self._epoch = -1
        self._saved_at = time.monotonic()
        trainer.add_callback("on_train_start", self._restore)
        trainer.add_callback("on_train_epoch_start", self._begin)
        trainer.add_callback("on_train_batch_start", self._save)
        trainer.add_callback("on_model_save", self._drop)

    def _restore(self, trainer: Any) -> None:
        if not self.path.exists():
            return
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["epoch"] != trainer.start_epoch:  # killed between the epoch's checkpoint and the removal of this file
            return
        restore_training_state(trainer, state)
        trainer.ema.updates = state["updates"]
        trainer.scaler.load_state_dict(state["scaler"])
        trainer.exact_state = None  # that state is of the epoch's beginning
        self._epoch, self._done = state["epoch"], tuple(state["done"])

    def _begin(self, trainer: Any) -> None:
        trainer.train_loader.set_epoch(trainer.epoch, self._done if trainer.epoch == self._epoch else ())

    def _save(self, trainer: Any) -> None:
        """Called before a batch is trained on: the images that the loader counts so far have been learned."""
        done = trainer.train_loader.done
        news = trainer.epoch != self._epoch or len(done) > len(self._done)
        if not (news and done) or time.monotonic() - self._saved_at < SECONDS_BETWEEN:
            return
        with atomic_path(self.path) as temporary:
            state = {
                "epoch": trainer.epoch,
                "done": list(done),
                **training_state(trainer),
                "updates": trainer.ema.updates,
                "scaler": trainer.scaler.state_dict(),
            }
            torch.save(state, temporary)
        self._epoch, self._done = trainer.epoch, done
        self._saved_at = time.monotonic()

    def _drop(self, _trainer: Any) -> None:
        """Called when the epoch's own checkpoint is written."""
        self.path.unlink(missing_ok=True)
