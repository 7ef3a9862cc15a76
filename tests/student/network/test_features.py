"""Taps on real detectors, and four proofs each for means and patches of boxes."""

import copy
import pickle
from collections.abc import Callable

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.network import features
from mocha_pipe.student.network.features import (
    GRID,
    FeatureDims,
    FeatureMaps,
    box_slots,
    feature_dims,
    fine_layers,
    region_features,
    tap,
)

FAMILIES = ("v8", "11", "26")


def box_means(maps: list[Tensor], image: Tensor, xyxyn: Tensor) -> Tensor:
    return features.box_means(maps, box_slots(image, len(maps[0])), xyxyn)


def box_patches(maps: list[Tensor], image: Tensor, xyxyn: Tensor) -> Tensor:
    return features.box_patches(maps, box_slots(image, len(maps[0])), xyxyn)


@pytest.fixture(scope="module")
def detectors(tiny_models: dict[str, str]) -> dict[str, DetectionModel]:
    return {family: DetectionModel(tiny_models[family], nc=3, verbose=False) for family in FAMILIES}


def head_inputs(predictions: object) -> list[Tensor]:
    """The Detect inputs as ultralytics itself hands them out."""
    raw = predictions[1] if isinstance(predictions, tuple) else predictions
    return raw.get("one2many", raw)["feats"] if isinstance(raw, dict) else raw


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["train", "eval", "fused"])
def test_tap_yields_the_fine_maps_and_the_head_inputs(
    detectors: dict[str, DetectionModel], family: str, mode: str
) -> None:
    detector = copy.deepcopy(detectors[family]).train(mode == "train")
    if mode == "fused":
        detector.fuse(verbose=False)
    image = torch.rand(2, 3, 64, 96)
    with tap(detector, "fine") as maps:
        predictions = detector(image)
        assert [tuple(level.shape[2:]) for level in maps.fine] == [(32, 48), (16, 24)]
        assert [tuple(level.shape[2:]) for level in maps.pyramid] == [(8, 12), (4, 6), (2, 3)]
        inputs = head_inputs(predictions)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps.pyramid, inputs, strict=True))
        channels = FeatureDims(*(sum(level.shape[1] for level in levels) for levels in (maps.pyramid, maps.fine)))
        detector(torch.rand(1, 3, 64, 64))
        assert [len(level) for level in (*maps.fine, *maps.pyramid)] == [1] * 5
    with tap(detector, "paper") as maps:
        detector(image)
        assert maps.fine == []
        assert [tuple(level.shape[2:]) for level in maps.pyramid] == [(8, 12), (4, 6), (2, 3)]
    assert feature_dims(detector, "fine") == channels
    assert feature_dims(detector, "paper") == FeatureDims(channels.means, 0)


def test_the_fine_maps_are_the_last_of_their_stride() -> None:
    detector = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    assert fine_layers(detector) == [0, 2]  # the stem; the first stage after its second convolution


def test_tap_leaves_nothing_on_the_model(detectors: dict[str, DetectionModel]) -> None:
    detector = detectors["v8"].train()
    with pytest.raises(RuntimeError), tap(detector, "fine"):
        detector(torch.rand(1, 7, 64, 64))  # a wrong number of channels
    with tap(detector, "fine"):
        detector(torch.rand(1, 3, 64, 64))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in detector.modules())
    pickle.dumps(copy.deepcopy(detector))


@pytest.mark.parametrize("training", [True, False])
def test_feature_dims_changes_neither_mode_nor_statistics(detectors: dict[str, DetectionModel], training: bool) -> None:
    detector = detectors["11"].train(training)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    feature_dims(detector, "fine")
    assert all(module.training == training for module in detector.modules())
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize("strides", [(4, 2), (2, 4), (2, 2)])
def test_a_backbone_without_strides_2_and_4_has_no_fine_maps(strides: tuple[int, int]) -> None:
    detector = nn.Module()
    detector.model = nn.Sequential(*(nn.Conv2d(3, 3, 3, stride=stride) for stride in strides))
    with pytest.raises(StudentModelError) as error:
        fine_layers(detector)
    assert str(error.value) == (
        "Features 'fine' need a backbone with stages at strides 2 and 4, as most YOLO detectors have; found none; "
        "pass --features paper."
    )


# --- box_means: B images, N boxes, C channels -------------------------------------------------------------------------


def random_case(seed: int, num_boxes: int) -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(3, channels, *size, generator=generator) for channels, size in ((2, (16, 24)), (5, (4, 6)))]
    corners = torch.rand(num_boxes, 2, 2, generator=generator).sort(dim=1).values
    return maps, torch.randint(3, (num_boxes,), generator=generator), corners.flatten(1)


def error_of_fitted_map(pool: Callable[[Tensor], Tensor], wanted: Tensor, shape: tuple[int, ...]) -> float:
    """Mean squared error that is left when a map was fitted until pooling it gives what is wanted."""
    level = torch.zeros(shape, requires_grad=True)
    optimizer = torch.optim.Adam([level], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (pool(level) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_equals_slicing_where_boxes_end_on_cells() -> None:
    maps, _, _ = random_case(0, 0)
    xyxyn = torch.tensor([[0, 0, 1, 1], [1 / 6, 1 / 4, 5 / 6, 3 / 4], [0, 1 / 4, 1 / 6, 1 / 2], [5 / 6, 3 / 4, 1, 1]])
    image = torch.tensor([2, 0, 2, 1])
    expected = []
    for index, (x1, y1, x2, y2) in zip(image.tolist(), xyxyn.tolist(), strict=True):
        parts = []
        for level in maps:
            height, width = level.shape[2:]
            rows, columns = slice(round(y1 * height), round(y2 * height)), slice(round(x1 * width), round(x2 * width))
            parts.append(level[index, :, rows, columns].mean(dim=(1, 2)))
        expected.append(torch.cat(parts))
    torch.testing.assert_close(box_means(maps, image, xyxyn), torch.stack(expected), rtol=0, atol=1e-5)


def test_equals_a_loop_over_cells_where_boxes_cut_them() -> None:
    maps, image, xyxyn = random_case(1, 20)
    expected = torch.zeros(20, 7)
    for n in range(20):
        column = 0
        for level in maps:
            height, width = level.shape[2:]
            x1, y1, x2, y2 = (xyxyn[n].double() * torch.tensor([width, height, width, height])).tolist()
            total, area = torch.zeros(level.shape[1], dtype=torch.float64), 0.0
            for y in range(height):
                for x in range(width):
                    share = max(0, min(x2, x + 1) - max(x1, x)) * max(0, min(y2, y + 1) - max(y1, y))
                    total += share * level[image[n], :, y, x].double()
                    area += share
            expected[n, column : column + level.shape[1]] = (total / area).float()
            column += level.shape[1]
    torch.testing.assert_close(box_means(maps, image, xyxyn), expected, rtol=0, atol=2e-4)


def test_repeats_bitwise_whatever_the_memory_layout_of_the_maps() -> None:
    maps, image, xyxyn = random_case(2, 30)
    first = box_means(maps, image, xyxyn)
    assert torch.equal(first, box_means(maps, image, xyxyn))
    channels_last = [level.contiguous(memory_format=torch.channels_last) for level in maps]
    torch.testing.assert_close(box_means(channels_last, image, xyxyn), first, rtol=0, atol=1e-6)


def test_converges_when_maps_are_fitted_to_given_means() -> None:
    _, image, xyxyn = random_case(3, 6)
    wanted = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert error_of_fitted_map(lambda level: box_means([level], image, xyxyn), wanted, (3, 4, 8, 8)) < 1e-4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num_boxes=st.integers(1, 12), scale=st.floats(-3, 3), shift=st.floats(-3, 3))
def test_algebra(seed: int, num_boxes: int, scale: float, shift: float) -> None:
    maps, image, xyxyn = random_case(seed, num_boxes)
    means = box_means(maps, image, xyxyn)
    affine = box_means([scale * level + shift for level in maps], image, xyxyn)
    torch.testing.assert_close(affine, scale * means + shift, rtol=0, atol=1e-4)
    order = torch.randperm(num_boxes, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(box_means(maps, image[order], xyxyn[order]), means[order], rtol=0, atol=1e-6)
    mirrored = torch.stack([1 - xyxyn[:, 2], xyxyn[:, 1], 1 - xyxyn[:, 0], xyxyn[:, 3]], dim=1)
    torch.testing.assert_close(box_means([level.flip(3) for level in maps], image, mirrored), means, rtol=0, atol=1e-3)
    lowest = torch.cat([level.amin(dim=(2, 3)) for level in maps], dim=1)[image]
    assert (means >= lowest - 1e-4).all()


def test_a_box_is_the_area_weighted_mean_of_its_halves() -> None:
    maps, _, _ = random_case(4, 0)
    whole, left, right = [0.1, 0.2, 0.9, 0.7], [0.1, 0.2, 0.35, 0.7], [0.35, 0.2, 0.9, 0.7]
    means = box_means(maps, torch.zeros(3, dtype=torch.int64), torch.tensor([whole, left, right]))
    torch.testing.assert_close(means[0], (0.25 * means[1] + 0.55 * means[2]) / 0.8, rtol=0, atol=1e-5)


def test_boxes_are_clipped_and_points_take_the_value_of_their_cell() -> None:
    maps, _, _ = random_case(5, 0)
    boxes = torch.tensor([[-0.5, -0.5, 0.5, 2.0], [0, 0, 0.5, 1], [1, 1, 1, 1], [0.3, 0.3, 0.3, 0.3], [1.5, 0, 2, 1]])
    means = box_means(maps, torch.zeros(5, dtype=torch.int64), boxes)
    torch.testing.assert_close(means[0], means[1])
    torch.testing.assert_close(means[2], torch.cat([level[0, :, -1, -1] for level in maps]), rtol=0, atol=1e-4)
    torch.testing.assert_close(means[3], torch.cat([maps[0][0, :, 4, 7], maps[1][0, :, 1, 1]]), rtol=0, atol=1e-4)
    assert means.isfinite().all()


def test_no_boxes_give_no_rows() -> None:
    maps, image, xyxyn = random_case(6, 0)
    maps[0].requires_grad_()
    means = box_means(maps, image, xyxyn)
    assert means.shape == (0, 7)
    assert means.requires_grad  # on several devices, others wait for the gradients of this one


def test_gradient_reaches_the_cells_of_the_box_only() -> None:
    level = torch.randn(2, 1, 4, 4, requires_grad=True)
    box_means([level], torch.tensor([1]), torch.tensor([[0.25, 0.5, 0.75, 1.0]])).sum().backward()
    expected = torch.zeros(2, 1, 4, 4)
    expected[1, 0, 2:, 1:3] = 0.25
    torch.testing.assert_close(level.grad, expected, rtol=0, atol=1e-6)


def test_is_float32_under_autocast() -> None:
    maps, image, xyxyn = random_case(7, 9)
    expected = box_means(maps, image, xyxyn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(box_means(maps, image, xyxyn), expected)
        assert box_means([level.bfloat16() for level in maps], image, xyxyn).dtype == torch.float32


# --- box_patches ------------------------------------------------------------------------------------------------------


def bilinear(level: Tensor, y: float, x: float) -> Tensor:
    """Value of a (C, H, W) map at a point, cell centres at whole numbers, constant beyond the border's centres."""
    height, width = level.shape[1:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    down, right = y - top, x - left
    upper = (1 - right) * level[:, top, left] + right * level[:, top, left + 1]
    lower = (1 - right) * level[:, top + 1, left] + right * level[:, top + 1, left + 1]
    return (1 - down) * upper + down * lower


def test_patches_equal_a_loop_over_points() -> None:
    maps, image, xyxyn = random_case(8, 7)
    expected = torch.zeros(7, 7, GRID, GRID)
    for n in range(7):
        first = 0
        for level in maps:
            channels, height, width = level.shape[1:]
            x1, y1, x2, y2 = (xyxyn[n] * torch.tensor([width, height, width, height])).tolist()
            for row in range(GRID):
                for column in range(GRID):
                    y, x = y1 + (row + 0.5) / GRID * (y2 - y1), x1 + (column + 0.5) / GRID * (x2 - x1)
                    expected[n, first : first + channels, row, column] = bilinear(level[image[n]], y - 0.5, x - 0.5)
            first += channels
    torch.testing.assert_close(box_patches(maps, image, xyxyn), expected, rtol=0, atol=1e-4)


def test_patches_repeat_bitwise_forwards_and_backwards() -> None:
    maps, image, xyxyn = random_case(9, 30)
    runs = []
    for _ in range(2):
        leaves = [level.clone().requires_grad_() for level in maps]
        patches = box_patches(leaves, image, xyxyn)
        patches.square().sum().backward()
        runs.append([patches.detach(), *(leaf.grad for leaf in leaves)])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


def test_converges_when_a_map_is_fitted_to_given_patches() -> None:
    xyxyn = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    image = torch.zeros(1, dtype=torch.int64)
    wanted = box_patches([torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))], image, xyxyn)
    assert error_of_fitted_map(lambda level: box_patches([level], image, xyxyn), wanted, (1, 2, 6, 6)) < 1e-5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num_boxes=st.integers(1, 6), scale=st.floats(-3, 3), shift=st.floats(-3, 3))
def test_algebra_of_patches(seed: int, num_boxes: int, scale: float, shift: float) -> None:
    maps, image, xyxyn = random_case(seed, num_boxes)
    patches = box_patches(maps, image, xyxyn)
    affine = box_patches([scale * level + shift for level in maps], image, xyxyn)
    torch.testing.assert_close(affine, scale * patches + shift, rtol=0, atol=1e-4)
    mirrored = torch.stack([1 - xyxyn[:, 2], xyxyn[:, 1], 1 - xyxyn[:, 0], xyxyn[:, 3]], dim=1)
    flipped = box_patches([level.flip(3) for level in maps], image, mirrored)
    torch.testing.assert_close(flipped, patches.flip(3), rtol=0, atol=1e-3)
    turned = box_patches([level.transpose(2, 3) for level in maps], image, xyxyn[:, [1, 0, 3, 2]])
    torch.testing.assert_close(turned, patches.transpose(2, 3), rtol=0, atol=1e-4)


def test_patches_of_boxes_beyond_the_image_are_those_of_what_is_inside() -> None:
    maps, _, _ = random_case(10, 0)
    boxes = torch.tensor([[-0.5, -0.5, 0.5, 2.0], [0, 0, 0.5, 1], [0.3, 0.3, 0.3, 0.3]])
    patches = box_patches(maps, torch.zeros(3, dtype=torch.int64), boxes)
    torch.testing.assert_close(patches[0], patches[1])
    torch.testing.assert_close(patches[2], patches[2, :, :1, :1].expand_as(patches[2]), rtol=0, atol=1e-5)


def test_patches_are_float32_under_autocast() -> None:
    maps, image, xyxyn = random_case(11, 4)
    expected = box_patches(maps, image, xyxyn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(box_patches(maps, image, xyxyn), expected)
        assert box_patches([level.bfloat16() for level in maps], image, xyxyn).dtype == torch.float32


# --- region_features --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_boxes", [0, 5])
def test_a_region_is_the_means_of_the_pyramid_and_the_patches_of_the_fine_maps(num_boxes: int) -> None:
    pyramid, image, xyxyn = random_case(12, num_boxes)
    fine = [torch.randn(3, 2, 32, 48), torch.randn(3, 4, 16, 24)]
    found = region_features(FeatureMaps(fine, pyramid), image, xyxyn)
    assert torch.equal(found.means, box_means(pyramid, image, xyxyn))
    assert torch.equal(found.patches, box_patches(fine, image, xyxyn))
    without = region_features(FeatureMaps([], pyramid), image, xyxyn)
    assert torch.equal(without.means, found.means)
    assert without.patches.shape == (num_boxes, 0, GRID, GRID)


def test_patches_take_no_gradient_back() -> None:
    fine, image, xyxyn = random_case(13, 4)
    pyramid = [level.clone().requires_grad_() for level in fine]
    fine = [level.requires_grad_() for level in fine]
    found = region_features(FeatureMaps(fine, pyramid), image, xyxyn)
    assert found.means.requires_grad
    assert not found.patches.requires_grad
