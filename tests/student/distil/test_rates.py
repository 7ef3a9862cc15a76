"""Each part learns at its own rate, whatever the optimizer."""

from types import SimpleNamespace
from typing import Any

import mocha_pipe.student.training  # noqa: F401  (prepares the environment)

# isort: split

import pytest
import torch
from torch import nn
from ultralytics.engine.trainer import BaseTrainer

from mocha_pipe.student.distil.rates import set_rates


class Student(nn.Module):
    """Two layers and a head as the detector's, and something new."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        self.translation = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))


def optimizer_of(name: str, student: nn.Module) -> torch.optim.Optimizer:
    trainer: Any = SimpleNamespace(args=SimpleNamespace(lr0=0.5, warmup_bias_lr=0.0), data={"nc": 2})
    built: torch.optim.Optimizer = BaseTrainer.build_optimizer(trainer, student, name, 0.5, 0.9, 0.25)
    return built


def rates(optimizer: torch.optim.Optimizer, student: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, by its name."""
    names = {id(weight): name for name, weight in student.named_parameters()}
    groups = optimizer.param_groups
    return {names[id(weight)]: (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD", "RMSprop", "auto"])
def test_the_detector_has_a_share_of_rate_and_decay_and_its_head_no_decay(name: str) -> None:
    student = Student()
    optimizer = optimizer_of(name, student)
    before = rates(optimizer, student)
    set_rates(optimizer, student.model, 0.1)
    after = rates(optimizer, student)
    assert after.keys() == before.keys() == dict(student.named_parameters()).keys()
    for weight, (rate, decay) in before.items():
        share = 0.1 if weight.startswith("model.") else 1.0
        assert after[weight] == pytest.approx((share * rate, 0 if weight.startswith("model.2") else share * decay))
    assert before["model.0.weight"][1] > 0, "there was a decay to share"


def test_a_step_of_sgd_moves_each_part_by_its_rate() -> None:
    student = Student()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    set_rates(optimizer, student.model, 0.01)
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    for weight in student.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    for name, weight in student.named_parameters():
        step = 0.005 if name.startswith("model.") else 0.5
        torch.testing.assert_close(before[name] - weight, torch.full_like(weight, step), rtol=0, atol=1e-6)
