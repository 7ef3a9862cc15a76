"""The distillation terms inside ultralytics' loss."""

import copy
import pickle
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import pytest
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.student.choices import OBJECTIVE_NAMES, ObjectiveName
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import region_features, tap
from mocha_pipe.student.network.losses import local_alignment_loss
from mocha_pipe.student.network.objectives import calibrated_relational_loss

FAMILIES = ("v8", "11", "26")


def make_model(config: str, **settings: Any) -> DistillModel:
    torch.manual_seed(0)
    settings = {"num_classes": 3, "features": "fine", "target_dim": 8, **settings}
    model = DistillModel(config, **settings)
    model.args = get_cfg()
    return model


def make_batch(with_targets: bool = True) -> dict[str, Tensor]:
    """Three images with 2, 0 and 3 boxes."""
    generator = torch.Generator().manual_seed(1)
    batch = {
        "img": torch.rand(3, 3, 64, 64, generator=generator),
        "batch_idx": torch.tensor([0.0, 0, 2, 2, 2]),
        "cls": torch.tensor([[0.0], [1], [2], [0], [1]]),
        "bboxes": torch.cat([0.3 + 0.4 * torch.rand(5, 2, generator=generator), torch.full((5, 2), 0.4)], dim=1),
    }
    if with_targets:
        batch["rows"] = torch.tensor([4, 0, 3, 9, 1])
        batch["targets"] = torch.randn(5, 8, generator=generator)
    return batch


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("features", ["fine", "paper"])
def test_adds_the_weighted_losses_of_the_translated_regions(
    tiny_models: dict[str, str], family: str, features: str
) -> None:
    model = make_model(
        tiny_models[family], features=features, lambda_dist=0.5, lambda_emb=3.0, objective="calibrated"
    ).eval()
    batch = make_batch()
    detection, detection_items = DetectionModel.loss(copy.deepcopy(model), make_batch(with_targets=False))
    loss, items = model.loss(batch)
    with tap(model, features) as maps:
        model(batch["img"])
    centre, half = batch["bboxes"][:, :2], batch["bboxes"][:, 2:] / 2
    xyxyn = torch.cat([centre - half, centre + half], dim=1)
    x = model.translation(region_features(maps, batch["batch_idx"].long(), xyxyn))
    local = 0.5 * local_alignment_loss(x, batch["targets"])
    relational = 3.0 * calibrated_relational_loss(x, batch["targets"])
    torch.testing.assert_close(loss, torch.cat([detection, 3 * torch.stack([local, relational])]))
    torch.testing.assert_close(items, {**detection_items, "dist_loss": local.detach(), "emb_loss": relational.detach()})


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_every_objective_teaches_the_detector_and_leaves_a_stock_model(
    tiny_models: dict[str, str], objective: ObjectiveName
) -> None:
    model = make_model(tiny_models["v8"], objective=objective)
    terms = model.loss(make_batch())[0][-2:]
    assert torch.isfinite(terms).all()
    terms.sum().backward()
    learned = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert learned == {"model", "translation"} | ({"decoder"} if objective == "linear" else set())
    stripped = model.stripped()
    assert set(stripped._modules) == set(make_model(tiny_models["v8"]).stripped()._modules)
    assert not set(stripped.__dict__) & {"features", "objective"}


def test_a_batch_without_targets_has_the_detection_terms_only(tiny_models: dict[str, str]) -> None:
    _, items = make_model(tiny_models["v8"]).loss(make_batch(with_targets=False))
    assert list(items) == ["box_loss", "cls_loss", "dfl_loss"]


def test_boxes_without_a_target_do_not_count(tiny_models: dict[str, str]) -> None:
    model = make_model(tiny_models["v8"]).eval()
    batch, fewer = make_batch(), make_batch()
    batch["rows"] = torch.tensor([4, -1, 3, -1, 1])
    kept = torch.tensor([0, 2, 4])
    fewer = {name: value if name == "img" else value[kept] for name, value in fewer.items()}
    items, expected = model.loss(batch)[1], model.loss(fewer)[1]
    for name in ("dist_loss", "emb_loss"):
        torch.testing.assert_close(items[name], expected[name])
    batch["rows"] = torch.full((5,), -1)
    loss, items = model.train().loss(batch)
    assert items["dist_loss"] == items["emb_loss"] == 0
    loss.sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_distillation_gradient_reaches_the_backbone_and_not_the_head(
    tiny_models: dict[str, str], family: str
) -> None:
    model = make_model(tiny_models[family]).train()
    loss, _ = model.loss(make_batch())
    loss[-2:].sum().backward()
    assert model.model[0].conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.translation.mix.parameters())
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in model.model[-1].parameters())


def test_the_model_is_copied_and_pickled_after_a_loss(tiny_models: dict[str, str]) -> None:
    model = make_model(tiny_models["26"]).train()
    model.loss(make_batch())[0].sum().backward()
    twin = copy.deepcopy(model)
    twin.criterion = None
    assert all(map(torch.equal, pickle.loads(pickle.dumps(twin)).state_dict().values(), model.state_dict().values()))


def test_takes_the_weights_of_a_plain_detector(tiny_models: dict[str, str]) -> None:
    torch.manual_seed(5)
    plain = DetectionModel(tiny_models["11"], nc=3, verbose=False)
    model = make_model(tiny_models["11"])
    model.load(plain)
    weights = model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in plain.state_dict().items())


def test_stripped_is_the_stock_class_and_predicts_the_same(tiny_models: dict[str, str]) -> None:
    model = make_model(tiny_models["26"]).eval()
    stripped = model.stripped()
    assert type(stripped) is DetectionModel
    assert not set(stripped.__dict__) & {"features", "lambda_dist", "lambda_emb", "objective"}
    assert all("translation" not in name for name in stripped.state_dict())
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(stripped(image)[0], model(image)[0])
    assert isinstance(model, DistillModel)


def test_the_loss_is_float32_under_autocast(tiny_models: dict[str, str]) -> None:
    model = make_model(tiny_models["v8"]).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, items = model.loss(make_batch())
    assert items["dist_loss"].dtype == items["emb_loss"].dtype == torch.float32
    loss.sum().backward()
    assert model.translation.project.weight.grad.isfinite().all()
