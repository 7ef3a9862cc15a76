"""Four proofs for each loss: equals a plain reference, repeats bitwise, converges, obeys its algebra."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mocha_pipe.student.choices import OBJECTIVE_NAMES
from mocha_pipe.student.network.losses import relational_loss
from mocha_pipe.student.network.objectives import (
    OBJECTIVES,
    Loss,
    calibrated_relational_loss,
    contrastive_loss,
    cosine_loss,
    relation_graph_loss,
    rkd_loss,
    smooth_l1_loss,
)

LOSSES: list[Loss] = [
    cosine_loss,
    smooth_l1_loss,
    calibrated_relational_loss,
    rkd_loss,
    contrastive_loss,
    relation_graph_loss,
]
RELATIONAL: list[Loss] = [calibrated_relational_loss, rkd_loss, contrastive_loss, relation_graph_loss]

Points = list[list[float]]


def random_pair(seed: int, count: int = 7, dims: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, count, dims, generator=generator, dtype=torch.float64)
    return x, y


def dot(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def cosine(a: list[float], b: list[float]) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def minus(a: list[float], b: list[float]) -> list[float]:
    return [p - q for p, q in zip(a, b, strict=True)]


def huber(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def reference_cosine(x: Points, y: Points) -> float:
    return mean([1 - cosine(a, b) for a, b in zip(x, y, strict=True)])


def reference_smooth_l1(x: Points, y: Points) -> float:
    return mean([huber(p - q) for a, b in zip(x, y, strict=True) for p, q in zip(a, b, strict=True)])


def pairs(points: Points) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(points)) for j in range(len(points)) if i != j]


def reference_calibrated(x: Points, y: Points) -> float:
    distances = [math.dist(y[i], y[j]) / len(y[0]) for i, j in pairs(y)]
    centre = mean(distances)
    spread = math.sqrt(sum((d - centre) ** 2 for d in distances) / (len(distances) - 1))
    return float(relational_loss(torch.tensor(x), torch.tensor(y), spread))


def reference_rkd(x: Points, y: Points) -> float:
    def relative(points: Points) -> list[float]:
        distances = [math.dist(points[i], points[j]) for i, j in pairs(points)]
        return [d / mean(distances) for d in distances]

    def angles(points: Points) -> list[float]:
        found = []
        for i in range(len(points)):
            for j in range(len(points)):
                for k in range(len(points)):
                    a, b = minus(points[j], points[i]), minus(points[k], points[i])
                    found.append(0.0 if i in (j, k) else cosine(a, b))
        return found

    distance = mean([huber(p - q) for p, q in zip(relative(x), relative(y), strict=True)])
    angle = mean([huber(p - q) for p, q in zip(angles(x), angles(y), strict=True)])
    return 25 * distance + 50 * angle


def reference_contrastive(x: Points, y: Points) -> float:
    losses = []
    for i, a in enumerate(x):
        scores = [cosine(a, b) / 0.07 for b in y]
        losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[i])
    return mean(losses)


def reference_graph(x: Points, y: Points) -> float:
    losses = []
    for i in range(len(x)):
        rows = [[cosine(points[i], points[j]) for j in range(len(x)) if j != i] for points in (x, y)]
        centred = [[value - mean(row) for value in row] for row in rows]
        losses.append(1 - cosine(*centred))
    return mean(losses)


REFERENCES = dict(
    zip(
        LOSSES,
        [
            reference_cosine,
            reference_smooth_l1,
            reference_calibrated,
            reference_rkd,
            reference_contrastive,
            reference_graph,
        ],
        strict=True,
    )
)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", [3, 4, 12])
def test_equals_the_reference(loss: Loss, count: int) -> None:
    x, y = random_pair(count, count)
    assert loss(x, y).item() == pytest.approx(REFERENCES[loss](x.tolist(), y.tolist()), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_repeats_bitwise(loss: Loss) -> None:
    def run() -> tuple[Tensor, Tensor]:
        x, y = random_pair(0, 40, 16)
        x = x.float().requires_grad_()
        value = loss(x, y.float())
        value.backward()
        assert x.grad is not None
        return value.detach(), x.grad

    first, second = run(), run()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_descent_brings_the_student_to_where_the_teacher_s_own_embedding_is(loss: Loss) -> None:
    x, y = random_pair(1, 10, 6)
    start, goal = loss(x, y).item(), loss(y, y).item()
    x.requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.03)
    for _ in range(600):
        optimizer.zero_grad()
        value = loss(x, y)
        value.backward()
        optimizer.step()
    assert value.item() - goal < 0.05 * (start - goal)


@pytest.mark.parametrize("loss", [cosine_loss, smooth_l1_loss, rkd_loss, relation_graph_loss])
def test_is_zero_for_the_teacher_itself(loss: Loss) -> None:
    _, y = random_pair(2)
    assert loss(y, y).item() == pytest.approx(0, abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_does_not_depend_on_the_order_of_the_regions(seed: int) -> None:
    x, y = random_pair(seed, 6, 4)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    for loss in LOSSES:
        assert loss(x[order], y[order]).item() == pytest.approx(loss(x, y).item(), rel=1e-8)


@pytest.mark.parametrize("loss", [calibrated_relational_loss, rkd_loss])
def test_distances_and_angles_know_no_place_and_no_direction(loss: Loss) -> None:
    x, y = random_pair(3)
    turn = torch.linalg.qr(random_pair(4, 5, 5)[0]).Q
    assert loss(x @ turn + 3, y).item() == pytest.approx(loss(x, y).item(), rel=1e-8)


@pytest.mark.parametrize("loss", [cosine_loss, contrastive_loss, relation_graph_loss, rkd_loss])
def test_some_do_not_see_the_length(loss: Loss) -> None:
    x, y = random_pair(5)
    assert loss(7 * x, y).item() == pytest.approx(loss(x, y).item(), rel=1e-8)


def test_calibration_makes_the_relational_loss_blind_to_the_teacher_s_scale_and_far_from_flat() -> None:
    x, y = random_pair(6, 30, 64)
    scaled = calibrated_relational_loss(10 * x, 10 * y)
    assert scaled.item() == pytest.approx(calibrated_relational_loss(x, y).item(), rel=1e-8)
    flat = math.log(29)
    assert relational_loss(y, y).item() == pytest.approx(flat, abs=1e-3), "as published, with T = 1"
    assert calibrated_relational_loss(y, y).item() < flat - 0.3


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_regions_give_a_finite_loss_with_a_gradient(loss: Loss, count: int) -> None:
    x, y = random_pair(7, count)
    x.requires_grad_()
    value = loss(x, y)
    value.backward()
    assert torch.isfinite(value)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    if count == 0 or (loss in RELATIONAL and count == 1):
        assert value.item() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_regions_give_finite_gradients(loss: Loss) -> None:
    x = torch.ones(5, 4, requires_grad=True)
    loss(x, torch.ones(5, 4)).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_teacher_gets_no_gradient(loss: Loss) -> None:
    x, y = random_pair(8)
    y.requires_grad_()
    loss(x.requires_grad_(), y).backward()
    assert y.grad is None


def test_every_name_has_its_objective() -> None:
    assert tuple(OBJECTIVES) == OBJECTIVE_NAMES
