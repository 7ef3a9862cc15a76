#!/usr/bin/env bash
# torch 2.14.1, CPU: FlopCounterMode counts nothing for attention.
#
# scaled_dot_product_attention takes a fused kernel on the CPU that the counter has no rule for, so a transformer's count
# lacks all of its attention. Under the backend MATH, which is two plain products, the count is right.
# Seen: 0 by default and with the backend FLASH_ATTENTION, 2097152 = 2 * 2 * heads * length^2 * width with MATH.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

heads, length, width = 4, 64, 32
query = torch.rand(1, heads, length, width)
counts = []
for backend in (nullcontext(), sdpa_kernel(SDPBackend.FLASH_ATTENTION), sdpa_kernel(SDPBackend.MATH)):
    with backend, FlopCounterMode(display=False) as counter:
        scaled_dot_product_attention(query, query, query)
    counts.append(counter.get_total_flops())
print("default, flash, math:", counts)
assert counts == [0, 0, 2 * 2 * heads * length**2 * width], "the behaviour has changed"
P
