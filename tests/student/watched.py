"""A distillation that notes what it does, for tests of the schedule and of several processes."""

from itertools import pairwise
from typing import Any

import mocha_pipe.student.training  # noqa: F401  (prepares the environment)

# isort: split

import torch
from torch import Tensor
from ultralytics.utils.torch_utils import unwrap_model

from mocha_pipe.student.distil.settings import DistillSetup
from mocha_pipe.student.distil.trainer import DistillTrainer


class Watched(DistillTrainer):
    """Notes the weights before each epoch and after the last, and after how many batches each optimizer step came."""

    def __init__(self, setup: DistillSetup, overrides: dict[str, Any]) -> None:
        super().__init__(setup, overrides)
        self.weights: list[dict[str, Tensor]] = []
        self.averages: list[dict[str, Tensor]] = []
        self.steps: list[int] = []
        self.gradients: list[bool] = []
        """For each step, whether the detector had any."""
        self.num_batches = 0
        self.add_callback("on_train_start", Watched.note)
        self.add_callback("on_train_batch_start", Watched.count)
        self.add_callback("on_fit_epoch_end", Watched.note)

    def note(self) -> None:
        for states, model in ((self.weights, unwrap_model(self.model)), (self.averages, self.ema.ema)):
            states.append({name: value.clone() for name, value in model.state_dict().items()})

    def count(self) -> None:
        self.num_batches += 1

    def optimizer_step(self) -> None:
        self.steps.append(self.num_batches)
        self.gradients.append(any(value.grad is not None for value in unwrap_model(self.model).model.parameters()))
        super().optimizer_step()


def changed(states: list[dict[str, Tensor]], part: str) -> list[bool]:
    """For each epoch, whether parameters or statistics whose name starts so are other ones after it than before."""
    return [
        any(not torch.equal(value, after[name]) for name, value in before.items() if name.startswith(part))
        for before, after in pairwise(states)
    ]
