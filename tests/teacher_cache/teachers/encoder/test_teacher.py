"""Image encoders as teachers: against the model called by hand, what the spec says, and what is refused."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, CLIPModel, ViTForImageClassification

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.checkpoint import folder_digest
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher
from tests.shared import DEVICE

Crops = list[NDArray[np.uint8]]
ToyEncoder = Callable[[str], Path]


def load(folder: Path, **options: Any) -> Teacher:
    return load_teacher(TeacherConfig(model=str(folder), **{"device": DEVICE, "dtype": "float32", **options}))


@pytest.fixture
def copy(toy_encoder: ToyEncoder, tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may spoil."""
    return Path(shutil.copytree(toy_encoder("dinov2"), tmp_path / "my-dinov2"))


def edit(path: Path, **values: Any) -> None:
    """Overwrite fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_spec_holds_all_that_changes_an_embedding(toy_encoder: ToyEncoder) -> None:
    folder = toy_encoder("dinov2")
    assert load(folder, crop_margin=0.25).spec == TeacherSpec(
        model="toy-dinov2",
        revision=folder_digest(folder),
        prompt="",
        mode="visual",
        layer=-1,
        pooling="visual: pooler_output",
        crop_margin=0.25,
        crop_size=36,
        dtype="float32",
        visual="tower",
        visual_revision="",
        max_new_tokens=0,
        num_beams=1,
        hidden_dim=0,
        visual_dim=24,
        sees="the middle 32 x 32 of 36 x 36 pixels, 88.9 % of each side",
    )


@pytest.mark.parametrize(
    ("kind", "pooling", "sees", "dim"),
    [
        ("vit", "visual: class token of the last states", "the whole crop, 32 x 32 pixels", 24),
        ("clip", "visual: get_image_features", "the whole crop, 32 x 32 pixels", 20),
        ("clip_vision", "visual: pooler_output", "the whole crop, 32 x 32 pixels", 24),
        ("siglip", "visual: get_image_features", "the whole crop, 32 x 32 pixels", 24),
        ("dinov3", "visual: pooler_output", "the whole crop, 32 x 32 pixels", 24),
        ("convnext", "visual: pooler_output", "the middle 32 x 32 of 36 x 36 pixels, 88.9 % of each side", 24),
        ("resnet", "visual: pooler_output", "the middle 32 x 32 of 36 x 36 pixels, 88.9 % of each side", 16),
        ("ijepa", "visual: mean over the patches' last states", "the whole crop, 32 x 32 pixels", 24),
        ("timm", "visual: pooler_output", "the middle 64 x 64 of 73 x 73 pixels, 87.7 % of each side", 512),
    ],
)
def test_describing_tells_the_pooling_and_reads_no_weights(
    kind: str, pooling: str, sees: str, dim: int, toy_encoder: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy_encoder(kind)
    loaded = load(folder).spec
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: 1 / 0)
    spec = describe_teacher(TeacherConfig(model=str(folder), device=DEVICE, dtype="float32"))
    assert spec == loaded
    assert (spec.pooling, spec.sees, spec.visual_dim) == (pooling, sees, dim)


def by_hand(kind: str, folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    """What the model's own documentation takes for the picture's embedding."""
    if kind == "clip":
        model = CLIPModel.from_pretrained(folder).eval()
        return model.visual_projection(model.vision_model(pixels).pooler_output)
    if kind == "vit":  # what its classifier looks at
        return ViTForImageClassification.from_pretrained(folder).eval().vit(pixels).last_hidden_state[:, 0]
    model = AutoModel.from_pretrained(folder).eval()
    if kind == "siglip":
        return model.vision_model(pixels).pooler_output
    if kind == "ijepa":
        return model(pixels).last_hidden_state.mean(dim=1)
    return model(pixels).pooler_output.flatten(1)


@pytest.mark.parametrize(
    "kind", ["vit", "clip", "clip_vision", "siglip", "dinov2", "dinov3", "convnext", "resnet", "ijepa", "timm"]
)
def test_it_is_the_model_called_by_hand(
    kind: str, toy_encoder: ToyEncoder, make_crops: Callable[[int, int], Crops]
) -> None:
    folder = toy_encoder(kind)
    teacher = load(folder, batch=2)
    crops = make_crops(3, teacher.spec.crop_size)
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=[Image.fromarray(crop) for crop in crops], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = by_hand(kind, folder, pixels).numpy()
    found = teacher.embed(crops, ["cat"] * 3)
    assert found.hidden.shape == (3, 0)
    np.testing.assert_allclose(found.visual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_what_the_processor_cuts_off_is_not_seen(
    toy_encoder: ToyEncoder, make_crops: Callable[[int, int], Crops]
) -> None:
    teacher = load(toy_encoder("dinov2"))
    crop = make_crops(1, 36)[0]
    framed, smaller = crop.copy(), crop.copy()
    framed[:2] = framed[-2:] = framed[:, :2] = framed[:, -2:] = 0
    smaller[2] = 0
    found = teacher.embed([crop, framed, smaller], ["cat"] * 3).visual
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[2], found[0], rtol=1e-3)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_every_file_that_counts_is_in_the_digest(file: str, copy: Path) -> None:
    before = describe_teacher(TeacherConfig(model=str(copy), device=DEVICE)).digest()
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(
        content[:-1] + bytes([content[-1] ^ 1]) if file == "model.safetensors" else content + b"\n"
    )
    assert describe_teacher(TeacherConfig(model=str(copy), device=DEVICE)).digest() != before


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ({"mode": "generate"}, "--mode generate"),
        ({"prompt": "Is this a {label}?"}, "--prompt Is this a {label}?"),
        ({"layer": 2}, "--layer 2"),
        ({"visual": "openai/clip"}, "--visual openai/clip"),
    ],
)
def test_an_encoder_is_asked_nothing(option: dict[str, Any], flag: str, toy_encoder: ToyEncoder) -> None:
    with pytest.raises(TeacherError) as caught:
        load(toy_encoder("vit"), **option)
    assert str(caught.value) == (
        f"an image encoder is asked nothing; 'toy-vit' is one, and found {flag}; leave that out, or name a LLaVA: "
        "--teacher llava-hf/llava-1.5-7b-hf"
    )


def test_without_timm_its_models_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("mocha_pipe.teacher_cache.teachers.encoder.pooled.find_spec", lambda _name: None)
    (tmp_path / "lite").mkdir()
    (tmp_path / "lite" / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}}))
    (tmp_path / "lite" / "model.safetensors").write_bytes(b"")
    with pytest.raises(TeacherError) as caught:
        load(tmp_path / "lite")
    assert str(caught.value) == (
        "a teacher of timm needs the package timm; 'lite' is one and it is not installed; "
        "install it with: pip install timm"
    )


def test_a_model_that_draws_lots_is_refused(toy_encoder: ToyEncoder) -> None:
    with pytest.raises(TeacherError) as caught:
        load(toy_encoder("vit_mae"))
    assert str(caught.value) == (
        "a teacher must say the same of a picture whenever it is asked; 'toy-vit_mae' does not; "
        "name another with --teacher"
    )


def test_a_folder_without_image_processor_is_refused(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(
        TeacherError, match=r"^a teacher's folder must hold its image processor; that of 'my-dinov2' cannot"
    ):
        load(copy)


def test_a_size_that_the_model_does_not_take_is_refused(toy_encoder: ToyEncoder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_encoder("vit"), tmp_path / "my-vit"))
    edit(folder / "preprocessor_config.json", size={"height": 48, "width": 48})
    with pytest.raises(
        TeacherError, match=r"^a teacher must make one vector of a picture; 'my-vit' does not of 48 x 48 pixels \(Input"
    ):
        load(folder)


def test_a_model_that_transformers_cannot_make_is_refused(copy: Path) -> None:
    edit(copy / "config.json", hidden_act="none at all")
    with pytest.raises(
        TeacherError,
        match=r"^config\.json of a teacher must describe a model that transformers can make; that of 'my-d",
    ):
        load(copy)


def test_incomplete_weights_are_refused(copy: Path) -> None:
    edit(copy / "config.json", num_hidden_layers=3)
    with pytest.raises(TeacherError, match=r"^the weights of 'my-dinov2' must be complete; \d+ tensors are missing"):
        load(copy)


def test_code_of_a_checkpoint_is_never_run(copy: Path) -> None:
    """transformers would ask on the terminal whether to trust it."""
    edit(copy / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    (copy / "evil.py").write_text("raise SystemExit('evil')\n")
    assert load(copy).spec.visual_dim == 24


def test_a_batch_that_does_not_fit_says_what_to_try(
    toy_encoder: ToyEncoder, make_crops: Callable[[int, int], Crops], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = load(toy_encoder("vit"), batch=4)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("mocha_pipe.teacher_cache.teachers.encoder.teacher.pool", fail)
    with pytest.raises(TeacherError) as caught:
        teacher.embed(make_crops(4, 32), ["cat"] * 4)
    assert str(caught.value) == ("a batch must fit into the device's memory; 4 regions do not; pass --batch 2")
