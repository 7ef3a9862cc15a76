"""Qwen3-VL models with random weights, made on the device, as `random_llava.py` makes LLaVA's.

The released checkpoint's limits of pixels make 64 tokens of a crop of 224 px, which they enlarge to 256. The tokenizer
is the shipped miniature's, with the marks of a picture added to it.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForImageTextToText,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from bench.teachers.one_by_one import never_end
from bench.teachers.random_llava import miniature_processor
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.vlm.describe import describe_vlm
from mocha_pipe.teacher_cache.teachers.vlm.teacher import VlmTeacher

QwenGeometry = Literal["qwen3-vl-8b", "tiny-qwen3-vl"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><image><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MARKS = {"video": "<|video_pad|>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
_TEXT: dict[QwenGeometry, dict[str, Any]] = {
    "qwen3-vl-8b": {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144,
        "rope_parameters": {"rope_theta": 5e6, "rope_type": "default", "mrope_section": [24, 20, 20]},
    },
    "tiny-qwen3-vl": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024,
        "rope_parameters": {"rope_theta": 5e6, "rope_type": "default", "mrope_section": [4, 2, 2]},
    },
}  # fmt: skip
_VISION: dict[QwenGeometry, dict[str, Any]] = {
    "qwen3-vl-8b": {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
        "patch_size": 16, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
    },
    "tiny-qwen3-vl": {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
        "patch_size": 16, "num_position_embeddings": 256, "deepstack_visual_indexes": [0],
    },
}  # fmt: skip
_PIXELS = {"shortest_edge": 65536, "longest_edge": 16777216}


def random_qwen(geometry: QwenGeometry, config: TeacherConfig, *, model: Any = None) -> VlmTeacher:
    """A teacher of that geometry; answers never end before the length limit.

    Args:
        geometry: `qwen3-vl-8b` is that of Qwen/Qwen3-VL-8B-Instruct: a tower of 27 layers whose states enter four
            layers of the language model, which has 36, width 4096. `tiny-qwen3-vl` is for tests.
        config: everything else; its model is not read.
        model: of another teacher of that geometry, which is not made again.

    Raises:
        TeacherError: the device does not exist, or a setting is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        architecture = write_settings(Path(folder) / geometry, geometry)
        described = describe_vlm(replace(config, model=str(Path(folder) / geometry)))
    if model is None:
        torch.manual_seed(0)
        loader: Any = AutoModelForImageTextToText  # its methods are not typed
        with described.device:
            model = loader.from_config(architecture, dtype=described.dtype)
        model.eval().requires_grad_(requires_grad=False)
    teacher = VlmTeacher(described, model, batch=config.batch, compiled=config.compile)
    never_end(teacher)
    return teacher


def write_settings(folder: Path, geometry: QwenGeometry) -> Qwen3VLConfig:
    """A checkpoint's folder without weights."""
    tokenizer = miniature_processor().tokenizer
    tokenizer.add_tokens(list(_MARKS.values()), special_tokens=True)
    pixels = {"patch_size": _VISION[geometry]["patch_size"], "merge_size": 2, "size": _PIXELS}
    make_images: Any = Qwen2VLImageProcessor
    make_videos: Any = Qwen3VLVideoProcessor
    make_processor: Any = Qwen3VLProcessor
    make_processor(
        image_processor=make_images(**pixels),
        video_processor=make_videos(**pixels),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(mark) for name, mark in _MARKS.items()}
    architecture = Qwen3VLConfig(
        text_config={"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, **_TEXT[geometry]},
        vision_config=_VISION[geometry],
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        **ids,
    )
    architecture.save_pretrained(folder)
    save_file({"nothing": torch.zeros(0)}, folder / "model.safetensors")
    return architecture
