"""The translation module: from a region's feature-map means to the teacher's target space (MOCHA, section 3, t_S).

Each region is translated on its own: channels are brought to zero mean and unit deviation, a residual feed-forward
block mixes them, and a linear map without bias ends in the target space. (The paper's attention block sees one region
at a time, which makes it a linear map; the feed-forward block is what remains of it.)

Legend: N regions, C channels, D target dimensions.
"""

from torch import Tensor, nn

_EXPANSION = 4


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


class TranslationModule(nn.Module):
    """(N, in_dim) region features -> (N, out_dim) embeddings in the teacher's target space; N may be 0 or 1.

    The per-channel mean and deviation are those of a batch normalisation: tracked from the data, and refined by a
    learned scale and shift. A batch of fewer than two regions has no deviation and is normalised by the tracked one.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.channels = nn.BatchNorm1d(in_dim)
        self.mix = FeedForward(in_dim)
        self.project = nn.Linear(in_dim, out_dim, bias=False)

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N, in_dim) float32 -> (N, out_dim) float32."""
        if self.training and len(x_NC) < 2:
            normal = nn.functional.batch_norm(
                x_NC,
                self.channels.running_mean,
                self.channels.running_var,
                self.channels.weight,
                self.channels.bias,
                eps=self.channels.eps,
            )
        else:
            normal = self.channels(x_NC)
        projected: Tensor = self.project(self.mix(normal))
        return projected
