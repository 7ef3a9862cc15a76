"""The untrained miniature teacher: a real LLaVA of about 1.3 million parameters, its tokenizer and its processor."""

import json
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from mocha_pipe.data.miniature.objects import COLOURS, PATTERNS, SHAPES
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT

IMAGE_SIZE, PATCH_SIZE, WIDTH = 64, 8, 128
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }} {% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A Llama-like BPE tokenizer: the world's words are one token each, any other text falls back to its bytes."""
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    words = [*SHAPES, *COLOURS, *PATTERNS, "a", "an", "and", "with", "sticker", "USER", "ASSISTANT"]
    corpus = [
        " ".join(words),
        DEFAULT_PROMPT.format(label="mug"),
        *(f"USER: {word} ASSISTANT: {word}," for word in words),
    ]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(Regex(r"[^\w▁]"), "isolated")]
    )
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=2000, show_progress=False))
    learned = sorted(trained.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
    names = special + [f"<0x{byte:02X}>" for byte in range(256)] + [token for token, _ in learned]
    merges = [(left, right) for left, right in _merges(trained)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(names)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", special.index("<s>"))]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer_class: Any = PreTrainedTokenizerFast  # transformers leaves it untyped
    fast: PreTrainedTokenizerFast = tokenizer_class(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=512,
    )
    return fast


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def build_processor() -> LlavaProcessor:
    """Tokenizer, image processor and chat template, with the released model's field values at miniature size."""
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    processor_class: Any = LlavaProcessor  # transformers leaves it untyped
    processor: LlavaProcessor = processor_class(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    return processor


def build_model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """The untrained network."""
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)
