"""Exact PCA with whitening of the joint embedding: the paper's step from (h, z) to the target u'.

u = [h ; z |h| / |z|] for every region (paper, section 3.2: the visual embedding takes the norm of the hidden state).
u = z for a teacher without a language model, as it gives it.
mean = E[u],   C = E[(u - mean)(u - mean)^T] with divisor N - 1,   C = V diag(l) V^T,   l falling
u' = diag(l)^(-1/2) V_d^T (u - mean): over the regions of the cache it has mean 0 and covariance I.

Everything here is float64. Mean and covariance of a cache come from one pass over its shards. The moments of the shards
are merged without cancellation (Chan, Golub and LeVeque 1979), so the components are exact and not approximated step by
step.
Legend: N regions, n rows of one call, H width of h, Z width of z, J = H + Z, d width of a target.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.errors import ProjectionError
from mocha_pipe.teacher_cache.store.projection import Projection


def joint_embedding(hidden_nH: torch.Tensor, visual_nZ: torch.Tensor) -> torch.Tensor:
    """Row by row u = [h ; z |h| / |z|], float64 (n, J); a row with z = 0 keeps zeros there. Where H is 0, u = z."""
    hidden_nH, visual_nZ = hidden_nH.double(), visual_nZ.double()
    if hidden_nH.shape[1] == 0:
        return visual_nZ
    norm_h = torch.linalg.vector_norm(hidden_nH, dim=1, keepdim=True)
    norm_z = torch.linalg.vector_norm(visual_nZ, dim=1, keepdim=True)
    scale = torch.where(norm_z > 0, norm_h / torch.where(norm_z > 0, norm_z, 1.0), 0.0)
    return torch.cat([hidden_nH, visual_nZ * scale], dim=1)


def exact_device(device: str) -> str:
    """Where moments and eigenvectors are computed for a teacher on this device: MPS has no float64."""
    return "cpu" if torch.device(device).type == "mps" else device


class Moments:
    """Count, mean and scatter of joint embeddings, block by block; their order matters only in the last bits."""

    def __init__(self, joint_dim: int, device: str = "cpu") -> None:
        """Start empty, on a torch device."""
        self.count = 0
        self.mean_J = torch.zeros(joint_dim, dtype=torch.float64, device=device)
        self.scatter_JJ = torch.zeros(joint_dim, joint_dim, dtype=torch.float64, device=device)

    def add(self, joint_nJ: torch.Tensor) -> None:
        """Take n more rows in."""
        count = len(joint_nJ)
        mean_J = joint_nJ.mean(dim=0)
        centred_nJ = joint_nJ - mean_J
        shift_J = mean_J - self.mean_J
        total = self.count + count
        self.scatter_JJ.addmm_(centred_nJ.T, centred_nJ)
        self.scatter_JJ.addr_(shift_J, shift_J, alpha=self.count * count / total)
        self.mean_J += shift_J * (count / total)
        self.count = total


def fit_projection(moments: Moments, *, hidden_dim: int, dim: int) -> Projection:
    """Eigenvectors of the covariance of all regions of a cache, as many as `dim`, d, fixed in order and sign.

    Raises:
        ProjectionError: the embeddings vary in fewer than d directions.
    """
    eigenvalues_J, vectors_JJ = torch.linalg.eigh(moments.scatter_JJ / max(1, moments.count - 1))
    eigenvalues_J = eigenvalues_J.flip(0).clamp(min=0)
    _check_rank(eigenvalues_J, moments.count, dim)
    components_dJ = vectors_JJ.flip(1)[:, :dim].T
    largest_d1 = components_dJ.abs().argmax(dim=1, keepdim=True)
    components_dJ = components_dJ * components_dJ.gather(1, largest_d1).sign()
    return Projection(
        mean=moments.mean_J.cpu().numpy().copy(),
        components=np.ascontiguousarray(components_dJ.cpu().numpy()),
        eigenvalues=eigenvalues_J.cpu().numpy().copy(),
        hidden_dim=hidden_dim,
        rows=moments.count,
    )


def whiten(
    projection: Projection, hidden_nH: NDArray[Any], visual_nZ: NDArray[Any]
) -> NDArray[np.float32]:  # -> (n, d)
    """Whitened targets u' of a teacher's embeddings, of any floating type."""
    assert hidden_nH.shape[1] == projection.hidden_dim
    assert visual_nZ.shape[1] == len(projection.mean) - projection.hidden_dim
    joint_nJ = joint_embedding(torch.tensor(hidden_nH), torch.tensor(visual_nZ)).numpy()
    scores_nd = (joint_nJ - projection.mean) @ projection.components.T
    return np.asarray(scores_nd / np.sqrt(projection.eigenvalues[: projection.dim]), np.float32)


def _check_rank(eigenvalues_J: torch.Tensor, rows: int, dim: int) -> None:
    tolerance = eigenvalues_J[0] * max(len(eigenvalues_J), rows) * torch.finfo(torch.float64).eps
    rank = int((eigenvalues_J > tolerance).sum())
    if rank == 0:
        raise ProjectionError(
            f"a projection needs at least two different embeddings; the {rows} regions all have the same; "
            "use a data set with more regions: --data"
        )
    if dim > rank:
        raise ProjectionError(
            f"targets can have at most as many dimensions as the embeddings vary in; asked for {dim}, "
            f"but the {rows} regions vary in {rank}; pass --dim {rank} or less"
        )
