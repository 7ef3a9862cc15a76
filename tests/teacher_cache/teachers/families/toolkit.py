"""What the tiny random models of all families have in common: a tokenizer of bytes, a chat format, random weights."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WIDTH, LAYERS, HEADS = 32, 2, 2
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
"""A language model; the vocabulary comes from the tokenizer."""
VISION = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
_START = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def build_tokenizer(**special: str) -> Any:
    """One token for each byte, and the special tokens that a family's processor looks for, by the names it uses."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*_START.values(), *letters, *special.values()])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_START, extra_special_tokens=special)


def chat(image: str) -> str:
    """A chat template: turns in words, the picture's mark, the text."""
    return (
        "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %} assistant:{% endif %}"
    )


def text_settings(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """`TEXT` with the tokenizer's vocabulary and special tokens."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {**TEXT, "vocab_size": -(-len(tokenizer) // 8) * 8, **ids, **more}


def token(tokenizer: Any, name: str) -> int:
    """Id of a token by its text."""
    return int(tokenizer.convert_tokens_to_ids(name))


def save(folder: Path, model: Any, processor: Any) -> None:
    """Weights large enough that pictures and words make a difference, and answers of different lengths."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(std=0.2, generator=generator)
    vocabulary = model.config.get_text_config().vocab_size
    model.generation_config.eos_token_id = list(range(3, vocabulary, 7))
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
