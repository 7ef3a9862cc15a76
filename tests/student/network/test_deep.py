"""Features of the end of the backbone: which maps, which cells, and what becomes of them."""

from collections.abc import Sequence

import mocha_pipe.student.training  # noqa: F401  (prepares the environment)

# isort: split

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.network.deep import MARGIN, box_maxima, deep_layers, last_stage, middle
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import FeatureDims, feature_dims, region_features, tap
from mocha_pipe.student.network.translation import KEPT_WEIGHT


@pytest.fixture(scope="module")
def detectors(tiny_models: dict[str, str]) -> dict[str, DetectionModel]:
    return {family: DetectionModel(path, nc=3, verbose=False).eval() for family, path in tiny_models.items()}


@pytest.fixture
def model(tiny_models: dict[str, str]) -> DistillModel:
    torch.manual_seed(0)
    return DistillModel(tiny_models["v8"], num_classes=3, features="deep", target_dim=5)


def test_the_ends_of_the_last_three_stages(detectors: dict[str, DetectionModel]) -> None:
    assert {family: deep_layers(detector) for family, detector in detectors.items()} == {
        "v8": [4, 6, 9], "11": [4, 6, 10], "26": [4, 6, 10],
    }  # fmt: skip
    for detector in detectors.values():
        with tap(detector, "deep") as maps:
            detector(torch.rand(1, 3, 128, 128))
        assert [level.shape[2] for level in maps.deep] == [16, 8, 4]


def test_the_copied_stage_gives_at_first_what_the_detectors_own_gives(detectors: dict[str, DetectionModel]) -> None:
    for detector in detectors.values():
        with tap(detector, "deep") as maps, torch.no_grad():
            detector(torch.rand(2, 3, 64, 64))
            copied = last_stage(detector)(maps.deep[1])
        assert torch.equal(copied, maps.deep[2])


def test_a_backbone_of_two_stages_is_refused(tiny_models: dict[str, str]) -> None:
    detector = DetectionModel(tiny_models["v8"], nc=3, verbose=False)
    detector.yaml["backbone"] = detector.yaml["backbone"][:2]
    with pytest.raises(StudentModelError) as error:
        last_stage(detector)
    assert str(error.value) == ("Features 'deep' need a backbone of three stages, found 2; pass --features paper.")


def test_a_backbone_that_branches_is_refused(tiny_models: dict[str, str]) -> None:
    detector = DetectionModel(tiny_models["v8"], nc=3, verbose=False)
    detector.model[8].f = [-1, 4]
    with pytest.raises(StudentModelError) as error:
        last_stage(detector)
    assert str(error.value) == (
        "Features 'deep' need a backbone whose layers follow one another, as most YOLO detectors have; found one that "
        "branches; pass --features paper."
    )


def plain_maximum(level_CHW: Tensor, xyxyn: Sequence[float]) -> Tensor:
    """Over the cells whose centre is inside; where no centre is, over the cell that the box begins in."""
    _, height, width = level_CHW.shape
    left, top, right, bottom = (share * side for share, side in zip(xyxyn, [width, height] * 2, strict=True))
    columns = [x for x in range(width) if left <= x + 0.5 < right] or [min(int(left + 0.5), width - 1)]
    rows = [y for y in range(height) if top <= y + 0.5 < bottom] or [min(int(top + 0.5), height - 1)]
    return level_CHW[:, rows][:, :, columns].amax(dim=(1, 2))


SHARE = st.integers(0, 999).map(lambda thousandths: thousandths / 1000 + 0.00037)  # no centre and no edge of a cell


@settings(deadline=None)
@given(corners=st.lists(st.tuples(SHARE, SHARE, SHARE, SHARE), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_maxima_equal_a_plain_reference(corners: list[tuple[float, float, float, float]], seed: int) -> None:
    torch.manual_seed(seed)
    level = torch.randn(2, 3, 7, 5)
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    image = torch.arange(len(boxes)) % 2
    (found,) = box_maxima([level], image, torch.tensor(boxes))
    for row, index, box in zip(found, image, boxes, strict=True):
        assert torch.equal(row, plain_maximum(level[index], box))


def test_boxes_beyond_the_image_and_none_at_all() -> None:
    level = torch.randn(1, 2, 4, 4)
    outside = torch.tensor([[-1.0, -1.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    (found,) = box_maxima([level], torch.zeros(2, dtype=torch.int64), outside)
    assert torch.equal(found[0], level[0].amax(dim=(1, 2)))
    assert torch.equal(found[1], level[0, :, 3, 3])
    assert box_maxima([level], torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))[0].shape == (0, 2)


def test_the_middle_of_a_box_is_less_its_margins_of_what_lies_in_the_image() -> None:
    boxes = torch.tensor([[0.0, 0.5, 1.0, 1.0], [-1.0, 0.2, 0.5, 0.2]])
    assert MARGIN == 0.2
    assert torch.allclose(middle(boxes), torch.tensor([[0.2, 0.6, 0.8, 0.9], [0.1, 0.2, 0.4, 0.2]]))


def embedding(model: DistillModel, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings and features of one box an image."""
    with tap(model, "deep") as maps:
        model.look(images)
    features = region_features(model.translation.own_maps(maps), torch.arange(len(boxes)), boxes)
    return model.translation.embed(features), features.means


def test_an_embedding_is_the_translation_and_the_detectors_own_maxima_beside_it(model: DistillModel) -> None:
    model.eval()
    boxes = torch.tensor([[0.1, 0.1, 0.9, 0.9], [0.2, 0.3, 0.6, 0.8]])
    embedded, means = embedding(model, torch.rand(2, 3, 64, 64), boxes)
    dims = feature_dims(model, "deep")
    assert dims == model.translation.dims == FeatureDims(means.shape[1], 0, embedded.shape[1] - 5)
    assert model.translation.embedding_dim == embedded.shape[1]
    assert torch.allclose(embedded[:, :5].norm(dim=1), torch.ones(2))
    assert torch.allclose(embedded[:, 5:].norm(dim=1), torch.full((2,), KEPT_WEIGHT))
    assert torch.allclose(
        embedded[:, 5:], KEPT_WEIGHT * torch.nn.functional.normalize(means[:, : dims.kept], dim=1), atol=1e-6
    )


def test_only_the_students_own_stage_and_map_learn_and_no_statistic_moves(model: DistillModel) -> None:
    model.frozen, model.detector_learns = True, False
    model.train()
    for part in model.model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    boxes = torch.tensor([[0.5, 0.5, 0.8, 0.8], [0.4, 0.5, 0.6, 0.8], [0.5, 0.5, 1.0, 1.0]])
    batch = {
        "img": torch.rand(3, 3, 64, 64), "batch_idx": torch.arange(3.0), "bboxes": boxes, "rows": torch.arange(3),
        "targets": torch.randn(3, 5),
    }  # fmt: skip
    loss, items = model.loss(batch)
    assert list(items) == ["dist_loss", "emb_loss"]
    loss.sum().backward()
    learn = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert {name.rpartition(".")[0].split(".")[0] for name in learn} == {"translation"}
    assert "translation.project.weight" in learn
    assert any(name.startswith("translation.stage.0.") for name in learn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
