"""Families that put one tower's states in front of a language model."""

from pathlib import Path

import transformers as hf

from tests.teacher_cache.teachers.families.toolkit import (
    VISION,
    WIDTH,
    build_tokenizer,
    chat,
    save,
    text_settings,
    token,
)


def _llava_processor(kind, tokenizer, image_processor, **options):
    return kind(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=chat("<image>"),
        num_additional_image_tokens=1,
        **options,
    )


def square(side):
    return {"height": side, "width": side}


def clip_images(side):
    return hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=square(side))


CLIP = {**VISION, "image_size": 32, "patch_size": 8}


def save_llava(folder: Path) -> None:
    tokenizer = build_tokenizer(image_token="<image>")
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**CLIP),
        text_config=hf.LlamaConfig(**text_settings(tokenizer)),
        image_token_index=token(tokenizer, "<image>"),
        vision_feature_layer=-2,
    )
    save(
        folder,
        hf.LlavaForConditionalGeneration(config),
        _llava_processor(hf.LlavaProcessor, tokenizer, clip_images(32)),
    )


def save_llava_siglip(folder: Path) -> None:
    """A tower without class token."""
    tokenizer = build_tokenizer(image_token="<image>")
    config = hf.LlavaConfig(
        vision_config=hf.SiglipVisionConfig(**CLIP, vision_use_head=False),
        text_config=hf.Qwen2Config(**text_settings(tokenizer)),
        image_token_index=token(tokenizer, "<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.SiglipImageProcessor(size=square(32)),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=chat("<image>"),
        num_additional_image_tokens=0,
    )
    save(folder, hf.LlavaForConditionalGeneration(config), processor)


def save_vipllava(folder: Path) -> None:
    tokenizer = build_tokenizer(image_token="<image>")
    config = hf.VipLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**{**CLIP, "num_hidden_layers": 3}),
        text_config=hf.LlamaConfig(**text_settings(tokenizer)),
        image_token_index=token(tokenizer, "<image>"),
        vision_feature_layers=[-2, -1],
    )
    save(
        folder,
        hf.VipLlavaForConditionalGeneration(config),
        _llava_processor(hf.LlavaProcessor, tokenizer, clip_images(32)),
    )


def save_llava_next(folder: Path) -> None:
    tokenizer = build_tokenizer(image_token="<image>")
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**CLIP),
        text_config=hf.MistralConfig(**text_settings(tokenizer)),
        image_token_index=token(tokenizer, "<image>"),
        vision_feature_layer=-2,
        image_grid_pinpoints=pinpoints,
    )
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": 32}, crop_size=square(32), image_grid_pinpoints=pinpoints
    )
    save(
        folder, hf.LlavaNextForConditionalGeneration(config), _llava_processor(hf.LlavaNextProcessor, tokenizer, images)
    )


def save_llava_onevision(folder: Path) -> None:
    tokenizer = build_tokenizer(image_token="<image>", video_token="<video>")
    pinpoints = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**CLIP, vision_use_head=False),
        text_config=hf.Qwen2Config(**text_settings(tokenizer)),
        image_token_index=token(tokenizer, "<image>"),
        video_token_index=token(tokenizer, "<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(size=square(32), image_grid_pinpoints=pinpoints),
        video_processor=hf.LlavaOnevisionVideoProcessor(size=square(32)),
        tokenizer=tokenizer,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat("<image>"),
    )
    save(folder, hf.LlavaOnevisionForConditionalGeneration(config), processor)


def save_internvl(folder: Path) -> None:
    tokenizer = build_tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    vision = hf.InternVLVisionConfig(**VISION, image_size=[32, 32], patch_size=[4, 4])
    config = hf.InternVLConfig(
        vision_config=vision,
        text_config=hf.Qwen2Config(**text_settings(tokenizer)),
        image_token_id=token(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=16,
        downsample_ratio=0.5,
    )
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=square(32), crop_to_patches=True),
        tokenizer=tokenizer,
        video_processor=hf.InternVLVideoProcessor(size=square(32)),
        image_seq_length=16,
        chat_template=chat("<IMG_CONTEXT>"),
    )
    save(folder, hf.InternVLForConditionalGeneration(config), processor)


def save_aya_vision(folder: Path) -> None:
    tokenizer = build_tokenizer(
        image="<image>",
        patch="<|IMG_PATCH|>",
        line="<|IMG_LINE_BREAK|>",
        start="<|START_OF_IMG|>",
        end="<|END_OF_IMG|>",
        tile="TILE",
        glob="TILE_GLOBAL",
    )
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=32, patch_size=4, vision_use_head=False),
        text_config=hf.Cohere2Config(**text_settings(tokenizer), head_dim=16),
        image_token_index=token(tokenizer, "<|IMG_PATCH|>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        downsample_factor=2,
        adapter_layer_norm_eps=1e-6,
        alignment_intermediate_size=64,
    )
    processor = hf.AyaVisionProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=square(32), crop_to_patches=True),
        tokenizer=tokenizer,
        patch_size=8,
        img_size=32,
        downsample_factor=1,
        chat_template=chat("<image>"),
    )
    save(folder, hf.AyaVisionForConditionalGeneration(config), processor)


def save_cohere2_vision(folder: Path) -> None:
    tokenizer = build_tokenizer(
        image_token="<|IMG_PATCH|>",
        boi_token="<|START_OF_IMG|>",
        eoi_token="<|END_OF_IMG|>",
        img_line_break_token="<|IMG_LINE_BREAK|>",
    )
    config = hf.Cohere2VisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=32, patch_size=4, vision_use_head=False),
        text_config=hf.Cohere2Config(**text_settings(tokenizer), head_dim=16),
        image_token_id=token(tokenizer, "<|IMG_PATCH|>"),
        downsample_factor=2,
        alignment_intermediate_size=64,
    )
    processor = hf.Cohere2VisionProcessor(
        image_processor=hf.Cohere2VisionImageProcessor(size=square(32), patch_size=4, downsample_factor=2),
        tokenizer=tokenizer,
        chat_template=chat("<|IMG_PATCH|>"),
    )
    save(folder, hf.Cohere2VisionForConditionalGeneration(config), processor)


def save_deepseek_vl(folder: Path) -> None:
    tokenizer = build_tokenizer(image_token="<image_placeholder>")
    config = hf.DeepseekVLConfig(
        vision_config=hf.SiglipVisionConfig(**CLIP, vision_use_head=False),
        text_config=hf.LlamaConfig(**text_settings(tokenizer)),
        image_token_id=token(tokenizer, "<image_placeholder>"),
    )
    processor = hf.DeepseekVLProcessor(
        image_processor=hf.DeepseekVLImageProcessor(size=square(32), min_size=14),
        tokenizer=tokenizer,
        chat_template=chat("<image_placeholder>"),
        num_image_tokens=16,
    )
    save(folder, hf.DeepseekVLForConditionalGeneration(config), processor)


def save_janus(folder: Path) -> None:
    tokenizer = build_tokenizer(image_token="<image_placeholder>", boi_token="<boi>", eoi_token="<eoi>")
    vision = hf.JanusVisionConfig(**CLIP, projection_dim=WIDTH, num_image_tokens=16)
    vq = hf.JanusVQVAEConfig(
        embed_dim=4,
        num_embeddings=16,
        latent_channels=8,
        double_latent=False,
        base_channels=32,
        channel_multiplier=[1, 1],
        num_res_blocks=1,
        num_patches=4,
        projection_dim=WIDTH,
        image_token_embed_dim=WIDTH,
    )
    config = hf.JanusConfig(
        vision_config=vision,
        vq_config=vq,
        text_config=hf.LlamaConfig(**text_settings(tokenizer)),
        image_token_id=token(tokenizer, "<image_placeholder>"),
    )
    processor = hf.JanusProcessor(
        image_processor=hf.JanusImageProcessor(size=square(32), min_size=14),
        tokenizer=tokenizer,
        chat_template=chat("<image_placeholder>"),
    )
    processor.num_image_tokens = 16
    save(folder, hf.JanusForConditionalGeneration(config), processor)
