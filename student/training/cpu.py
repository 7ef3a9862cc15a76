"""What makes a training quicker on a CPU: channels stored last and, where a user asks for it, bfloat16.

On one thread of an AVX-512 machine, forward and backward of YOLOv8n at 160 px take 0.85 of their time with channels
last, and 0.59 with bfloat16 as well (docs/log.md).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; without them it would be slower than float32."""
    capabilities: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 has none
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class LossInFloat32:
    """A detection loss on float32 predictions, whatever the network computes in.

    A box corner in bfloat16 has 8 bits: at 160 px it would be known to half a pixel.
    """

    def __init__(self, loss: Any) -> None:
        """`loss` is ultralytics' own, whose other methods stay within reach."""
        self._loss = loss

    def __call__(self, predictions: Any, batch: dict[str, Any]) -> Any:
        """The loss as ultralytics returns it."""
        with torch.autocast("cpu", enabled=False):
            return self._loss(_in_float32(predictions), batch)

    def __getattr__(self, name: str) -> Any:
        """For instance the schedule of the two heads' weights in YOLO26."""
        return getattr(self._loss, name)


def _in_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _in_float32(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_in_float32, value))
    return value
