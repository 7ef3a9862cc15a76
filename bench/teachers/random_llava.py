"""LLaVA models with random weights, made on the device or as files: the arithmetic of a checkpoint without one.

What they say means nothing; they exist to measure speed and memory where the weights are not at hand. Tokenizer and
chat format are those of the shipped miniature, whose ids are all below any Llama's.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
)

import mocha_pipe.teacher_cache.teachers
from bench.teachers.one_by_one import never_end
from mocha_pipe.teacher_cache.teachers.checkpoint import SETTING_FILES
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.describe import describe
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

Geometry = Literal["llava-1.5-7b", "2-gigabytes", "49-tokens", "tiny"]

_MINIATURE = Path(mocha_pipe.teacher_cache.teachers.__path__[0]) / "miniature"
_TINY_SIDES: dict[Geometry, int] = {"49-tokens": 98, "tiny": 56}
_TEXT: dict[Geometry, dict[str, Any]] = {
    "llava-1.5-7b": {
        "vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    },
    "2-gigabytes": {
        "vocab_size": 32064, "hidden_size": 1280, "intermediate_size": 3456, "num_hidden_layers": 20,
        "num_attention_heads": 20, "max_position_embeddings": 1024,
    },
    **{
        geometry: {
            "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 1024,
        }
        for geometry in _TINY_SIDES
    },
}  # fmt: skip
_VISION: dict[Geometry, dict[str, Any]] = {
    "llava-1.5-7b": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 336, "patch_size": 14, "projection_dim": 768,
    },
    "2-gigabytes": {
        "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8,
        "image_size": 112, "patch_size": 14,
    },
    **{
        geometry: {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": side, "patch_size": 14,
        }
        for geometry, side in _TINY_SIDES.items()
    },
}  # fmt: skip


def random_llava(
    geometry: Geometry, config: TeacherConfig, *, chat_template: str | None = None, model: Any = None
) -> LlavaTeacher:
    """A teacher of that geometry; answers never end before the length limit, as random ones might at once.

    Args:
        geometry: `llava-1.5-7b` is that of llava-hf/llava-1.5-7b-hf: CLIP ViT-L/14 at 336 px, 576 image tokens, Llama
            of 32 layers, width 4096. `2-gigabytes` takes two in float32, `49-tokens` spends as many on a picture as
            Qwen3-VL on 224 px, and `tiny` is for tests.
        config: everything else; its model is not read.
        chat_template: how the model is asked; the miniature's way where none is given.
        model: of another teacher of that geometry, which is not made again.

    Raises:
        TeacherError: the device does not exist, or a setting is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        architecture = _write_settings(Path(folder) / geometry, geometry, chat_template)
        described = describe(replace(config, model=str(Path(folder) / geometry)))
    if model is None:
        torch.manual_seed(0)
        loader: Any = AutoModelForImageTextToText  # its methods are not typed
        with described.device:
            model = loader.from_config(architecture, dtype=described.dtype, attn_implementation="sdpa")
        model.eval().requires_grad_(requires_grad=False)
    teacher = LlavaTeacher(described, model, batch=config.batch, compiled=config.compile)
    never_end(teacher)
    return teacher


def miniature_processor() -> Any:
    """The shipped teacher's `LlavaProcessor`."""
    loader: Any = AutoProcessor  # its methods are not typed
    return loader.from_pretrained(_MINIATURE, local_files_only=True)


def write_random_llava(folder: Path, geometry: Geometry, dtype: torch.dtype) -> int:
    """A checkpoint of that geometry in a new folder, kept in that number type; how many weights it has."""
    architecture = _write_settings(folder, geometry)
    torch.manual_seed(0)
    loader: Any = AutoModelForImageTextToText  # its methods are not typed
    model = loader.from_config(architecture, dtype=dtype)
    model.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def _write_settings(folder: Path, geometry: Geometry, chat_template: str | None = None) -> LlavaConfig:
    """A checkpoint's folder, as far as `describe` looks into it."""
    folder.mkdir()
    for name in SETTING_FILES:
        if (_MINIATURE / name).is_file():
            shutil.copy(_MINIATURE / name, folder / name)
    miniature = miniature_processor()
    make_processor: Any = LlavaProcessor
    side, patch = _VISION[geometry]["image_size"], _VISION[geometry]["patch_size"]
    images = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    make_processor(
        image_processor=images,
        tokenizer=miniature.tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template or miniature.chat_template,
    ).save_pretrained(folder)
    architecture = LlavaConfig(
        vision_config=CLIPVisionConfig(**_VISION[geometry]),
        text_config=LlamaConfig(bos_token_id=1, eos_token_id=2, **_TEXT[geometry]),
        image_token_index=miniature.image_token_id,
        image_seq_length=(side // patch) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    architecture.save_pretrained(folder)
    save_file({"nothing": torch.zeros(0)}, folder / "model.safetensors")
    return architecture
