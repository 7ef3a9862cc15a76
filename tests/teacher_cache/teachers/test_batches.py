"""How inputs travel to a device."""

from typing import Any

import pytest
import torch

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.batches import forward_pass, send
from mocha_pipe.teacher_cache.teachers.vlm.questions import to_device


class Parcel:
    """Stands for a tensor, and notes what is done with it."""

    def __init__(self) -> None:
        self.way: list[str] = []

    def pin_memory(self) -> "Parcel":
        self.way.append("pinned")
        return self

    def to(self, device: torch.device, *, non_blocking: bool) -> "Parcel":
        self.way.append(f"{device.type}, {'nobody waits' if non_blocking else 'waits'}")
        return self


@pytest.mark.parametrize(
    ("device", "way"), [("cpu", ["cpu, nobody waits"]), ("cuda", ["pinned", "cuda, nobody waits"])]
)
def test_only_what_goes_to_cuda_is_pinned(device: str, way: list[str]) -> None:
    parcel: Any = Parcel()
    assert send(parcel, torch.device(device)).way == way  # type: ignore[attr-defined]


def test_numbers_of_pixels_take_the_type_of_the_model_and_ids_keep_theirs() -> None:
    inputs = {"pixel_values": torch.ones(2, 3), "input_ids": torch.tensor([[1, 2]]), "sizes": [[3, 3]]}
    moved = to_device(inputs, torch.device("cpu"), torch.bfloat16)
    assert moved["pixel_values"].dtype == torch.bfloat16
    assert moved["input_ids"].dtype == torch.int64
    assert moved["sizes"] == [[3, 3]]


def test_float32_stays_float32_in_convolutions_and_afterwards_all_is_as_it_was() -> None:
    cudnn = torch.backends.cudnn
    assert cudnn.allow_tf32, "torch's default"
    with forward_pass(4):
        assert not cudnn.allow_tf32
    assert cudnn.allow_tf32
    with pytest.raises(TeacherError, match="4 regions do not; pass --batch 2"), forward_pass(4):
        raise torch.OutOfMemoryError
    assert cudnn.allow_tf32
