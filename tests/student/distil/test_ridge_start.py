"""Training of features `deep` begins at the ridge regression from features to targets."""

from typing import Any

import mocha_pipe.student.training  # noqa: F401  (prepares the environment)

# isort: split

import numpy as np
import pytest
import torch

from mocha_pipe.student.distil.ridge_start import _SHRINKAGE, start_from_ridge
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import tap


@pytest.fixture
def model(tiny_models: dict[str, str]) -> DistillModel:
    torch.manual_seed(0)
    return DistillModel(tiny_models["v8"], num_classes=3, features="deep", target_dim=4)


def make_batches(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "img": torch.rand(6, 3, 64, 64, generator=generator), "batch_idx": torch.arange(12.0) // 2,
            "bboxes": 0.3 + 0.4 * torch.rand(12, 4, generator=generator),
            "rows": torch.arange(12) - 1,  # the first has no target
            "targets": torch.randn(12, 4, generator=generator) + 3,
        }
        for _ in range(count)
    ]  # fmt: skip


def test_it_equals_numpys_ridge_on_standardised_features(model: DistillModel) -> None:
    batches = make_batches(9)
    model.train()
    start_from_ridge(model, iter(batches))
    assert model.training
    rows, wanted = [], []
    model.eval()
    for batch in batches:
        with tap(model, "deep") as maps, torch.no_grad():
            model(batch["img"])
            features, targets = model.features_and_targets(maps, batch)
        rows.append(features.means.double().numpy())
        wanted.append(targets.double().numpy())
    x, y = np.concatenate(rows), np.concatenate(wanted)
    assert len(x) == 99
    standard = (x - x.mean(axis=0)) / np.sqrt(np.maximum(x.var(axis=0), 1e-8))
    gram = standard.T @ standard / len(x) + _SHRINKAGE * np.eye(x.shape[1])
    expected = np.linalg.solve(gram, standard.T @ (y - y.mean(axis=0)) / len(x)).T
    np.testing.assert_allclose(model.translation.project.weight.detach().numpy(), expected, atol=2e-4)
    np.testing.assert_allclose(model.translation.channels.running_mean.numpy(), x.mean(axis=0), atol=1e-5)


def test_it_finds_a_map_that_is_there(model: DistillModel) -> None:
    """Targets that are features themselves are met but for the shrinkage."""
    batches = make_batches(9)
    model.eval()
    with torch.no_grad():
        for batch in batches:
            with tap(model, "deep") as maps:
                model(batch["img"])
            features, _ = model.features_and_targets(maps, batch)
            batch["targets"][1:] = 100 * features.means[:, :4]
        start_from_ridge(model, batches)
        for batch in batches:
            with tap(model, "deep") as maps:
                model(batch["img"])
            features, targets = model.features_and_targets(maps, batch)
            found = model.translation(features)
            correlation = np.corrcoef(found.flatten(), (targets - targets.mean(dim=0)).flatten())[0, 1]
            assert correlation > 0.6


def test_without_regions_nothing_changes(model: DistillModel) -> None:
    before = model.translation.project.weight.clone()
    start_from_ridge(model, [])
    assert torch.equal(before, model.translation.project.weight)
