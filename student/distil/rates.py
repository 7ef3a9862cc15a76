"""A learning rate for each part of a student: a trained detector learns slowly, what is new learns fast.

MOCHA (arXiv 2509.14001, section 4) trains the detector at 1e-4 and the translation module at 1e-3, with weight decays
of 1e-5 and 1e-4 and none on the head.
"""

import torch
from torch import nn


def set_rates(optimizer: torch.optim.Optimizer, detector: nn.Sequential, rate: float) -> None:
    """Gives a detector's weights groups of their own: `rate` times the learning rate and the weight decay they had.

    Its head gets no weight decay. Any optimizer that ultralytics builds will do; what it told groups apart by stays.

    Args:
        optimizer: of a model that holds the detector and more.
        detector: the layers, the head last.
        rate: share of the learning rate, more than 0.
    """
    head = {id(weight) for weight in detector[-1].parameters()}
    body = {id(weight) for weight in detector.parameters()} - head
    for group in list(optimizer.param_groups):
        weights, learning_rate, decay = group["params"], group["lr"], group["weight_decay"]
        group["params"] = [weight for weight in weights if id(weight) not in head | body]
        for part, own_decay in ((body, rate * decay), (head, 0.0)):
            if own := [weight for weight in weights if id(weight) in part]:
                # Ultralytics sets the decay of groups named `weight` anew when memory ran out; these have their own.
                name = "bias" if group.get("param_group") == "bias" else "detector"
                optimizer.add_param_group(
                    {**group, "params": own, "lr": rate * learning_rate, "weight_decay": own_decay, "param_group": name}
                )
