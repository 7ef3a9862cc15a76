"""Features `deep`: the end of the backbone, which tells things on photographs apart where the neck has forgotten.

Three maps of the detector are read as they are: the ends of the backbone's last three stages (strides 8, 16 and 32;
layers 4, 6 and 9 of YOLOv8). A student adds a fourth, of a last stage of its own: a copy of the layers between the last
two, which learns while the detector stays as it is. A region takes maxima of the detector's own maps, which on
photographs is what carries, from the middle of its box alone, where less of what stands behind it shows; and of the
whole box the mean of the second map, and mean and maximum of the fourth (docs/log.md).

Legend: B images, N boxes, C channels of a level, H x W its cells.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool  # type: ignore[import-untyped]

from mocha_pipe.student.errors import StudentModelError

MARGIN = 0.2
"""Share of a box that is left out at each side for the detector's own maxima; best on held-out photographs."""


def deep_layers(detector: nn.Module) -> list[int]:
    """Indexes of the layers at which the backbone's last three stages end.

    Raises:
        StudentModelError: it has fewer.
    """
    last = {stride: index for index, stride in layer_strides(_backbone(detector))}
    if len(last) < 3:
        raise StudentModelError(
            f"Features 'deep' need a backbone of three stages, found {len(last)}; pass --features paper."
        )
    return [last[stride] for stride in sorted(last)[-3:]]


def layer_strides(layers: Iterable[nn.Module]) -> Iterator[tuple[int, int]]:
    """Index and stride of each of the layers that follow one another from the image on."""
    stride = 1
    for index, layer in enumerate(layers):
        for part in layer.modules():
            if isinstance(part, nn.Conv2d):
                stride *= part.stride[0]
            elif isinstance(part, nn.MaxPool2d):  # of v3-tiny
                stride *= part.stride if isinstance(part.stride, int) else part.stride[0]
        yield index, stride


def last_stage(detector: nn.Module) -> nn.Sequential:
    """A copy of the layers of the last stage, which learns.

    Raises:
        StudentModelError: they do not follow one another in a row.
    """
    *_, begin, end = deep_layers(detector)
    layers = _backbone(detector)[begin + 1 : end + 1]
    if any(layer.f != -1 for layer in layers):
        raise StudentModelError(
            "Features 'deep' need a backbone whose layers follow one another, as most YOLO detectors have; found one "
            "that branches; pass --features paper."
        )
    return nn.Sequential(*deepcopy(layers)).requires_grad_(True)


def keep_statistics(layers: nn.Module) -> None:
    """Put all batch normalisation in evaluation mode, until `train()` or `eval()` sets the mode of the model anew."""
    for part in layers.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def deep_dims(maps: Sequence[Tensor]) -> tuple[int, int]:
    """Channels of `deep_features` for the detector's three maps, and how many of them are the detector's own maxima."""
    fine, middle, last = (level.shape[1] for level in maps)
    return fine + 2 * middle + 3 * last, fine + middle + last


def deep_features(maps: Sequence[Tensor], batch_index: Tensor, xyxyn: Tensor, means: Sequence[Tensor]) -> Tensor:
    """(N, C) float32: the detector's own maxima first, which join the embedding as they are.

    Args:
        maps: [(B, C, H, W)] the four of one batch of images.
        batch_index: (N,) int64, the image of each box.
        xyxyn: (N, 4) corners as shares of the image, 0..1.
        means: [(N, C of a level)] of the second and the fourth over the boxes.
    """
    own = box_maxima(maps[:3], batch_index, middle(xyxyn))
    return torch.cat([*own, *means, *box_maxima(maps[3:], batch_index, xyxyn)], dim=1)


def middle(xyxyn: Tensor) -> Tensor:
    """Boxes (N, 4), clipped to the image, less their margins."""
    low, high = xyxyn.float().clamp(0, 1).chunk(2, dim=1)
    margin = MARGIN * (high - low)
    return torch.cat([low + margin, high - margin], dim=1)


def box_maxima(maps: Sequence[Tensor], batch_index: Tensor, xyxyn: Tensor) -> list[Tensor]:
    """Maximum of every map over the cells whose centres lie in each box; of a box between centres over its one cell.

    Args:
        maps: [(B, C, H, W)] levels of one batch of images.
        batch_index: (N,) int64, the image of each box.
        xyxyn: (N, 4) corners as shares of the image, 0..1.

    Returns:
        [(N, C)] float32, differentiable in the maps.
    """
    maxima = []
    with torch.autocast(xyxyn.device.type, enabled=False):
        for level in maps:
            cells = xyxyn.new_tensor([level.shape[3], level.shape[2]] * 2)
            corners = xyxyn.float().clamp(0, 1) * cells
            low = torch.minimum(corners[:, :2], cells[:2] - 1)  # torchvision counts the cell of the far corner in
            rows = torch.cat([batch_index[:, None].to(corners), low, corners[:, 2:] - 1], dim=1)
            maxima.append(roi_pool(level.float(), rows, output_size=1).flatten(1))
    return maxima


def _backbone(detector: nn.Module) -> list[Any]:
    layers: Any = detector.model
    about: Any = detector.yaml
    return list(layers[: len(about["backbone"])])
