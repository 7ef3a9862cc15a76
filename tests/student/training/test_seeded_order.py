"""Order and chance of training: functions of seed, epoch and image alone."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocha_pipe.student.training.seeded_order import EpochBatches, seed_everything


def epoch_of(batches: EpochBatches, images: int) -> list[tuple[int, int]]:
    """(epoch, image) of one epoch's codes."""
    codes = [code for batch in islice(iter(batches), len(batches.sampler)) for code in batch]
    return [divmod(code, images) for code in codes]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_every_epoch_has_every_image_once(images: int, batch: int, epoch: int, shuffle: bool) -> None:
    batches = EpochBatches(images, batch, shuffle=shuffle, seed=1)
    batches.epoch = epoch
    found = epoch_of(batches, images)
    assert sorted(image for _, image in found) == list(range(images))
    assert {number for number, _ in found} == {epoch}
    if not shuffle:
        assert [image for _, image in found] == list(range(images))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
def test_processes_share_an_epoch_evenly(images: int, batch: int, processes: int) -> None:
    parts = [
        epoch_of(EpochBatches(images, batch, shuffle=True, seed=2, process=i, processes=processes), images)
        for i in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    everything = [image for part in parts for _, image in part]
    assert set(everything) == set(range(images))
    assert len(everything) - images < processes


def test_an_iteration_goes_on_with_the_next_epoch_and_a_later_start_gives_the_same() -> None:
    batches = EpochBatches(10, 4, shuffle=True, seed=3)
    long = list(islice(iter(batches), 9))
    batches.epoch = 2
    assert list(islice(iter(batches), 3)) == long[6:]
    orders = [[code % 10 for batch in long[start : start + 3] for code in batch] for start in (0, 3, 6)]
    assert orders[0] != orders[1] != orders[2], "each epoch has an order of its own"


def test_another_seed_gives_another_order() -> None:
    first, second = (next(iter(EpochBatches(50, 50, shuffle=True, seed=seed))) for seed in (0, 1))
    assert first != second


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_same_parts_give_the_same_draws_in_every_generator() -> None:
    seed_everything(1, 2, 3)
    first = draws()
    seed_everything(1, 2, 3)
    assert draws() == first
    for other in ((1, 2, 4), (1, 3, 3), (2, 2, 3), (1, 2)):
        seed_everything(*other)
        assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_negative_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        seed_everything(-1)
