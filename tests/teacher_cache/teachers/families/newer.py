"""Families with a tower of timm's, and Gemma 4, which counts its pictures in soft tokens."""

from pathlib import Path

import pytest
import transformers as hf

from tests.teacher_cache.teachers.families.llava import square
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


def save_fast_vlm(folder: Path) -> None:
    """A convolutional tower; its pictures have no class token."""
    pytest.importorskip("timm")
    tokenizer = build_tokenizer(image_token="<image>")
    tower = {
        "layers": [1, 1, 1, 1, 1], "embed_dims": [8, 16, 16, 32, WIDTH], "mlp_ratios": [2, 2, 2, 2, 2],
        "inference_mode": True,
    }  # fmt: skip
    config = hf.FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "fastvit_mci3",
            "hidden_size": 2 * WIDTH,
            "model_args": tower,
        },
        text_config=hf.Qwen2Config(**text_settings(tokenizer)),
        image_token_index=token(tokenizer, "<image>"),
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": 256}, crop_size=square(256)),
        tokenizer=tokenizer,
        patch_size=64,
        vision_feature_select_strategy="full",
        chat_template=chat("<image>"),
        num_additional_image_tokens=0,
    )
    save(folder, hf.FastVlmForConditionalGeneration(config), processor)


def save_perception_lm(folder: Path) -> None:
    pytest.importorskip("timm")
    tokenizer = build_tokenizer(image_token="<image>", video_token="<video>")
    config = hf.PerceptionLMConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_base_patch16_224",
            "do_pooling": False,
            "global_pool": "map",
            "model_args": {
                "embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS, "img_size": (32, 32), "patch_size": 8,
                "ref_feat_shape": (4, 4), "use_post_transformer_norm": False,
            },
        },
        text_config=hf.LlamaConfig(**text_settings(tokenizer)),
        image_token_id=token(tokenizer, "<image>"),
        video_token_id=token(tokenizer, "<video>"),
        projector_pooling_ratio=2,
    )  # fmt: skip
    config.vision_config.embed_dim = WIDTH
    processor = hf.PerceptionLMProcessor(
        image_processor=hf.PerceptionLMImageProcessor(size=square(32), tile_size=32, max_num_tiles=4),
        video_processor=hf.PerceptionLMVideoProcessor(size=square(32)),
        tokenizer=tokenizer,
        patch_size=8,
        pooling_ratio=2,
        chat_template=chat("<image>"),
    )
    save(folder, hf.PerceptionLMForConditionalGeneration(config), processor)


def save_gemma4(folder: Path) -> None:
    tokenizer = build_tokenizer(
        image_token="<|image|>",
        boi_token="<|image>",
        eoi_token="<image|>",
        audio_token="<|audio|>",
        boa_token="<|audio>",
        eoa_token="<audio|>",
        video="<|video|>",
    )
    config = hf.Gemma4Config(
        vision_config={
            **VISION,
            "num_key_value_heads": HEADS,
            "head_dim": 16,
            "patch_size": 4,
            "pooling_kernel_size": 2,
        },
        text_config=text_settings(
            tokenizer,
            head_dim=16,
            global_head_dim=16,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=-(-len(tokenizer) // 8) * 8,
            use_bidirectional_attention="vision",
        ),
        audio_config=None,
        image_token_id=token(tokenizer, "<|image|>"),
        boi_token_id=token(tokenizer, "<|image>"),
        eoi_token_id=token(tokenizer, "<image|>"),
        video_token_id=token(tokenizer, "<|video|>"),
        audio_token_id=token(tokenizer, "<|audio|>"),
        boa_token_id=token(tokenizer, "<|audio>"),
        eoa_token_index=token(tokenizer, "<audio|>"),
    )
    options = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = hf.Gemma4Processor(
        feature_extractor=hf.Gemma4AudioFeatureExtractor(),
        image_processor=hf.Gemma4ImageProcessor(**options),
        tokenizer=tokenizer,
        video_processor=hf.Gemma4VideoProcessor(**options),
        image_seq_length=70,
        chat_template=chat("<|image|>"),
    )
    save(folder, hf.Gemma4ForConditionalGeneration(config), processor)
