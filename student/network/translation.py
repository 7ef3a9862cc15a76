"""The translation module: from a region's features to the teacher's target space (MOCHA, section 3, t_S).

Each region is translated on its own: channels are brought to zero mean and unit deviation, a residual feed-forward
block mixes them, and a linear map without bias ends in the target space. The paper's attention block sees one region
at a time, too. Attention over a single element is a linear map, so the feed-forward block is what remains of it.

Patches (features `fine`) first pass through two convolutions, whose mean and maximum over the box join the other
channels. A small detail, such as a sticker on a mug, shows in the maximum alone.

Deep features (deep.py) are mapped linearly instead: the map starts as the best one for the targets (ridge_start.py),
which a block in between would spoil. There the module holds the student's own last stage, and an embedding is what was
translated with the detector's own features beside it, each of unit length and those weighted by `KEPT_WEIGHT`.

Features `reference` take the authors' own module instead (reference_block.py).

Legend: N regions, C channels, F channels of a patch, G x G its cells, D target dimensions.
"""

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from mocha_pipe.student.network.deep import keep_statistics
from mocha_pipe.student.network.features import FeatureDims, FeatureMaps, RegionFeatures
from mocha_pipe.student.network.reference_block import LearnedScale, ReferenceBlock

_EXPANSION = 4
_PATCH_WIDTHS = (24, 128)
_REDUCED = 256
KEPT_WEIGHT = 2.0
"""Best at one photo each on held-out categories of photographs (docs/log.md)."""


def unit_length(rows_NC: Tensor, least: float = 1e-12) -> Tensor:
    """(N, C) rows at norm 1, or less where their norm is below `least`; a zero row stays zero.

    For what is exported: torch's `normalize` becomes ReduceL2, of which MNN takes all numbers at once from opset 18 on.
    """
    return rows_NC / rows_NC.square().sum(dim=1, keepdim=True).sqrt().clamp(min=least)


class FeedForward(nn.Module):
    """Residual block: x + W2 GELU(W1 LayerNorm(x))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, _EXPANSION * dim)
        self.activation = nn.GELU()
        self.contract = nn.Linear(_EXPANSION * dim, dim)

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        contracted: Tensor = self.contract(self.activation(self.expand(self.norm(x_NC))))
        return x_NC + contracted


class PatchEncoder(nn.Module):
    """(N, F, G, G) patches -> (N, 256): how much of each texture the box has on average, and how much at most."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = nn.BatchNorm2d(channels, affine=False)  # the convolution after it learns scale and shift
        self.convolutions = nn.Sequential(Conv(channels, _PATCH_WIDTHS[0], 3), Conv(*_PATCH_WIDTHS, 3, 2))

    def forward(self, patches_NFGG: Tensor) -> Tensor:
        """(N, F, G, G) float32 -> (N, 256) float32: means over the box, then maxima."""
        encoded: Tensor = self.convolutions(self.channels(patches_NFGG))
        return torch.cat([encoded.mean(dim=(2, 3)), encoded.amax(dim=(2, 3))], dim=1)


class TranslationModule(nn.Module):
    """Features of N regions -> (N, out_dim) embeddings in the teacher's target space; N may be 0 or 1.

    The per-channel mean and deviation are those of a batch normalisation: tracked from the data, and refined by a
    learned scale and shift. A batch of fewer than two regions has no deviation and is normalised by the tracked one.
    """

    def __init__(
        self, dims: FeatureDims, out_dim: int, stage: nn.Sequential | None = None, *, reference: bool = False
    ) -> None:
        """Random weights.

        Args:
            dims: widths of a region's features.
            out_dim: width of the targets, D.
            stage: the student's own last stage, by `last_stage`; for features `deep`.
            reference: the authors' module; for features `reference`.
        """
        super().__init__()
        self.dims = dims
        self.out_dim = out_dim
        self.stage = stage
        width = dims.means
        self.patches: PatchEncoder | None = None
        self.reduce: nn.Module = nn.Identity()
        if dims.patches:
            self.patches = PatchEncoder(dims.patches)
            width += 2 * _PATCH_WIDTHS[-1]
            self.reduce = nn.Linear(width, _REDUCED)
        self.channels: nn.Module = LearnedScale(width) if reference else nn.BatchNorm1d(width)
        width = _REDUCED if dims.patches else width
        self.mix: nn.Module = nn.Identity() if dims.kept else ReferenceBlock(width) if reference else FeedForward(width)
        self.project = nn.Linear(width, out_dim, bias=False)

    def forward(self, features: RegionFeatures) -> Tensor:
        """Features of widths `dims` -> (N, out_dim) float32."""
        x_NC = features.means
        lacks_statistics = self.training and len(x_NC) < 2
        if lacks_statistics:
            self.eval()
        if self.patches is not None:
            x_NC = torch.cat([x_NC, self.patches(features.patches)], dim=1)
        translated: Tensor = self.project(self.mix(self.reduce(self.channels(x_NC))))
        if lacks_statistics:
            self.train()
        return translated

    def own_maps(self, maps: FeatureMaps) -> FeatureMaps:
        """The maps with that of the student's own last stage behind the deep ones; others have none."""
        if self.stage is None:
            return maps
        return maps._replace(deep=[*maps.deep, self.stage(maps.deep[1].detach())])

    def embed(self, features: RegionFeatures) -> Tensor:
        """What prototypes are made of, (N, `embedding_dim`) float32."""
        translated: Tensor = self(features)
        if not self.dims.kept:
            return translated
        own = unit_length(features.means[:, : self.dims.kept])
        return torch.cat([unit_length(translated), KEPT_WEIGHT * own], dim=1)

    @property
    def embedding_dim(self) -> int:
        """Width of an embedding."""
        return self.out_dim + self.dims.kept

    def train(self, mode: bool = True) -> "TranslationModule":
        """Training mode; statistics that the start has set, and those of the copied stage, stay as they are."""
        super().train(mode)
        if self.stage is not None:
            self.channels.eval()
            keep_statistics(self.stage)
        return self
