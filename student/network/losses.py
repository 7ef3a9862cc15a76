"""The two distillation losses of MOCHA (arXiv 2509.14001, section 3): where a region lies, and how far from the others.

objectives.py has alternatives to them.

Legend: N regions of the batch, D target dimensions; x is the student's, y the teacher's. No gradient flows into y.
"""

import torch
from torch import Tensor


def local_alignment_loss(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """L_dist = mean((x - y)^2) + mean(|x - y|), a scalar; 0 where there is no region."""
    if len(x_ND) == 0:
        return x_ND.sum()
    difference_ND = x_ND - y_ND.detach()
    return difference_ND.square().mean() + difference_ND.abs().mean()


def relational_loss(x_ND: Tensor, y_ND: Tensor, temperature: float = 1.0) -> Tensor:
    """L_emb: the student's distances between regions should rank like the teacher's.

    The mean over rows of -sum(P log Q), with P = softmax(-D_y / T) and Q = softmax(-D_x / T) row by row over the other
    regions, D being Euclidean distances divided by the number of dimensions. Its least value is the mean entropy of P,
    reached where Q = P.

    Args:
        x_ND: student embeddings.
        y_ND: teacher targets.
        temperature: T; smaller values sharpen both distributions.

    Returns:
        A scalar; 0 for fewer than two regions.
    """
    if len(x_ND) < 2:
        return x_ND.sum() * 0
    log_q = torch.log_softmax(-distances_to_others(x_ND) / temperature, dim=1)  # (N, N - 1)
    p = torch.softmax(-distances_to_others(y_ND.detach()) / temperature, dim=1)
    return -(p * log_q).sum(dim=1).mean()


def distances_to_others(embeddings_ND: Tensor) -> Tensor:
    """Distance of each row to every other row, divided by D: (N, N - 1)."""
    distances = torch.cdist(embeddings_ND, embeddings_ND, compute_mode="donot_use_mm_for_euclid_dist")
    return without_diagonal(distances / embeddings_ND.shape[1])


def without_diagonal(square: Tensor) -> Tensor:
    """(N, N) -> (N, N - 1), for N > 0."""
    count = len(square)
    # Without its last entry the flat matrix has rows of N + 1, each of which begins with an entry of the diagonal.
    return square.flatten()[:-1].view(count - 1, count + 1)[:, 1:].reshape(count, count - 1)
