#!/usr/bin/env bash
# transformers 5.24.0: Qwen2.5-VL without mm_token_type_ids takes a picture's tokens for a line of text; Qwen2-VL refuses.
#
# Two families of one maker and one interface: input_ids, pixel_values and image_grid_thw are enough to call both. Qwen2-VL
# then says that mm_token_type_ids is missing. Qwen2.5-VL numbers the tokens of the picture one after the other, as if it had no rows
# and columns, and returns other hidden states without a word.
# Seen: Qwen2-VL raises ValueError; Qwen2.5-VL's states differ (0.002 in a random model of two layers; trained ones by more).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLConfig, Qwen2VLForConditionalGeneration

text = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
}
tokens = {"image_token_id": 190, "vision_start_token_id": 191, "vision_end_token_id": 192, "video_token_id": 193}
ids = torch.tensor([[1, 191, 190, 190, 190, 190, 192, 5, 6, 7, 8]])
types = (ids == 190).int()
patches = torch.randn(16, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(1))
inputs = {
    "input_ids": ids,
    "attention_mask": torch.ones_like(ids),
    "pixel_values": patches,
    "image_grid_thw": torch.tensor([[1, 4, 4]]),
}


def without_types(config, kind, sight) -> str | float:
    torch.manual_seed(0)
    model = kind(config(text_config=text, vision_config=sight, **tokens)).eval().model
    with torch.no_grad():
        right = model(**inputs, mm_token_type_ids=types, use_cache=False).last_hidden_state
        try:
            found = model(**inputs, use_cache=False).last_hidden_state
        except ValueError as error:
            return str(error)
    return ((right - found).norm() / right.norm()).item()


old = without_types(
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    {"embed_dim": 32, "hidden_size": 32, "depth": 1, "num_heads": 2, "mlp_ratio": 2},
)
new = without_types(
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    {
        "hidden_size": 32,
        "out_hidden_size": 32,
        "depth": 1,
        "num_heads": 2,
        "intermediate_size": 64,
        "fullatt_block_indexes": [0],
    },
)
print("Qwen2-VL:", old)
print("Qwen2.5-VL: relative difference", new)
assert isinstance(old, str) and "mm_token_type_ids" in old, "the behaviour has changed"
assert isinstance(new, float) and new > 1e-4, "the behaviour has changed"
P
