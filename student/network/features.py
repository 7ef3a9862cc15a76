"""From an image's feature maps to the features of its boxes.

Features `paper` are the means, inside the box, of the maps that enter the Detect head (P3, P4 and P5 of most, P2 or P6
too of some, two of v3-tiny; MOCHA, arXiv 2509.14001, section 3). Features `fine`, made for small drawn things, add
patches: the backbone's maps at stride 2 and 4, sampled on a 12 x 12 grid in the box. They still hold the colour and
texture that deeper levels threw away, and where these lie. No gradient flows back through patches: it costs time and
changed nothing that was measured (docs/log.md). Features `deep`, the default, are for photographs: means and maxima of
the end of the backbone (deep.py).
Features `reference` are the paper's as its authors' code takes them: means over whole cells (`whole_cells`).

Legend: B images, N boxes, C channels of a level, F channels of the fine maps together, H x W cells of a level,
G = GRID cells along a side of a patch, P most boxes of an image.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from mocha_pipe.student.choices import FeatureSet
from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.network.deep import deep_dims, deep_features, deep_layers, layer_strides

GRID = 12
"""Cells along a side of a patch; the box of an object 48 pixels wide has 12 cells at stride 4."""

AxisShares = Callable[[Tensor, Tensor, int], Tensor]
"""Low and high ends (N,) as shares of an axis, and its number of cells -> (N, cells), rows that sum to 1."""

_FINE_STRIDES = (2, 4)
_SMALLEST_SIDE = 1e-2  # of a cell; float32 resolves it on maps up to some thousand cells wide


class FeatureMaps(NamedTuple):
    """Maps of one forward pass, each list finest first."""

    fine: list[Tensor]  # [(B, C, H, W)], strides 2 and 4; empty for features `paper`
    pyramid: list[Tensor]  # [(B, C, H, W)], what enters the Detect head
    deep: Sequence[Tensor] = ()
    """[(B, C, H, W)], the ends of the backbone's last three stages, then that of the student's own; features `deep`."""
    whole_cells: bool = False
    """Whether means are over whole cells, as in features `reference`."""


class RegionFeatures(NamedTuple):
    """What is known of N regions before translation, float32."""

    means: Tensor  # (N, C); by features `deep` maxima too (deep_features)
    patches: Tensor  # (N, F, G, G); F is 0 but for features `fine`


class FeatureDims(NamedTuple):
    """Channels of a region's features."""

    means: int
    """Means and maxima, C."""
    patches: int
    """Sum of the fine maps' channels, F."""
    kept: int = 0
    """So many of the first C are the detector's own and join the embedding as they are; 0 but for features `deep`."""


@contextmanager
def tap(detector: nn.Module, features: FeatureSet) -> Iterator[FeatureMaps]:
    """Collects the feature maps of every forward pass made inside the block.

    Nothing stays on the model afterwards, so that copies and checkpoints of it hold neither hooks nor maps.

    Args:
        detector: an ultralytics detection model, in training or evaluation mode, fused or not.
        features: which maps to collect.

    Yields:
        Lists that each forward pass fills anew.
    """
    deep: list[Tensor] = []
    maps = FeatureMaps([], [], deep, features == "reference")

    def keep(kept: list[Tensor], place: int, _layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        kept[place:] = [output]

    def keep_head_inputs(_head: nn.Module, inputs: tuple[list[Tensor]]) -> None:
        maps.pyramid[:] = inputs[0]

    layers: Any = detector.model
    handles = [layers[-1].register_forward_pre_hook(keep_head_inputs)]
    if features == "fine":
        for place, layer in enumerate(fine_layers(detector)):
            handles.append(layers[layer].register_forward_hook(partial(keep, maps.fine, place)))
    if features == "deep":
        for place, layer in enumerate(deep_layers(detector)):
            handles.append(layers[layer].register_forward_hook(partial(keep, deep, place)))
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def fine_layers(detector: nn.Module) -> list[int]:
    """Indexes of the backbone's last layers at stride 2 and at stride 4.

    Raises:
        StudentModelError: the backbone has no layer at one of them before stride 8.
    """
    stride = 1
    last: dict[int, int] = {}
    layers: Any = detector.model
    for index, stride in layer_strides(layers):
        if stride >= 8:
            break
        last[stride] = index
    if stride < 8 or not set(_FINE_STRIDES) <= set(last):
        raise StudentModelError(
            "Features 'fine' need a backbone with stages at strides 2 and 4, as most YOLO detectors have; found none; "
            "pass --features paper."
        )
    return [last[stride] for stride in _FINE_STRIDES]


def feature_dims(detector: nn.Module, features: FeatureSet) -> FeatureDims:
    """Channels of a region's features, read from the model by one small forward pass.

    Raises:
        StudentModelError: features `fine`, and the backbone lacks a stage at stride 2 or 4.
    """
    weight = next(detector.parameters())
    channels = next(part.in_channels for part in detector.modules() if isinstance(part, nn.Conv2d))
    was_training = detector.training
    detector.eval()
    with torch.no_grad(), tap(detector, features) as maps:
        detector(weight.new_zeros(1, channels, 64, 64))
    detector.train(was_training)
    if maps.deep:
        width, kept = deep_dims(maps.deep)
        return FeatureDims(width, 0, kept)
    return FeatureDims(*(sum(level.shape[1] for level in levels) for levels in (maps.pyramid, maps.fine)))


def region_features(maps: FeatureMaps, batch_index: Tensor, xyxyn: Tensor) -> RegionFeatures:
    """The pyramid's means over each box and the patches of the fine maps, without a gradient; or the deep features.

    Computed in float32 outside autocast, differentiable in the pyramid and in the student's own deep map.

    Args:
        maps: of one batch of images.
        batch_index: (N,) int64, the image of each box.
        xyxyn: (N, 4) corners as shares of the image that entered the network, 0..1.
    """
    slots = box_slots(batch_index, num_images=len((maps.deep or maps.pyramid)[0]))
    if maps.deep:
        levels = [*(level.detach() for level in maps.deep[:3]), maps.deep[3]]
        means_of_two = [box_means([level], slots, xyxyn) for level in levels[1::2]]
        deep = deep_features(levels, batch_index, xyxyn, means_of_two)
        return RegionFeatures(deep, deep.new_zeros(len(deep), 0, GRID, GRID))
    means = box_means(maps.pyramid, slots, xyxyn, whole_cells if maps.whole_cells else axis_overlap)
    if not maps.fine:
        return RegionFeatures(means, means.new_zeros(len(means), 0, GRID, GRID))
    return RegionFeatures(means, box_patches([level.detach() for level in maps.fine], slots, xyxyn))


class BoxSlots(NamedTuple):
    """Where the boxes of a batch lie in a tensor (B, P, ...) that has P places for the boxes of each image."""

    image: Tensor  # (N,) int64
    place: Tensor  # (N,) int64
    shape: tuple[int, int]  # B, P

    def spread(self, values: Tensor) -> Tensor:
        """(N, ...) -> (B, P, ...), with zeros where an image has fewer boxes."""
        padded = values.new_zeros(*self.shape, *values.shape[1:])
        padded[self.image, self.place] = values
        return padded


def box_slots(batch_index: Tensor, num_images: int) -> BoxSlots:
    """Numbers the boxes of each image from 0, in their order.

    Args:
        batch_index: (N,) int64, the image of each box.
        num_images: B.
    """
    counts = torch.bincount(batch_index, minlength=num_images)  # (B,)
    order = torch.argsort(batch_index, stable=True)
    first = counts.cumsum(0) - counts
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first[batch_index[order]]
    return BoxSlots(batch_index, place, (num_images, int(counts.max())))


def box_patches(maps: Sequence[Tensor], slots: BoxSlots, xyxyn: Tensor) -> Tensor:
    """Every map on a G x G grid in each box, read bilinearly at the centre of a cell (RoIAlign, arXiv 1703.06870).

    Args:
        maps: [(B, C, H, W)] levels of one batch of images.
        slots: the image of each box.
        xyxyn: (N, 4) corners as shares of the image, 0..1.

    Returns:
        (N, F, G, G) float32.
    """
    patches = []
    with torch.autocast(xyxyn.device.type, enabled=False):
        points = slots.spread(cell_centres(xyxyn)).flatten(1, 2)  # (B, P G, G, 2)
        for level in maps:  # torchvision's RoIAlign would copy maps that lie channels last in memory
            sampled = grid_sample(level.float(), points, padding_mode="border", align_corners=False)  # (B, C, P G, G)
            by_box = sampled.view(*sampled.shape[:2], slots.shape[1], GRID, GRID)  # (B, C, P, G, G)
            patches.append(by_box[slots.image, :, slots.place])  # (N, C, G, G)
    return torch.cat(patches, dim=1)


def cell_centres(xyxyn: Tensor) -> Tensor:
    """Centres of each box's cells, (N, G, G, 2): x and y, -1..1 from edge to edge of the image, which clips the box."""
    low, high = xyxyn.float().clamp(0, 1).chunk(2, dim=1)  # (N, 2) each
    steps = (torch.arange(GRID, device=xyxyn.device) + 0.5) / GRID
    x, y = (low[:, None] + steps[:, None] * (high - low)[:, None]).unbind(dim=2)  # (N, G) each
    return torch.stack([x[:, None, :].expand(-1, GRID, -1), y[:, :, None].expand(-1, -1, GRID)], dim=3) * 2 - 1


def box_means(maps: Sequence[Tensor], slots: BoxSlots, xyxyn: Tensor, shares: AxisShares | None = None) -> Tensor:
    """Mean of every map over the area of each box, with cells on the border counted by the share that the box covers.

    Computed in float32 outside autocast, differentiable in the maps. A box is clipped to the image; one thinner than a
    hundredth of a cell is widened to that, so that the mean of a degenerate box is the cell it lies in.

    Args:
        maps: [(B, C, H, W)] levels of one batch of images.
        slots: the image of each box.
        xyxyn: (N, 4) corners as shares of the image, 0..1.
        shares: how much each cell of an axis counts; `axis_overlap` when not given.

    Returns:
        (N, sum of C) float32.
    """
    if len(xyxyn) == 0:
        return torch.cat([level[:0, :, 0, 0].float() for level in maps], dim=1)  # on the graph of the maps
    means, shares = [], shares or axis_overlap
    with torch.autocast(xyxyn.device.type, enabled=False):
        for level in maps:
            height, width = level.shape[2:]
            weights_x = shares(xyxyn[:, 0], xyxyn[:, 2], width)  # (N, W)
            weights_y = shares(xyxyn[:, 1], xyxyn[:, 3], height)  # (N, H)
            weights = slots.spread((weights_y[:, :, None] * weights_x[:, None, :]).flatten(1))  # (B, P, HW)
            # In this order the gradient has the layout of the maps; the other slows every convolution before them.
            products = torch.bmm(level.float().flatten(2), weights.transpose(1, 2))  # (B, C, P)
            means.append(products[slots.image, :, slots.place])  # (N, C)
    return torch.cat(means, dim=1)


def axis_overlap(low: Tensor, high: Tensor, num_cells: int) -> Tensor:
    """Share of each interval [low, high], given in 0..1, that falls on each of the cells of an axis: (N, cells)."""
    low, high = (side.float().clamp(0, 1) * num_cells for side in (low, high))
    low = low.clamp(max=num_cells - _SMALLEST_SIDE)
    high = torch.maximum(high, low + _SMALLEST_SIDE)
    cell = torch.arange(num_cells, device=low.device)
    covered = torch.minimum(high[:, None], cell + 1) - torch.maximum(low[:, None], cell)
    return covered.clamp(min=0) / (high - low)[:, None]


def whole_cells(low: Tensor, high: Tensor, num_cells: int) -> Tensor:
    """Equal shares of the cells from the one that `low` lies in to the one behind `high`: (N, cells).

    As the authors' code slices a map: cells floor(low) to ceil(high), both included, of which those on the map count.
    That is one or two cells too many at the far end. Arguments as in `axis_overlap`.
    """
    low, high = (side.float().clamp(0, 1) * num_cells for side in (low, high))
    cell = torch.arange(num_cells, device=low.device)
    first = low.floor().clamp(max=num_cells - 1)
    inside = ((cell >= first[:, None]) & (cell <= high.ceil()[:, None])).float()
    return inside / inside.sum(dim=1, keepdim=True)
