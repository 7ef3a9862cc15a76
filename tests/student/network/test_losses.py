"""Four proofs for each distillation loss: equals a plain reference, repeats bitwise, converges, obeys its algebra."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mocha_pipe.student.network.features import GRID, FeatureDims, RegionFeatures
from mocha_pipe.student.network.losses import local_alignment_loss, relational_loss
from mocha_pipe.student.network.translation import TranslationModule

LOSSES = [local_alignment_loss, relational_loss]


def random_pair(seed: int, count: int = 7, dims: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dims, generator=generator), torch.randn(count, dims, generator=generator)


def reference_local(x: Tensor, y: Tensor) -> float:
    differences = [a - b for rows in zip(x.tolist(), y.tolist(), strict=True) for a, b in zip(*rows, strict=True)]
    return sum(d * d for d in differences) / len(differences) + sum(abs(d) for d in differences) / len(differences)


def reference_relational(x: Tensor, y: Tensor, temperature: float = 1.0) -> float:
    def softmax_row(points: list[list[float]], i: int) -> list[float]:
        weights = [
            math.exp(-math.dist(points[i], points[j]) / len(points[i]) / temperature)
            for j in range(len(points))
            if j != i
        ]
        return [weight / sum(weights) for weight in weights]

    student, teacher = x.tolist(), y.tolist()
    rows = [
        -sum(p * math.log(q) for p, q in zip(softmax_row(teacher, i), softmax_row(student, i), strict=True))
        for i in range(len(student))
    ]
    return sum(rows) / len(rows)


@pytest.mark.parametrize("seed", range(3))
def test_local_alignment_equals_the_reference(seed: int) -> None:
    x, y = random_pair(seed)
    assert local_alignment_loss(x, y).item() == pytest.approx(reference_local(x, y), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("count", [2, 3, 30])
def test_relational_equals_the_reference(count: int, temperature: float) -> None:
    x, y = random_pair(count, count)
    expected = reference_relational(x, y, temperature)
    assert relational_loss(x, y, temperature).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_repeats_bitwise(loss) -> None:
    results = []
    for _ in range(2):
        x, y = random_pair(4, 40, 16)
        x.requires_grad_()
        value = loss(x, y)
        value.backward()
        results.append((value.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_local_alignment_converges_with_the_translation_module_alone() -> None:
    """Random features can be translated into random targets."""
    torch.manual_seed(0)
    features = RegionFeatures(torch.randn(24, 20), torch.zeros(24, 0, GRID, GRID))
    targets = torch.randn(24, 6)
    translation = TranslationModule(FeatureDims(20, 0), 6)
    optimizer = torch.optim.AdamW(translation.parameters(), lr=3e-3)
    first = local_alignment_loss(translation(features), targets).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = local_alignment_loss(translation(features), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * first


def test_relational_converges_to_the_entropy_of_the_teacher() -> None:
    x, y = random_pair(5, 12, 4)
    least = relational_loss(y, y, 0.2).item()
    x.requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    assert relational_loss(x, y, 0.2).item() > least + 0.05
    for _ in range(400):
        optimizer.zero_grad()
        loss = relational_loss(x, y, 0.2)
        loss.backward()
        optimizer.step()
    assert least - 1e-5 <= loss.item() < least + 2e-3


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 12), dims=st.integers(1, 8))
def test_local_alignment_algebra(seed: int, count: int, dims: int) -> None:
    x, y = random_pair(seed, count, dims)
    value = local_alignment_loss(x, y)
    assert local_alignment_loss(x, x) == 0
    torch.testing.assert_close(local_alignment_loss(y, x), value)
    torch.testing.assert_close(local_alignment_loss(x + 1, y + 1), value, rtol=1e-4, atol=1e-5)
    square, absolute = (x - y).square().mean(), (x - y).abs().mean()
    torch.testing.assert_close(local_alignment_loss(x + (x - y), y), 4 * square + 2 * absolute, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 12), dims=st.integers(1, 8))
def test_relational_algebra(seed: int, count: int, dims: int) -> None:
    x, y = random_pair(seed, count, dims)
    value = relational_loss(x, y)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(dims, dims, generator=generator))
    order = torch.randperm(count, generator=generator)
    torch.testing.assert_close(relational_loss(x @ rotation + 3, y), value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(relational_loss(x, y @ rotation - 2), value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(relational_loss(x[order], y[order]), value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(relational_loss(2 * x, 2 * y, 2.0), value, rtol=1e-4, atol=1e-5)
    assert value >= relational_loss(y, y) - 1e-5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", [0, 1])
def test_too_few_regions_give_zero_and_a_gradient_of_zero(loss, count: int) -> None:
    x, _ = random_pair(0, count)
    x.requires_grad_()
    value = loss(x, x.detach())
    assert value.item() == 0
    value.backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(count, 5))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_teacher_gets_no_gradient(loss) -> None:
    x, y = random_pair(1)
    x.requires_grad_()
    y.requires_grad_()
    loss(x, y).backward()
    assert y.grad is None
    assert x.grad is not None


def test_equal_rows_have_finite_gradients() -> None:
    """Mosaic may show one region twice."""
    x = torch.ones(4, 3, requires_grad=True)
    relational_loss(x, random_pair(2, 4, 3)[1]).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
