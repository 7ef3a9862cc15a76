"""Regions of all processes in one loss."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks, with gradients that flow back to where a row came from.

    Every process must call it, also without a row of its own. Alone it returns its argument.

    Args:
        rows: (N, ...); N may differ between processes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = nn.functional.pad(rows, (0, 0) * (rows.ndim - 1) + (0, longest - len(rows)))
    parts: tuple[Tensor, ...] = all_gather(padded)  # type: ignore[no-untyped-call]
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
