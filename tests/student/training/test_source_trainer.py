"""What a trainer on sources says of them; test_trainer.py and test_head.py test the training."""

from types import SimpleNamespace
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest

from mocha_pipe.student.training.dataset import RegionDataset
from mocha_pipe.student.training.source_trainer import left_out


def fake_dataset(rows: list[int], unreadable: int, *, targets: bool = True) -> Any:
    """As far as `left_out` looks at one: a box of each row in one image, and images that cannot be decoded."""
    dataset = RegionDataset.__new__(RegionDataset)
    dataset.labels = [{"rows": np.array(rows).reshape(-1, 1)}]
    dataset.targets = object() if targets else None
    dataset.source = SimpleNamespace(records=[None] * (1 + unreadable))
    dataset._kept = [0]
    return dataset


@pytest.mark.parametrize(
    ("rows", "unreadable", "lines"),
    [
        ([0, 1, 2], 0, []),
        (
            [0, -1, -1, 3],
            0,
            ["2 of 4 regions have no target, set aside by the teacher cache; they count for detection only"],
        ),
        ([0, 1], 3, ["3 of 4 images cannot be decoded and are left out"]),
        (
            [-1],
            1,
            [
                "1 of 1 regions have no target, set aside by the teacher cache; they count for detection only",
                "1 of 2 images cannot be decoded and are left out",
            ],
        ),
    ],
)
def test_says_what_is_left_out(rows: list[int], unreadable: int, lines: list[str]) -> None:
    assert left_out(fake_dataset(rows, unreadable)) == lines


def test_validation_speaks_of_no_targets() -> None:
    assert left_out(fake_dataset([-1, -1], 0, targets=False)) == []
