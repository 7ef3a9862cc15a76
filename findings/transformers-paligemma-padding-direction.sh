#!/usr/bin/env bash
# transformers 5.24.0, torch 2.14.1: without token_type_ids, PaliGemma reads a padded prompt in one direction and an unpadded
# one in both.
#
# The field is optional in the signature. Left out, the same picture and question have other hidden states as soon as a longer
# prompt stands beside them in the batch, though the attention mask is right. With token_type_ids the padding changes nothing.
# Seen (random model of two layers, relative difference of the last hidden states): 0.03 without, under 1e-6 with. The
# default attention (SDPA); released weights differ by more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import torch
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
text = {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 300, **shape}
sight = {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14, "projection_dim": 32, **shape}
config = PaliGemmaConfig(
    text_config=text, vision_config=sight, image_token_index=299, projection_dim=32, hidden_size=32
)
model = PaliGemmaForConditionalGeneration(config).eval()
picture = torch.randn(1, 3, 28, 28)
alone = torch.tensor([[299] * 4 + [2, 11, 12, 13, 14]])
padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), alone], dim=1)


@torch.no_grad()
def states(ids: torch.Tensor, with_types: bool) -> torch.Tensor:
    mask = torch.ones_like(ids)
    mask[:, : ids.shape[1] - alone.shape[1]] = 0
    types = {"token_type_ids": torch.zeros_like(ids)} if with_types else {}
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": picture, **types}
    return model.model(**inputs, use_cache=False).last_hidden_state[0, -5:]


def difference(with_types: bool) -> float:
    one, other = states(alone, with_types), states(padded, with_types)
    return ((one - other).norm() / one.norm()).item()


without, with_types = difference(False), difference(True)
print(f"padded against alone: {without:.4f} without token_type_ids, {with_types:.1e} with")
assert without > 0.01 and with_types < 1e-5, "the behaviour has changed"
P
