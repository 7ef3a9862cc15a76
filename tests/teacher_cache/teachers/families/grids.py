"""Families whose picture tokens have positions in two dimensions, and as many of them as the picture is large."""

from pathlib import Path
from typing import Any

import transformers as hf

from tests.teacher_cache.teachers.families.toolkit import (
    HEADS,
    LAYERS,
    VISION,
    WIDTH,
    build_tokenizer,
    chat,
    save,
    text_settings,
    token,
)

_SIZE = {"shortest_edge": 56 * 56, "longest_edge": 1024 * 1024}
_ROPE = {"rope_theta": 10000.0, "rope_type": "default", "mrope_section": [2, 3, 3]}


def qwen_tokenizer(image: str = "<|image_pad|>", start: str = "<|vision_start|>", end: str = "<|vision_end|>") -> Any:
    return build_tokenizer(
        image_token=image,
        video_token="<|video_pad|>",
        vision_start_token=start,
        vision_end_token=end,
    )


def ids(tokenizer: Any) -> dict[str, int]:
    return {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
        for name in ("image", "video", "vision_start", "vision_end")
    }


def qwen_processor(kind: Any, tokenizer: Any, patch: int, merge: int = 2, video: Any = hf.Qwen2VLVideoProcessor) -> Any:
    options = {"patch_size": patch, "merge_size": merge, "size": _SIZE}
    template = chat(tokenizer.vision_start_token + tokenizer.image_token + tokenizer.vision_end_token)
    return kind(
        image_processor=hf.Qwen2VLImageProcessor(**options),
        video_processor=video(**options),
        tokenizer=tokenizer,
        chat_template=template,
    )


def save_qwen2_vl(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    config = hf.Qwen2VLConfig(
        vision_config={
            "depth": LAYERS,
            "embed_dim": WIDTH,
            "num_heads": HEADS,
            "patch_size": 14,
            "hidden_size": WIDTH,
            "mlp_ratio": 2,
        },
        text_config=text_settings(tokenizer, rope_parameters=_ROPE),
        **ids(tokenizer),
    )
    save(folder, hf.Qwen2VLForConditionalGeneration(config), qwen_processor(hf.Qwen2VLProcessor, tokenizer, 14))


def save_qwen2_5_vl(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    config = hf.Qwen2_5_VLConfig(
        vision_config={
            "depth": LAYERS,
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "num_heads": HEADS,
            "patch_size": 14,
            "intermediate_size": 48,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        text_config=text_settings(tokenizer, rope_parameters=_ROPE),
        **ids(tokenizer),
    )
    save(folder, hf.Qwen2_5_VLForConditionalGeneration(config), qwen_processor(hf.Qwen2_5_VLProcessor, tokenizer, 14))


def save_qwen3_vl(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    config = hf.Qwen3VLConfig(
        vision_config={
            "depth": LAYERS,
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "num_heads": HEADS,
            "patch_size": 16,
            "intermediate_size": 48,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
        },
        text_config=text_settings(tokenizer, rope_parameters=_ROPE, head_dim=16),
        **ids(tokenizer),
    )
    save(
        folder,
        hf.Qwen3VLForConditionalGeneration(config),
        qwen_processor(hf.Qwen3VLProcessor, tokenizer, 16, video=hf.Qwen3VLVideoProcessor),
    )


def save_qwen3_5(folder: Path) -> None:
    """Its layers are linear and full attention in turn."""
    tokenizer = qwen_tokenizer()
    config = hf.Qwen3_5Config(
        vision_config={
            "depth": LAYERS,
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "num_heads": HEADS,
            "patch_size": 16,
            "intermediate_size": 48,
            "num_position_embeddings": 256,
        },
        text_config=text_settings(
            tokenizer,
            rope_parameters={**_ROPE, "partial_rotary_factor": 1.0},
            head_dim=16,
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
        ),
        **ids(tokenizer),
    )
    save(
        folder,
        hf.Qwen3_5ForConditionalGeneration(config),
        qwen_processor(hf.Qwen3VLProcessor, tokenizer, 16, video=hf.Qwen3VLVideoProcessor),
    )


def _save_glm(
    folder: Path, config_class: Any, model_class: Any, processor_class: Any, images: Any, videos: Any
) -> None:
    tokenizer = build_tokenizer(
        image_token="<|image|>",
        video_token="<|video|>",
        image_start_token="<|begin_of_image|>",
        image_end_token="<|end_of_image|>",
        video_start_token="<|begin_of_video|>",
        video_end_token="<|end_of_video|>",
    )
    config = config_class(
        vision_config={
            "depth": LAYERS,
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "num_heads": HEADS,
            "patch_size": 14,
            "intermediate_size": 48,
            "image_size": 224,
        },
        text_config=text_settings(tokenizer, rope_parameters={**_ROPE, "partial_rotary_factor": 1.0}),
        **{
            f"{name}_id": getattr(tokenizer, f"{name}_id")
            for name in (
                "image_token",
                "video_token",
                "image_start_token",
                "image_end_token",
                "video_start_token",
                "video_end_token",
            )
        },
    )
    options = {"patch_size": 14, "merge_size": 2, "size": _SIZE}
    processor = processor_class(
        image_processor=images(**options),
        video_processor=videos(**options),
        tokenizer=tokenizer,
        chat_template=chat("<|begin_of_image|><|image|><|end_of_image|>"),
    )
    save(folder, model_class(config), processor)


def save_glm4v(folder: Path) -> None:
    _save_glm(
        folder,
        hf.Glm4vConfig,
        hf.Glm4vForConditionalGeneration,
        hf.Glm4vProcessor,
        hf.Glm4vImageProcessor,
        hf.Glm4vVideoProcessor,
    )


def save_glm46v(folder: Path) -> None:
    _save_glm(
        folder,
        hf.Glm46VConfig,
        hf.Glm46VForConditionalGeneration,
        hf.Glm46VProcessor,
        hf.Glm46VImageProcessor,
        hf.Glm46VVideoProcessor,
    )


def save_video_llama_3(folder: Path) -> None:
    tokenizer = build_tokenizer(image_token="<image>", video_token="<video>")
    config = hf.VideoLlama3Config(
        vision_config={**VISION, "patch_size": 14},
        text_config=hf.Qwen2Config(**text_settings(tokenizer)),
        image_token_id=token(tokenizer, "<image>"),
        video_token_id=token(tokenizer, "<video>"),
    )
    processor = hf.VideoLlama3Processor(
        image_processor=hf.VideoLlama3ImageProcessor(patch_size=14, merge_size=2, size=_SIZE),
        video_processor=hf.VideoLlama3VideoProcessor(patch_size=14, merge_size=2, size=_SIZE),
        tokenizer=tokenizer,
        chat_template=chat("<image>"),
    )
    save(folder, hf.VideoLlama3ForConditionalGeneration(config), processor)
