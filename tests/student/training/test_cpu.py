"""What makes a training quicker on a CPU changes what is computed by no more than rounding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.student.training import resumable
from mocha_pipe.student.training.cpu import LossInFloat32, multiplies_bfloat16

Run = Callable[..., Any]


class Loss:
    """Remembers what it was given."""

    weight = 0.5

    def __call__(self, predictions: Any, batch: dict[str, Any]) -> torch.Tensor:
        self.seen, self.batch = predictions, batch
        return nn.functional.linear(predictions["boxes"], torch.eye(3))


def test_the_loss_is_computed_in_float32_whatever_the_network_computes_in() -> None:
    inner = Loss()
    loss = LossInFloat32(inner)
    boxes, ids, batch = torch.rand(2, 3).bfloat16(), torch.tensor([1]), {"cls": 1}
    with torch.autocast("cpu", torch.bfloat16):
        value = loss({"boxes": boxes, "maps": [boxes, (boxes, ids)]}, batch)
    assert value.dtype == torch.float32
    assert torch.equal(value, boxes.float())
    first, (second, third) = inner.seen["maps"]
    assert (first.dtype, second.dtype, third.dtype) == (torch.float32, torch.float32, torch.int64)
    assert inner.batch is batch
    assert loss.weight == 0.5


@pytest.mark.parametrize(
    ("capabilities", "able"),
    [({"avx2": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True}, True)],
)
def test_bfloat16_is_for_cpus_that_have_it(
    capabilities: dict[str, bool], able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert multiplies_bfloat16() is able


def test_without_a_word_from_torch_float32_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert multiplies_bfloat16() is False


def test_a_run_in_bfloat16_repeats_and_its_student_is_plain_float(
    distil_tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "multiplies_bfloat16", lambda: True)
    dtypes = set()
    forward = nn.Conv2d.forward

    def note(layer: nn.Conv2d, image: torch.Tensor) -> torch.Tensor:
        out = forward(layer, image)
        if layer.training and torch.is_grad_enabled():
            dtypes.add(out.dtype)
        return out

    monkeypatch.setattr(nn.Conv2d, "forward", note)
    first, second = (distil_tiny(tmp_path / name, "v8", amp=True) for name in ("first", "second"))
    assert torch.bfloat16 in dtypes
    for file in ("student.pt", "translation.safetensors"):
        assert (first.folder / file).read_bytes() == (second.folder / file).read_bytes()
    weights = load_student(first.folder).detector.state_dict().values()
    assert all(value.is_contiguous() and torch.isfinite(value).all() for value in weights)
