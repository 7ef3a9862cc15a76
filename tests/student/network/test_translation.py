"""The translation module on batches of every size, with and without patches."""

import pytest
import torch

from mocha_pipe.student.network.features import GRID, FeatureDims, RegionFeatures
from mocha_pipe.student.network.translation import PatchEncoder, TranslationModule

MEANS, FINE = FeatureDims(means=6, patches=0), FeatureDims(means=6, patches=3)
BOTH = pytest.mark.parametrize("dims", [MEANS, FINE], ids=["means", "fine"])


def features(dims: FeatureDims, count: int) -> RegionFeatures:
    generator = torch.Generator().manual_seed(count)
    means = torch.randn(count, dims.means, generator=generator)
    return RegionFeatures(means, torch.randn(count, dims.patches, GRID, GRID, generator=generator))


@BOTH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_any_number_of_regions(dims: FeatureDims, count: int, training: bool) -> None:
    translation = TranslationModule(dims, 4).train(training)
    embedding = translation(features(dims, count))
    assert embedding.shape == (count, 4)
    assert embedding.isfinite().all()
    embedding.sum().backward()
    assert all(parameter.grad is not None for parameter in translation.parameters())
    assert all(module.training == training for module in translation.modules())


@BOTH
def test_regions_are_translated_independently(dims: FeatureDims) -> None:
    translation = TranslationModule(dims, 4).eval()
    rows = features(dims, 5)
    alone = torch.cat([translation(RegionFeatures(*(part[i : i + 1] for part in rows))) for i in range(5)])
    torch.testing.assert_close(translation(rows), alone, rtol=0, atol=1e-5)


@BOTH
def test_a_single_region_is_normalised_by_the_tracked_statistics(dims: FeatureDims) -> None:
    translation = TranslationModule(dims, 4)
    for count in range(2, 30):
        translation(RegionFeatures(*(5 + 3 * part for part in features(dims, count))))
    before = {name: value.clone() for name, value in translation.state_dict().items()}
    single = features(dims, 1)
    in_training = translation(single)
    assert torch.equal(in_training, translation.eval()(single))
    assert all(torch.equal(value, before[name]) for name, value in translation.state_dict().items())


def test_learns_the_mean_and_deviation_of_each_channel() -> None:
    torch.manual_seed(0)
    translation = TranslationModule(FeatureDims(3, 0), 4)
    for _ in range(200):
        means = torch.tensor([1.0, -20.0, 300.0]) + torch.tensor([0.1, 5.0, 70.0]) * torch.randn(64, 3)
        translation(RegionFeatures(means, torch.zeros(64, 0, GRID, GRID)))
    normal = translation.eval().channels(torch.tensor([[1.0, -20.0, 300.0], [1.1, -15.0, 370.0]]))
    torch.testing.assert_close(normal, torch.tensor([[0.0] * 3, [1.0] * 3]), rtol=0, atol=0.2)


@BOTH
def test_is_made_from_the_seed(dims: FeatureDims) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        weights.append(TranslationModule(dims, 4).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@BOTH
def test_the_output_has_no_bias(dims: FeatureDims) -> None:
    assert TranslationModule(dims, 4).project.bias is None


def test_a_texture_is_encoded_alike_wherever_in_the_box_it_lies() -> None:
    encoder = PatchEncoder(3).eval()
    patches = torch.zeros(2, 3, GRID, GRID)
    mark = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    patches[0, :, 4:8, 4:8] = mark
    patches[1, :, 6:10, 4:8] = mark  # two cells on: as far as the stride of the convolutions
    here, there = encoder(patches)
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)
    assert not torch.allclose(here, encoder(torch.zeros(1, 3, GRID, GRID))[0], atol=1e-4)


def test_patches_and_means_both_reach_the_embedding() -> None:
    translation = TranslationModule(FINE, 4).eval()
    rows = RegionFeatures(*(part.requires_grad_() for part in features(FINE, 3)))
    translation(rows).sum().backward()
    assert (rows.means.grad.abs().sum(dim=0) > 0).all()
    assert rows.patches.grad.abs().sum(dim=(2, 3)).min() > 0
