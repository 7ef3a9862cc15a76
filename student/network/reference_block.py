"""The translation module as the authors of MOCHA built it, for features `reference`.

One attention block and one feed-forward block, each with a residual around its LayerNorm, between a learned mean and
deviation of every channel and a linear map without bias. Each region is a sequence of its own, so that attention is a
linear map of it (queries and keys have no effect, and no gradient), whatever the number of heads.

Legend: N regions, C channels.
"""

import torch
from torch import Tensor, nn

_EXPANSION = 4


class LearnedScale(nn.Module):
    """(x - mean) / deviation with both learned by gradient, channel by channel; at first x as it is."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dim))
        self.deviation = nn.Parameter(torch.ones(dim))

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        return (x_NC - self.mean) / self.deviation


class ReferenceBlock(nn.Module):
    """x = x0 + LayerNorm(attention(x0)), then x + LayerNorm(W2 ReLU(W1 x))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, num_heads=1)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, _EXPANSION * dim), nn.ReLU(), nn.Linear(_EXPANSION * dim, dim))
        self.feed_forward_norm = nn.LayerNorm(dim)

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        x_NC = x_NC + self.attention_norm(self._attend(x_NC))
        fed_NC: Tensor = self.feed_forward(x_NC)
        normal_NC: Tensor = self.feed_forward_norm(fed_NC)
        return x_NC + normal_NC

    def _attend(self, x_NC: Tensor) -> Tensor:
        """Attention of each region to itself alone: its weight is 1, so the value passes."""
        attention = self.attention
        values_NC = nn.functional.linear(x_NC, attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2])
        attended: Tensor = attention.out_proj(values_NC)
        return attended
