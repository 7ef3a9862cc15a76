"""From an image's feature maps to one vector per box.

The student describes a region by the mean of its feature maps inside the box, level by level, concatenated.
Levels `paper` are the maps that enter the Detect head (P3, P4, P5; MOCHA, arXiv 2509.14001, section 3). Levels `fine`,
the default, add the backbone's stride-4 map, which still holds the colour and texture that deeper levels threw away.

Legend: B images, N boxes, C channels of a level, H x W cells of a level, P most boxes of an image.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from student.errors import StudentModelError

FeatureLevels = Literal["fine", "paper"]
FEATURE_LEVELS: tuple[FeatureLevels, ...] = get_args(FeatureLevels)

_NO_FINE_LAYER = (
    "Levels 'fine' need a backbone with a stage at stride 4, as YOLOv8, 11 and 26 have; found none; "
    "pass --levels paper."
)
_SMALLEST_SIDE = 1e-2  # of a cell; float32 resolves it on maps up to some thousand cells wide


@contextmanager
def tap(detector: nn.Module, levels: FeatureLevels) -> Iterator[list[Tensor]]:
    """Collects the feature maps of every forward pass made inside the block.

    Nothing stays on the model afterwards, so that copies and checkpoints of it hold neither hooks nor maps.

    Args:
        detector: an ultralytics detection model (v8, 11, 26), in training or evaluation mode, fused or not.
        levels: which maps to collect.

    Yields:
        A list that each forward pass fills anew with its maps [(B, C, H, W)], finest first.
    """
    maps: list[Tensor] = []

    def start_with_fine(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        maps[:] = [output]

    def add_head_inputs(_head: nn.Module, inputs: tuple[list[Tensor]]) -> None:
        maps[1 if levels == "fine" else 0 :] = inputs[0]

    layers: Any = detector.model
    handles = [layers[-1].register_forward_pre_hook(add_head_inputs)]
    if levels == "fine":
        handles.append(layers[fine_layer(detector)].register_forward_hook(start_with_fine))
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def fine_layer(detector: nn.Module) -> int:
    """Index of the backbone's last layer at stride 4.

    Raises:
        StudentModelError: the backbone has none before stride 8.
    """
    stride = 1
    layers: Any = detector.model
    for index, layer in enumerate(layers):
        if any(isinstance(part, nn.Conv2d) and part.stride == (2, 2) for part in layer.modules()):
            stride *= 2
        if stride == 8:
            return index - 1
    raise StudentModelError(_NO_FINE_LAYER)


def feature_dim(detector: nn.Module, levels: FeatureLevels) -> int:
    """Width of a region's vector: the sum of the channels of its levels. Makes one small forward pass.

    Raises:
        StudentModelError: levels `fine`, and the backbone has no stage at stride 4.
    """
    weight = next(detector.parameters())
    channels = next(part.in_channels for part in detector.modules() if isinstance(part, nn.Conv2d))
    was_training = detector.training
    detector.eval()
    with torch.no_grad(), tap(detector, levels) as maps:
        detector(weight.new_zeros(1, channels, 256, 256))
    detector.train(was_training)
    if levels == "fine" and maps[0].shape[-1] != 64:
        raise StudentModelError(_NO_FINE_LAYER)
    return sum(level.shape[1] for level in maps)


def box_means(maps: Sequence[Tensor], batch_index: Tensor, xyxyn: Tensor) -> Tensor:
    """Mean of every map over the area of each box, with cells on the border counted by the share that the box covers.

    Computed in float32 outside autocast, differentiable in the maps. A box is clipped to the image; one thinner than a
    hundredth of a cell is widened to that, so that the mean of a degenerate box is the cell it lies in.

    Args:
        maps: [(B, C, H, W)] levels of one batch of images.
        batch_index: (N,) int64, the image of each box.
        xyxyn: (N, 4) corners as shares of the image that entered the network, 0..1.

    Returns:
        (N, sum of C) float32.
    """
    num_boxes = len(xyxyn)
    if num_boxes == 0:
        return torch.zeros(0, sum(level.shape[1] for level in maps), device=xyxyn.device)
    slot, num_slots = _slot_in_image(batch_index, num_images=maps[0].shape[0])  # (N,), P
    means = []
    with torch.autocast(xyxyn.device.type, enabled=False):
        for level in maps:
            height, width = level.shape[2:]
            weights_x = _overlap(xyxyn[:, 0], xyxyn[:, 2], width)  # (N, W)
            weights_y = _overlap(xyxyn[:, 1], xyxyn[:, 3], height)  # (N, H)
            weights = (weights_y[:, :, None] * weights_x[:, None, :]).flatten(1)  # (N, HW)
            padded = weights.new_zeros(level.shape[0], num_slots, height * width)  # (B, P, HW)
            padded[batch_index, slot] = weights
            cells = level.float().flatten(2).transpose(1, 2)  # (B, HW, C)
            means.append(torch.bmm(padded, cells)[batch_index, slot])  # (N, C)
    return torch.cat(means, dim=1)


def _slot_in_image(batch_index: Tensor, num_images: int) -> tuple[Tensor, int]:
    """Numbers the boxes of each image from 0; also the most boxes that an image has."""
    counts = torch.bincount(batch_index, minlength=num_images)  # (B,)
    order = torch.argsort(batch_index, stable=True)
    first = counts.cumsum(0) - counts
    slot = torch.empty_like(order)
    slot[order] = torch.arange(len(order), device=order.device) - first[batch_index[order]]
    return slot, int(counts.max())


def _overlap(low: Tensor, high: Tensor, num_cells: int) -> Tensor:
    """Share of each interval [low, high], given in 0..1, that falls on each of the cells of an axis: (N, cells)."""
    low, high = (side.float().clamp(0, 1) * num_cells for side in (low, high))
    low = low.clamp(max=num_cells - _SMALLEST_SIDE)
    high = torch.maximum(high, low + _SMALLEST_SIDE)
    cell = torch.arange(num_cells, device=low.device)
    covered = torch.minimum(high[:, None], cell + 1) - torch.maximum(low[:, None], cell)
    return covered.clamp(min=0) / (high - low)[:, None]
