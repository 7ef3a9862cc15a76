"""Every family that is proven to be a teacher, and the builder of its tiny random model."""

from collections.abc import Callable
from pathlib import Path

from tests.teacher_cache.teachers.families import grids, llava, newer, others

OFTEN: dict[str, Callable[[Path], None]] = {
    "llava": llava.save_llava,
    "llava_siglip": llava.save_llava_siglip,
    "llava_onevision": llava.save_llava_onevision,
    "internvl": llava.save_internvl,
    "qwen2_vl": grids.save_qwen2_vl,
    "qwen2_5_vl": grids.save_qwen2_5_vl,
    "qwen3_vl": grids.save_qwen3_vl,
    "qwen3_5": grids.save_qwen3_5,
    "glm4v": grids.save_glm4v,
    "gemma3": others.save_gemma3,
    "paligemma2": others.save_paligemma2,
    "idefics3": others.save_idefics3,
    "mistral3": others.save_mistral3,
    "mllama": others.save_mllama,
    "lfm2_vl": others.save_lfm2_vl,
}
"""Tested with every run: one of each kind of attention, positions, tiling and projector."""
SELDOM: dict[str, Callable[[Path], None]] = {
    "vipllava": llava.save_vipllava,
    "llava_next": llava.save_llava_next,
    "aya_vision": llava.save_aya_vision,
    "cohere2_vision": llava.save_cohere2_vision,
    "deepseek_vl": llava.save_deepseek_vl,
    "janus": llava.save_janus,
    "glm46v": grids.save_glm46v,
    "video_llama_3": grids.save_video_llama_3,
    "paligemma": others.save_paligemma,
    "idefics2": others.save_idefics2,
    "smolvlm": others.save_smolvlm,
    "granite_docling": others.save_granite_docling,
    "pixtral": others.save_pixtral,
    "ovis2": others.save_ovis2,
    "fast_vlm": newer.save_fast_vlm,
    "perception_lm": newer.save_perception_lm,
    "gemma4": newer.save_gemma4,
}
"""Tested by `make test-families` alone."""
