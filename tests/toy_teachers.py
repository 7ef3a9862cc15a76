"""LLaVA and CLIP models of toy width with random weights, in Hugging Face layout: fixtures for tests of teachers.

A folder of tests gets them by importing these names in its conftest.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from tests.shared import DEVICE, made_once

RELEASED_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Llama's layout: <unk> <s> </s>, 256 bytes, pieces; then <image> and <pad> behind the base vocabulary."""
    pieces = ["▁", *map(chr, range(33, 127)), "▁t", "he", "▁the", "▁c", "▁ca", "▁cat", "an", "▁a"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "c"), ("▁c", "a"), ("▁ca", "t"), ("a", "n"), ("▁", "a")]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )


def save_llava(folder: Path, *, chat_template: str | None, image_size: int = 336, layers: int = 3) -> None:
    """Random weights from a fixed seed. Many tokens end an answer, so that answers have different lengths."""
    tokenizer = build_tokenizer()
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
    vision = CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=14,
        initializer_factor=4.0,
    )
    text = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = [2, *range(5, text.vocab_size, 6)]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """Pictures of 32 px."""
    tower = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**tower, "image_size": 32, "patch_size": 16, "initializer_factor": 4.0}
    text = {**tower, "vocab_size": 64, "max_position_embeddings": 16, "eos_token_id": 2}
    torch.manual_seed(1)
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=20)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def save_all(folder: Path) -> None:
    save_llava(folder / "toy-llava", chat_template=None)
    save_llava(folder / "small-llava", chat_template=RELEASED_CHAT_TEMPLATE, image_size=28)
    save_llava(folder / "shallow-llava", chat_template=RELEASED_CHAT_TEMPLATE, image_size=28, layers=1)
    save_clip(folder / "toy-clip")


@pytest.fixture(scope="session")
def toy_llava() -> Path:
    """Folder of a toy with the released model's picture: 336 px, patch 14, 576 image tokens.

    It has no chat template, so the released model's format is used.
    """
    return made_once("toy-teachers", save_all) / "toy-llava"


@pytest.fixture(scope="session")
def small_llava() -> Path:
    """Folder of a toy with pictures of 28 px and four image tokens, and the released chat template."""
    return made_once("toy-teachers", save_all) / "small-llava"


@pytest.fixture(scope="session")
def shallow_llava() -> Path:
    """Folder of a toy like the small one, with one layer in tower and language model."""
    return made_once("toy-teachers", save_all) / "shallow-llava"


@pytest.fixture(scope="session")
def toy_clip() -> Path:
    """Folder of a toy CLIP with pictures of 32 px."""
    return made_once("toy-teachers", save_all) / "toy-clip"


@pytest.fixture(scope="session")
def make_teacher() -> Callable[..., LlavaTeacher]:
    """Load a teacher in float32 on the CPU, once per set of options."""
    loaded: dict[tuple[tuple[str, object], ...], LlavaTeacher] = {}

    def make(folder: Path, **options: object) -> LlavaTeacher:
        key = (("model", folder), *sorted(options.items()))
        if key not in loaded:
            config = TeacherConfig(model=str(folder), **{"device": DEVICE, "dtype": "float32", **options})
            loaded[key] = LlavaTeacher.load(config)
        return loaded[key]

    return make


@pytest.fixture(scope="session")
def make_crops() -> Callable[[int, int], list[NDArray[np.uint8]]]:
    """Smooth random pictures: n of (size, size, 3)."""

    def make(count: int, size: int) -> list[NDArray[np.uint8]]:
        rng = np.random.default_rng(7)
        coarse = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
        return [
            np.ascontiguousarray(tile.repeat(-(-size // 4), 0).repeat(-(-size // 4), 1)[:size, :size])
            for tile in coarse
        ]

    return make
