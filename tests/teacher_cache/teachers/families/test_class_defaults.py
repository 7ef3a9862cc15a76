"""Image tokens of a crop by the default settings of a family's classes, as docs/teachers.md has them."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoProcessor, VipLlavaConfig
from transformers.models.smolvlm import processing_smolvlm

from mocha_pipe.teacher_cache.teachers.vlm.questions import Questions
from mocha_pipe.teacher_cache.teachers.vlm.sizes import choose_size
from tests.teacher_cache.teachers.families.llava import clip_images
from tests.teacher_cache.teachers.families.table import OFTEN, SELDOM

_VISION = VipLlavaConfig().vision_config
COUNTS: dict[str, tuple[int, dict[str, Any]]] = {
    "vipllava": (576, {
        "image_processor": clip_images(_VISION.image_size), "patch_size": _VISION.patch_size,
        "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
    }),
    "internvl": (256, {}),
    "aya_vision": (169, {}),
    "cohere2_vision": (256, {}),
    "deepseek_vl": (576, {}),
    "janus": (576, {}),
    "qwen2_vl": (64, {}),
    "glm4v": (64, {}),
    "glm46v": (64, {}),
    "gemma3": (256, {}),
    "gemma4": (256, {}),
    "idefics2": (64, {}),
    "idefics3": (169, {}),
    "smolvlm": (169, {}),
    "granite_docling": (64, {}),
    "mllama": (1, {}),
    "lfm2_vl": (64, {}),
    "ovis2": (256, {}),
}  # fmt: skip
"""By family: the tokens, and what its processor is made of where that is not all in its class."""


@pytest.mark.families
@pytest.mark.parametrize("family", COUNTS)
def test_a_crop_costs_what_the_table_says(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model's processor, with everything but its tokenizer and chat format left at the default."""
    monkeypatch.setattr(processing_smolvlm, "num2words", str)
    {**OFTEN, **SELDOM}[family](tmp_path / family)
    small = AutoProcessor.from_pretrained(tmp_path / family)
    tokens, options = COUNTS[family]
    parts = {name: type(getattr(small, name))() for name in small.get_attributes() if name != "tokenizer"}
    processor = type(small)(**{**parts, "tokenizer": small.tokenizer, "chat_template": small.chat_template, **options})
    image_token_id = AutoConfig.from_pretrained(tmp_path / family).image_token_id
    plain, tiling = (
        Questions(processor, "{label}?", name="it", image_token_id=image_token_id, tiled=tiled)
        for tiled in (False, True)
    )
    assert choose_size(plain, tiling, None, "it").image_tokens == tokens
