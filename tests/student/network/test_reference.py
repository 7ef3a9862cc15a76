"""The authors' pooling and translation module against plain references."""

import math
from pathlib import Path

import mocha_pipe.student.training  # noqa: F401  (prepares the environment)

# isort: split

import pytest
import torch
from torch import nn

from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import (
    FeatureDims,
    FeatureMaps,
    RegionFeatures,
    feature_dims,
    region_features,
    tap,
    whole_cells,
)
from mocha_pipe.student.network.reference_block import ReferenceBlock
from mocha_pipe.student.network.student_files import load_student, save_student
from mocha_pipe.student.network.translation import TranslationModule


def sliced_mean(level: torch.Tensor, box: list[float]) -> torch.Tensor:  # (C, H, W), xyxyn -> (C,)
    """Cells floor(low) to ceil(high) of each side, both included, as a slice of the map."""
    _, height, width = level.shape
    left, right = min(math.floor(box[0] * width), width - 1), math.ceil(box[2] * width)
    top, bottom = min(math.floor(box[1] * height), height - 1), math.ceil(box[3] * height)
    return level[:, top : bottom + 1, left : right + 1].mean(dim=(1, 2))


def maps_and_boxes() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, channels, side, side + 2, generator=generator) for channels, side in ((3, 16), (4, 8))]
    corners = torch.rand(40, 2, 2, generator=generator).sort(dim=1).values.flatten(1)
    edges = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.25, 0.5, 0.25], [1.0, 1.0, 1.0, 1.0], [0.0, 0.5, 0.25, 1.0]])
    boxes = torch.cat([corners, edges])
    return maps, torch.arange(len(boxes)) % 2, boxes


def test_means_are_over_whole_cells() -> None:
    maps, image, boxes = maps_and_boxes()
    found = region_features(FeatureMaps([], maps, whole_cells=True), image, boxes).means
    expected = torch.stack(
        [
            torch.cat([sliced_mean(level[number], box) for level in maps])
            for number, box in zip(image.tolist(), boxes.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    exact = region_features(FeatureMaps([], maps), image, boxes).means
    assert not torch.allclose(found, exact, atol=0.1)


def test_shares_of_cells_sum_to_one_and_a_map_of_one_value_has_that_mean() -> None:
    _, _, boxes = maps_and_boxes()
    shares = whole_cells(boxes[:, 0], boxes[:, 2], 7)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(boxes)))
    assert (shares >= 0).all()


def test_only_features_reference_count_whole_cells(tiny_models: dict[str, str]) -> None:
    model = DistillModel(tiny_models["v8"], num_classes=3, features="reference", target_dim=4)
    for features, expected in (("reference", True), ("paper", False)):
        with tap(model, features) as maps:  # type: ignore[arg-type]
            assert maps.whole_cells is expected


def test_the_module_has_the_weights_of_the_authors() -> None:
    translation = TranslationModule(FeatureDims(448, 0), 512, reference=True)
    count = sum(weight.numel() for weight in translation.parameters())
    attention, norms, feed_forward = 4 * 448 * 448 + 4 * 448, 2 * 2 * 448, 2 * 448 * 1792 + 1792 + 448
    assert count == 2 * 448 + attention + norms + feed_forward + 448 * 512
    assert round(count / 1e6, 2) == 2.64


def test_the_block_is_two_residuals_around_normalised_maps() -> None:
    torch.manual_seed(0)
    block = ReferenceBlock(6)
    for norm in (block.attention_norm, block.feed_forward_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    nn.init.normal_(block.attention.in_proj_bias)
    x0 = torch.randn(5, 6)

    def normalised(rows: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
        centred = rows - rows.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias

    attended = torch.cat([block.attention(row[None], row[None], row[None])[0] for row in x0])
    x = x0 + normalised(attended, block.attention_norm)
    first, _, second = block.feed_forward
    inner = (x @ first.weight.T + first.bias).clamp(min=0)
    expected = x + normalised(inner @ second.weight.T + second.bias, block.feed_forward_norm)
    torch.testing.assert_close(block(x0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_regions_are_translated_alone_and_alike_in_training(count: int) -> None:
    translation = TranslationModule(FeatureDims(6, 0), 4, reference=True)
    rows = RegionFeatures(torch.randn(count, 6, generator=torch.Generator().manual_seed(1)), torch.zeros(count, 0))
    together = translation.train()(rows)
    assert together.shape == (count, 4)
    alone = [translation.eval()(RegionFeatures(*(part[i : i + 1] for part in rows))) for i in range(count)]
    torch.testing.assert_close(together, torch.cat([together[:0], *alone]), rtol=0, atol=1e-5)


def test_mean_and_deviation_of_each_channel_learn() -> None:
    translation = TranslationModule(FeatureDims(6, 0), 4, reference=True)
    translation(RegionFeatures(torch.randn(3, 6), torch.zeros(3, 0))).sum().backward()
    gradients = {name: weight.grad for name, weight in translation.named_parameters()}
    for name in ("channels.mean", "channels.deviation", "mix.attention.out_proj.weight", "project.weight"):
        gradient = gradients[name]
        assert gradient is not None
        assert gradient.abs().max() > 0
    assert translation.project.bias is None


def test_a_student_is_read_as_it_was_written(tiny_models: dict[str, str], tmp_path: Path) -> None:
    model = DistillModel(tiny_models["v8"], num_classes=3, features="reference", target_dim=4).eval()
    student = load_student(save_student(model, tmp_path / "student", image_size=64, meta={}))
    assert student.features == "reference"
    assert student.translation is not None
    width = feature_dims(student.detector, "reference").means
    rows = RegionFeatures(torch.randn(3, width), torch.zeros(3, 0))
    assert torch.equal(student.translation(rows), model.translation(rows))
