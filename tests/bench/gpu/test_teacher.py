"""The measurement of phase 1 at toy size on the CPU."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu import teacher as gpu_teacher
from bench.gpu.teacher import TeacherResult, TeacherSettings
from bench.teachers.random_llava import random_llava
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

SETTINGS = TeacherSettings(
    geometry="tiny", device="cpu", batch=4, generate_batch=4, tokens=5, batches=2, loop_boxes=1, matmul_side=64,
    compiled=False,
)  # fmt: skip


def result(**values: Any) -> TeacherResult:
    measured = {"prompt": 50.0, "generate": 5.0, "loop": 0.1, "matmul": 800e12, "operations": 8e12, "text_tokens": 38}
    return TeacherResult(**{**measured, "image_tokens": 576, "weights": 7_063_427_072, "peak_bytes": 0, **values})


def vectors(module: torch.nn.Module) -> int:
    """Numbers in biases, norms and the like."""
    return sum(weight.numel() for weight in module.parameters() if weight.dim() == 1)


def test_operations_are_those_that_torch_counts() -> None:
    """Exactly, with the terms that only one of the two counts. Plain attention: torch does not count every kernel."""
    teacher = random_llava("tiny", TeacherConfig(model="tiny", device="cpu", batch=1))
    operations, text_tokens, image_tokens = gpu_teacher._operations(teacher)
    model: Any = teacher._model.model
    tower, text = model.vision_tower, model.config.text_config
    patches, expected = image_tokens + 1, []
    for name in gpu_teacher.NAMES:
        [batch] = teacher.prepare([np.zeros((56, 56, 3), np.uint8)], [name])
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            teacher.forward(batch)
        length, pooled = batch.ids.shape[1], batch.weights.shape[1]
        masked_half = 2 * length**2 * text.hidden_size * text.num_hidden_layers
        pooling = 2 * pooled * text.hidden_size
        no_products = vectors(tower) * patches + vectors(model.multi_modal_projector) * image_tokens
        no_products += vectors(model.language_model.layers) * length
        [patch_weights] = [weight.numel() for weight in tower.parameters() if weight.dim() == 4]
        class_token = patch_weights  # is no patch, and passes no convolution
        counts = counter.get_flop_counts()  # some versions of transformers compute the angles of positions by a product
        angles = sum(sum(counts[module].values()) for module in counts if module.endswith("rotary_emb"))
        expected.append(counter.get_total_flops() - masked_half - pooling - angles + 2 * (no_products + class_token))
    assert operations == pytest.approx(np.mean(expected), rel=1e-12)
    lengths = [len(teacher._prompts.encode(name)) for name in gpu_teacher.NAMES]
    assert (image_tokens, text_tokens) == (16, round(np.mean(lengths)) - 16)


def test_the_share_is_operations_done_over_operations_possible() -> None:
    assert result().share == pytest.approx(0.5)
    assert not gpu_teacher.figures(result(), SETTINGS)["gpu_prompt_share_of_matmul"].is_met
    assert gpu_teacher.figures(result(prompt=60.0), SETTINGS)["gpu_prompt_share_of_matmul"].is_met


def test_the_table_compares_with_the_loop_and_says_what_was_extrapolated() -> None:
    text = gpu_teacher.markdown(result(), SETTINGS, "NVIDIA H100")
    assert "tiny (7.06 billion random weights), NVIDIA H100" in text
    assert "| prompt mode | 4 | 50 | 6 h | 500x |" in text
    assert "| one box at a time, 3 beams, 5 tokens | 1 | 0.1 | 2,778 h | 1x |" in text
    assert "reaches 50 % of the measured matmul rate of 800 Tflop/s (aim: 60 %)" in text
    assert "timed on 1 boxes; its million is extrapolated" in text
