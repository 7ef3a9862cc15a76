"""Objectives of distillation: what a student's embeddings should have in common with the teacher's.

Each is a pair of a local loss (every region for itself) and a relational one (regions among each other), to be weighted
by lambda_dist and lambda_emb. `paper` is MOCHA's and the reference; the others are alternatives from the literature.

Legend: N regions of the batch, D target dimensions; x is the student's, y the teacher's. No gradient flows into y.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mocha_pipe.student.choices import ObjectiveName
from mocha_pipe.student.network.losses import (
    distances_to_others,
    local_alignment_loss,
    relational_loss,
    without_diagonal,
)

Loss = Callable[[Tensor, Tensor], Tensor]

_CONTRAST_TEMPERATURE = 0.07
_RKD_DISTANCE, _RKD_ANGLE = 25.0, 50.0
_LEAST = 1e-8


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A local and a relational loss; each maps (N, D), (N, D) to a scalar, 0 where there are too few regions."""

    local: Loss
    relational: Loss
    decoder: bool = False
    """Compare not the student's embedding but a learned linear map of it, which only training needs."""


def no_loss(x_ND: Tensor, _y_ND: Tensor) -> Tensor:
    """0, attached to the graph of x."""
    return x_ND.sum() * 0


def cosine_loss(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Mean of 1 - cos(x, y)."""
    if len(x_ND) == 0:
        return no_loss(x_ND, y_ND)
    return 1 - functional.cosine_similarity(x_ND, y_ND.detach(), dim=1).mean()


def smooth_l1_loss(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Mean of the Huber function (quadratic below 1) of x - y over regions and dimensions."""
    if len(x_ND) == 0:
        return no_loss(x_ND, y_ND)
    return functional.smooth_l1_loss(x_ND, y_ND.detach())


def calibrated_relational_loss(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """L_emb with its temperature taken from the teacher: the spread of its distances between the batch's regions.

    With T = 1 and distances divided by D the paper's softmax is nearly flat: all regions count as equally near.
    """
    if len(x_ND) < 3:
        return no_loss(x_ND, y_ND)
    return relational_loss(x_ND, y_ND, float(distances_to_others(y_ND.detach()).std().clamp(min=_LEAST)))


def rkd_loss(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Relational knowledge distillation (Park et al., arXiv 1904.05068): distances in pairs and angles in triplets.

    Huber functions of the differences, with that paper's weights for metric learning, 25 and 50. Holds N^3 angles.
    """
    if len(x_ND) < 3:
        return no_loss(x_ND, y_ND)
    y_ND = y_ND.detach()
    distance = functional.smooth_l1_loss(_relative_distances(x_ND), _relative_distances(y_ND))
    angle = functional.smooth_l1_loss(_angles(x_ND), _angles(y_ND))
    return _RKD_DISTANCE * distance + _RKD_ANGLE * angle


def contrastive_loss(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al., arXiv 1807.03748): a region's own target against all others', by cosine."""
    if len(x_ND) < 2:
        return no_loss(x_ND, y_ND)
    x_ND, y_ND = functional.normalize(x_ND, dim=1), functional.normalize(y_ND.detach(), dim=1)
    return functional.cross_entropy(x_ND @ y_ND.T / _CONTRAST_TEMPERATURE, torch.arange(len(x_ND), device=x_ND.device))


def relation_graph_loss(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """The graph of cosine similarities between regions: mean over rows of 1 - the correlation of both rows."""
    if len(x_ND) < 3:
        return no_loss(x_ND, y_ND)
    student, teacher = (_centred_similarities(values_ND) for values_ND in (x_ND, y_ND.detach()))
    return 1 - functional.cosine_similarity(student, teacher, dim=1).mean()


OBJECTIVES: dict[ObjectiveName, Objective] = {
    "paper": Objective(local=local_alignment_loss, relational=relational_loss),
    "calibrated": Objective(local=local_alignment_loss, relational=calibrated_relational_loss),
    "local": Objective(local=local_alignment_loss, relational=no_loss),
    "cosine": Objective(local=cosine_loss, relational=no_loss),
    "smooth-l1": Objective(local=smooth_l1_loss, relational=no_loss),
    "rkd": Objective(local=local_alignment_loss, relational=rkd_loss),
    "contrastive": Objective(local=local_alignment_loss, relational=contrastive_loss),
    "graph": Objective(local=local_alignment_loss, relational=relation_graph_loss),
    "linear": Objective(local=local_alignment_loss, relational=no_loss, decoder=True),
}


def _relative_distances(values_ND: Tensor) -> Tensor:  # (N, N - 1)
    """Distances to the others in units of their mean."""
    distances = distances_to_others(values_ND)
    return distances / distances.mean().clamp(min=_LEAST)


def _angles(values_ND: Tensor) -> Tensor:  # (N, N, N)
    """Cosine of the angle at the first region between the directions to the second and the third."""
    directions_NND = functional.normalize(values_ND[None] - values_ND[:, None], dim=2, eps=_LEAST)
    return torch.bmm(directions_NND, directions_NND.transpose(1, 2))


def _centred_similarities(values_ND: Tensor) -> Tensor:  # (N, N - 1)
    """Cosine to each of the others, less the mean of the row."""
    normal_ND = functional.normalize(values_ND, dim=1)
    similarities = without_diagonal(normal_ND @ normal_ND.T)
    return similarities - similarities.mean(dim=1, keepdim=True)
