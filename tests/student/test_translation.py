"""The translation module on batches of every size."""

import pytest
import torch

from student.translation import TranslationModule


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_any_number_of_regions(count: int, training: bool) -> None:
    translation = TranslationModule(6, 4).train(training)
    embedding = translation(torch.randn(count, 6))
    assert embedding.shape == (count, 4)
    assert embedding.isfinite().all()
    embedding.sum().backward()
    assert all(parameter.grad is not None for parameter in translation.parameters())


def test_regions_are_translated_independently() -> None:
    translation = TranslationModule(6, 4).eval()
    features = torch.randn(5, 6)
    alone = torch.cat([translation(features[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(translation(features), alone)


def test_a_single_region_is_normalised_by_the_tracked_statistics() -> None:
    translation = TranslationModule(6, 4)
    for _ in range(100):
        translation(5 + 3 * torch.randn(32, 6))
    before = {name: value.clone() for name, value in translation.state_dict().items()}
    single = torch.randn(1, 6)
    in_training = translation(single)
    assert torch.equal(in_training, translation.eval()(single))
    assert all(torch.equal(value, before[name]) for name, value in translation.state_dict().items())


def test_learns_the_mean_and_deviation_of_each_channel() -> None:
    torch.manual_seed(0)
    translation = TranslationModule(3, 4)
    for _ in range(200):
        translation(torch.tensor([1.0, -20.0, 300.0]) + torch.tensor([0.1, 5.0, 70.0]) * torch.randn(64, 3))
    normal = translation.eval().channels(torch.tensor([[1.0, -20.0, 300.0], [1.1, -15.0, 370.0]]))
    torch.testing.assert_close(normal, torch.tensor([[0.0] * 3, [1.0] * 3]), rtol=0, atol=0.2)


def test_is_made_from_the_seed() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        weights.append(TranslationModule(6, 4).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_output_has_no_bias() -> None:
    assert TranslationModule(6, 4).project.bias is None
