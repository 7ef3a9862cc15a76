"""Image encoders of toy width with random weights, in Hugging Face layout: a fixture for tests of teachers.

A folder of tests gets it by importing the name in its conftest.py.
"""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import (
    BitImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextImageProcessor,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaModel,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEModel,
)

from tests.shared import made_once
from tests.toy_teachers import save_clip

SIDE = 32
"""Side in pixels of the pictures that the toys take."""
_SQUARE = {"height": SIDE, "width": SIDE}
_TOWER = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
    "patch_size": 8,
}  # fmt: skip


def save_vit(folder: Path) -> None:
    """A classifier, as the best-known checkpoints are: it has no pooler."""
    ViTForImageClassification(ViTConfig(**_TOWER, initializer_range=0.5)).save_pretrained(folder)
    ViTImageProcessor(size=_SQUARE).save_pretrained(folder)


def save_clip_vision(folder: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(**_TOWER, initializer_factor=4.0)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=_SQUARE).save_pretrained(folder)


def save_siglip(folder: Path) -> None:
    text = {**_TOWER, "vocab_size": 64, "max_position_embeddings": 16}
    model = SiglipModel(SiglipConfig(vision_config=_TOWER, text_config=text))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    SiglipImageProcessor(size=_SQUARE).save_pretrained(folder)


def save_dinov2(folder: Path) -> None:
    """Its processor makes 36 pixels of a side and keeps the middle 32."""
    Dinov2Model(Dinov2Config(**_TOWER, initializer_range=0.5)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 36}, crop_size=_SQUARE).save_pretrained(folder)


def save_dinov3(folder: Path) -> None:
    config = DINOv3ViTConfig(**_TOWER, num_register_tokens=2, initializer_range=0.5)
    DINOv3ViTModel(config).save_pretrained(folder)
    ViTImageProcessor(size=_SQUARE).save_pretrained(folder)


def save_convnext(folder: Path) -> None:
    """Its processor divides the size by `crop_pct`: 36 pixels, of which the middle 32 are kept."""
    config = ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], initializer_range=0.5)
    ConvNextModel(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=8 / 9).save_pretrained(folder)


def save_resnet(folder: Path) -> None:
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=8 / 9).save_pretrained(folder)


def save_ijepa(folder: Path) -> None:
    IJepaModel(IJepaConfig(**_TOWER, initializer_range=0.5), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size=_SQUARE).save_pretrained(folder)


def save_vit_mae(folder: Path) -> None:
    """Hides patches at random."""
    ViTMAEModel(ViTMAEConfig(**_TOWER, initializer_range=0.5)).save_pretrained(folder)
    ViTImageProcessor(size=_SQUARE).save_pretrained(folder)


def save_timm(folder: Path) -> None:
    """As on the hub: config.json names no `model_type`, and holds what the processor does."""
    import timm
    from safetensors.torch import save_file

    folder.mkdir()
    weights = timm.create_model("resnet10t", num_classes=3).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    transform = {"input_size": [3, 64, 64], "crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center"}
    settings = {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": transform}
    (folder / "config.json").write_text(json.dumps(settings))


SAVERS: dict[str, Callable[[Path], None]] = {
    "vit": save_vit,
    "clip": save_clip,
    "clip_vision": save_clip_vision,
    "siglip": save_siglip,
    "dinov2": save_dinov2,
    "dinov3": save_dinov3,
    "convnext": save_convnext,
    "resnet": save_resnet,
    "ijepa": save_ijepa,
    "vit_mae": save_vit_mae,
    "timm": save_timm,
}


def save_all(folder: Path) -> None:
    for kind, save in SAVERS.items():
        if kind != "timm" or find_spec("timm"):
            torch.manual_seed(0)
            save(folder / f"toy-{kind}")


@pytest.fixture(scope="session")
def toy_encoder() -> Callable[[str], Path]:
    """Folder of a toy by the name of its kind, see `SAVERS`; timm's is skipped where timm is not installed."""

    def folder(kind: str) -> Path:
        found = made_once(f"{'timm-and-' if find_spec('timm') else ''}toy-encoders", save_all) / f"toy-{kind}"
        if not found.is_dir():
            pytest.skip("timm is not installed")
        return found

    return folder
