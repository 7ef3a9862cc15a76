#!/usr/bin/env bash
# torch 2.14.1, CPU: SGD(fused=True) with momentum fails when a weight gets its first gradient later than another one.
#
# This is what happens when a part of a network is trained first and the rest joins in a later epoch. The plain form makes
# the missing momentum buffer by itself; the fused form hands the kernel a None. Adam's fused form has no such trouble.
# Seen: the plain form steps; the fused form raises "TypeError: expected Tensor as element 1 in argument 2, but got NoneType".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import torch


def train(make) -> str:
    first, late = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = make([first, late])
    try:
        for step in range(3):
            optimizer.zero_grad()
            (first.sum() + (late.sum() if step else 0)).backward()
            optimizer.step()
    except TypeError as error:
        return str(error)
    return "steps"


found = [
    train(lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9)),
    train(lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, fused=True)),
    train(lambda weights: torch.optim.Adam(weights, lr=0.1, fused=True)),
]
print("plain SGD, fused SGD, fused Adam:", found)
expected = "expected Tensor as element 1 in argument 2, but got NoneType"
assert found == ["steps", expected, "steps"], "the behaviour has changed"
P
