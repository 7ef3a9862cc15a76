"""Families with a resampler, a perceiver, cross-attention, bidirectional prefixes, or pictures of any size."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.teacher_cache.teachers.families.llava import CLIP, square
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

SIGLIP = {**CLIP, "vision_use_head": False}


def save_gemma3(folder: Path) -> None:
    tokenizer = build_tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**SIGLIP),
        text_config=text_settings(tokenizer, head_dim=16, sliding_window=64),
        mm_tokens_per_image=4,
        image_token_index=token(tokenizer, "<image_soft_token>"),
        boi_token_index=token(tokenizer, "<start_of_image>"),
        eoi_token_index=token(tokenizer, "<end_of_image>"),
    )
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size=square(32)),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=chat("<start_of_image>"),
    )
    save(folder, hf.Gemma3ForConditionalGeneration(config), processor)


def _save_paligemma(folder: Path, text: Any) -> None:
    tokenizer = build_tokenizer(image_token="<image>")
    images = hf.SiglipImageProcessor(size=square(32))
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer, chat_template=chat("<image>"))
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**SIGLIP),
        text_config=text(**text_settings(tokenizer, head_dim=16)),
        image_token_index=token(tokenizer, "<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    save(folder, hf.PaliGemmaForConditionalGeneration(config), processor)


def save_paligemma(folder: Path) -> None:
    _save_paligemma(folder, hf.GemmaConfig)


def save_paligemma2(folder: Path) -> None:
    """Gemma 2 does not work with every kind of attention."""
    _save_paligemma(folder, hf.Gemma2Config)


def save_idefics2(folder: Path) -> None:
    tokenizer = build_tokenizer(
        image_token="<image>", image_boundary_token="<fake_token_around_image>", end="<end_of_utterance>"
    )
    config = hf.Idefics2Config(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        perceiver_config={
            "hidden_size": WIDTH,
            "resampler_n_latents": 8,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        text_config=hf.MistralConfig(**text_settings(tokenizer)),
        image_token_id=token(tokenizer, "<image>"),
    )
    processor = hf.Idefics2Processor(
        image_processor=hf.Idefics2ImageProcessor(
            size={"shortest_edge": 24, "longest_edge": 32}, do_image_splitting=False
        ),
        tokenizer=tokenizer,
        image_seq_len=8,
        chat_template=chat("<image>"),
    )
    save(folder, hf.Idefics2ForConditionalGeneration(config), processor)


def _idefics3_tokenizer() -> Any:
    return build_tokenizer(
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
        video_token="<video>",
    )


def _idefics3_config(kind: Any, tokenizer: Any) -> Any:
    return kind(
        vision_config={**VISION, "image_size": 32, "patch_size": 4},
        text_config=hf.LlamaConfig(**text_settings(tokenizer)),
        image_token_id=token(tokenizer, "<image>"),
        scale_factor=2,
    )


_IDEFICS3 = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}


def save_idefics3(folder: Path) -> None:
    tokenizer = _idefics3_tokenizer()
    processor = hf.Idefics3Processor(
        image_processor=hf.Idefics3ImageProcessor(**_IDEFICS3),
        tokenizer=tokenizer,
        image_seq_len=16,
        chat_template=chat("<image>"),
    )
    save(folder, hf.Idefics3ForConditionalGeneration(_idefics3_config(hf.Idefics3Config, tokenizer)), processor)


def save_smolvlm(folder: Path) -> None:
    tokenizer = _idefics3_tokenizer()
    processor = hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(**_IDEFICS3),
        tokenizer=tokenizer,
        image_seq_len=16,
        chat_template=chat("<image>"),
        video_processor=hf.SmolVLMVideoProcessor(**_IDEFICS3),
    )
    save(folder, hf.SmolVLMForConditionalGeneration(_idefics3_config(hf.SmolVLMConfig, tokenizer)), processor)


def save_granite_docling(folder: Path) -> None:
    tokenizer = _idefics3_tokenizer()
    config = hf.GraniteDoclingConfig(
        vision_config={
            **VISION,
            "image_size": 32,
            "patch_size": 4,
            "out_hidden_size": WIDTH,
            "scale_factor": 2,
            "deepstack_visual_indexes": [0],
            "use_fine_route": False,
        },
        text_config=text_settings(tokenizer),
        image_token_id=token(tokenizer, "<image>"),
    )
    processor = hf.GraniteDoclingProcessor(
        image_processor=hf.GraniteDoclingImageProcessor(size=square(32)),
        tokenizer=tokenizer,
        image_seq_len=16,
        chat_template=chat("<image>"),
    )
    save(folder, hf.GraniteDoclingForConditionalGeneration(config), processor)


def save_mllama(folder: Path) -> None:
    tokenizer = build_tokenizer(image_token="<|image|>")
    config = hf.MllamaConfig(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_hidden_layers": LAYERS,
            "num_global_layers": 1,
            "attention_heads": HEADS,
            "image_size": 32,
            "patch_size": 8,
            "vision_output_dim": 2 * WIDTH,
            "intermediate_layers_indices": [0],
            "max_num_tiles": 4,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1], [2, 2]],
        },
        text_config=text_settings(
            tokenizer,
            vocab_size=token(tokenizer, "<|image|>"),
            cross_attention_layers=[1],
            num_hidden_layers=3,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        image_token_index=token(tokenizer, "<|image|>"),
    )
    model = hf.MllamaForConditionalGeneration(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("_gate"):
                weights.fill_(1.0)  # they begin closed, and then no picture is seen
    processor = hf.MllamaProcessor(
        image_processor=hf.MllamaImageProcessor(size=square(32), max_image_tiles=4),
        tokenizer=tokenizer,
        chat_template=chat("<|image|>"),
    )
    save(folder, model, processor)


def _pixtral_processor(tokenizer: Any, merge: int) -> Any:
    return hf.PixtralProcessor(
        image_processor=hf.PixtralImageProcessor(size={"longest_edge": 448}, patch_size={"height": 14, "width": 14}),
        tokenizer=tokenizer,
        patch_size=14,
        spatial_merge_size=merge,
        chat_template=chat("[IMG]"),
    )


def _pixtral_tokenizer() -> Any:
    return build_tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")


def save_pixtral(folder: Path) -> None:
    tokenizer = _pixtral_tokenizer()
    config = hf.LlavaConfig(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=448, patch_size=14),
        text_config=hf.MistralConfig(**text_settings(tokenizer)),
        image_token_index=token(tokenizer, "[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    save(folder, hf.LlavaForConditionalGeneration(config), _pixtral_processor(tokenizer, 1))


def save_mistral3(folder: Path) -> None:
    tokenizer = _pixtral_tokenizer()
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=448, patch_size=14),
        text_config=hf.MistralConfig(**text_settings(tokenizer)),
        image_token_index=token(tokenizer, "[IMG]"),
        vision_feature_layer=-1,
        spatial_merge_size=2,
    )
    save(folder, hf.Mistral3ForConditionalGeneration(config), _pixtral_processor(tokenizer, 2))


def save_lfm2_vl(folder: Path) -> None:
    tokenizer = build_tokenizer(
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail="<|img_thumbnail|>",
    )
    config = hf.Lfm2VlConfig(
        vision_config=hf.Siglip2VisionConfig(**VISION, num_patches=256, patch_size=16, vision_use_head=False),
        text_config=hf.Lfm2Config(**text_settings(tokenizer), layer_types=["conv", "full_attention"]),
        image_token_id=token(tokenizer, "<image>"),
        downsample_factor=2,
    )
    processor = hf.Lfm2VlProcessor(
        image_processor=hf.Lfm2VlImageProcessor(
            tile_size=512,
            encoder_patch_size=16,
            min_image_tokens=4,
            max_image_tokens=64,
            max_num_patches=256,
            do_image_splitting=True,
        ),
        tokenizer=tokenizer,
        chat_template=chat("<image>"),
    )
    save(folder, hf.Lfm2VlForConditionalGeneration(config), processor)


_OVIS_MARKS = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def save_ovis2(folder: Path) -> None:
    tokenizer = build_tokenizer(
        image_token="<image>", atom="<IMG_ATOM>", **{f"mark{index}": name for index, name in enumerate(_OVIS_MARKS)}
    )
    config = hf.Ovis2Config(
        hidden_size=WIDTH,
        vision_config={
            **VISION,
            "image_size": 32,
            "patch_size": 8,
            "hidden_stride": 2,
            "vocab_size": 64,
            "num_visual_indicator_tokens": 5,
        },
        text_config=hf.Qwen2Config(**text_settings(tokenizer)),
        image_token_id=token(tokenizer, "<IMG_ATOM>"),
        visual_indicator_token_ids=[token(tokenizer, name) for name in _OVIS_MARKS],
    )
    processor = hf.Ovis2Processor(
        image_processor=hf.Ovis2ImageProcessor(size=square(32), crop_to_patches=True),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=chat("<image>"),
    )
    save(folder, hf.Ovis2ForConditionalGeneration(config), processor)
