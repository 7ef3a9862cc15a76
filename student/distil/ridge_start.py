"""Where training begins for features `deep`: at the linear map from features to targets that is best as things are.

A random map would spoil the copied stage in its first steps: on photographs it was still behind after three epochs
(docs/log.md). The best map is a ridge regression, which one pass over training images gives in closed form.

Legend: N regions, C width of their features, D width of the targets.
"""

from collections.abc import Iterable
from typing import Any

import torch

from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import tap

_ENOUGH = 20_000  # regions; more would not change a map of some hundred channels
_SHRINKAGE = 0.3  # of features at unit deviation; chosen on held-out photographs


@torch.no_grad()
def start_from_ridge(model: DistillModel, batches: Iterable[dict[str, Any]]) -> None:
    """Sets the normalisation and the linear map of a model's translation module; all processes call it together.

    Args:
        model: with features `deep`.
        batches: training batches on the model's device, with targets; taken until there are enough regions.
    """
    was_training = model.training
    model.eval()
    translation = model.translation
    width, out_dim = translation.dims.means, translation.out_dim
    # Sums of [1, features, targets] times [features]: mean, second moments and cross moments at once.
    sums = torch.zeros(1 + width + out_dim, width, dtype=torch.float64, device=next(model.parameters()).device)
    mean_D = torch.zeros(out_dim, dtype=torch.float64, device=sums.device)
    count = 0
    for batch in batches:
        with tap(model, model.features) as maps:
            model.look(batch["img"])
        features, targets_ND = model.features_and_targets(maps, batch)
        x_NC = features.means.double()
        sums += torch.cat([torch.ones_like(x_NC[:, :1]), x_NC, targets_ND.double()], dim=1).T @ x_NC
        mean_D += targets_ND.double().sum(dim=0)
        count += len(x_NC)
        if count >= _ENOUGH:
            break
    model.train(was_training)
    if count < 2:
        return
    mean_C, mean_D = sums[0] / count, mean_D / count
    covariance_CC = sums[1 : 1 + width] / count - torch.outer(mean_C, mean_C)
    variance_C = covariance_CC.diagonal().clamp(min=1e-8)
    scale_C = variance_C.rsqrt()
    correlation_CC = covariance_CC * torch.outer(scale_C, scale_C)
    cross_DC = (sums[1 + width :] / count - torch.outer(mean_D, mean_C)) * scale_C
    ridge_CC = correlation_CC + _SHRINKAGE * torch.eye(width, dtype=torch.float64, device=sums.device)
    translation.channels.get_buffer("running_mean").copy_(mean_C)
    translation.channels.get_buffer("running_var").copy_(variance_C)
    translation.project.weight.copy_(torch.linalg.solve(ridge_CC, cross_DC.T).T)
