"""The measurement of phase 1 at toy size on the CPU."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.gpu import teacher as gpu_teacher
from bench.gpu.teacher import TeacherResult, TeacherSettings
from bench.teachers.random_llava import random_llava
from bench.teachers.random_qwen import random_qwen
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

SETTINGS = TeacherSettings(
    geometry="llava-1.5-7b", device="cpu", batch=4, generate_batch=4, tokens=5, batches=2, loop_boxes=1, matmul_side=64,
    compiled=False,
)  # fmt: skip


def result(**values: Any) -> TeacherResult:
    measured = {"prompt": 50.0, "generate": 5.0, "loop": 0.1, "matmul": 800e12, "operations": 8e12, "text_tokens": 38}
    return TeacherResult(**{**measured, "image_tokens": 576, "weights": 7_063_427_072, "peak_bytes": 0, **values})


def products(module: torch.nn.Module) -> int:
    """Weights of matrices; tables that are only looked up count nothing."""
    tables = {id(table.weight) for table in module.modules() if isinstance(table, torch.nn.Embedding)}
    return sum(weight.numel() for weight in module.parameters() if weight.dim() > 1 and id(weight) not in tables)


def test_operations_are_those_of_the_literature() -> None:
    """2 x weights x tokens, and attention: 4 L^2 D a layer in the tower, half of it in the causal language model."""
    teacher = random_llava("tiny", TeacherConfig(model="tiny", device="cpu", batch=1))
    operations, text_tokens, image_tokens = gpu_teacher._operations(teacher)
    model: Any = teacher._model.model
    text, vision = model.config.text_config, model.config.vision_config
    patches, expected = image_tokens + 1, []
    [patch_weights] = [weight.numel() for weight in model.vision_tower.parameters() if weight.dim() == 4]
    tower = products(model.vision_tower) * patches - patch_weights  # the class token passes no convolution
    prompts = [teacher._prompts.encode(name) for name in gpu_teacher.NAMES]
    lengths = [len(prompt) for prompt in prompts]
    for prompt, length in zip(prompts, lengths, strict=True):
        by_weights = tower + products(model.multi_modal_projector) * image_tokens
        by_weights += products(model.language_model.layers) * length
        attention = 4 * patches**2 * vision.hidden_size * vision.num_hidden_layers
        attention += 2 * length**2 * text.hidden_size * text.num_hidden_layers
        pooling = 2 * prompt[::-1].index(teacher._prompts.image_token_id) * text.hidden_size
        expected.append(2 * by_weights + attention + pooling)
    assert operations == pytest.approx(np.mean(expected), rel=1e-12)
    assert (image_tokens, text_tokens) == (16, round(np.mean(lengths)) - 16)


def test_the_share_is_operations_done_over_operations_possible() -> None:
    assert result().share == pytest.approx(0.5)
    assert not gpu_teacher.figures(result(), SETTINGS)["prompt_share_of_matmul"].is_met
    assert gpu_teacher.figures(result(prompt=60.0), SETTINGS)["prompt_share_of_matmul"].is_met


def test_answers_in_batches_are_compared_with_the_loop() -> None:
    figure = gpu_teacher.figures(result(), SETTINGS)["generate_vs_loop"]
    assert (figure.value, figure.is_met) == (pytest.approx(50), True)
    assert not gpu_teacher.figures(result(loop=0.2), SETTINGS)["generate_vs_loop"].is_met


def test_peak_memory_is_told_where_there_is_a_gpu() -> None:
    text = gpu_teacher.markdown(result(peak_bytes=40 << 30), SETTINGS, "NVIDIA H100")
    assert "Peak memory of the device: 40.0 GiB." in text
    assert gpu_teacher.figures(result(peak_bytes=40 << 30), SETTINGS)["gpu_teacher_peak_gib"].value == 40
    assert "gpu_teacher_peak_gib" not in gpu_teacher.figures(result(peak_bytes=None), SETTINGS)


def test_both_modes_run_on_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once: seven billion random numbers take a while."""
    made = []

    def make(*arguments: Any, **options: Any) -> LlavaTeacher:
        made.append(random_llava(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(gpu_teacher, "random_llava", make)
    found = gpu_teacher.measure(replace(SETTINGS, geometry="tiny"))
    first, second = made
    assert first._model is second._model
    assert (first.spec.mode, second.spec.mode, second.spec.max_new_tokens) == ("prompt", "generate", 5)
    assert min(found.prompt, found.generate, found.loop, found.matmul) > 0


def test_the_table_compares_with_the_loop_and_says_what_was_extrapolated() -> None:
    text = gpu_teacher.markdown(result(), SETTINGS, "NVIDIA H100")
    assert "llava-1.5-7b (7.06 billion random weights), NVIDIA H100" in text
    assert "| prompt mode | 4 | 50 | 6 h | 500x |" in text
    assert "| one box at a time, 3 beams, 5 tokens | 1 | 0.1 | 2,778 h | 1x |" in text
    assert "reaches 50 % of the measured matmul rate of 800 Tflop/s (aim: 60 %)" in text
    assert "timed on 1 boxes; its million is extrapolated" in text


def test_operations_of_qwen_are_those_of_its_matrices() -> None:
    """Its tower is asked for four patches a token; its language model has fewer heads of keys than of queries."""
    teacher = random_qwen("tiny-qwen3-vl", TeacherConfig(model="tiny-qwen3-vl", device="cpu", batch=1))
    operations, text_tokens, image_tokens = gpu_teacher._operations(teacher)
    model: Any = teacher._model.model
    text, vision = model.config.text_config, model.config.vision_config
    lengths = [teacher.tokens(name) for name in gpu_teacher.NAMES]
    assert (image_tokens, text_tokens) == (64, round(np.mean(lengths)) - 64)
    mergers = [model.visual.merger, *model.visual.deepstack_merger_list]
    merged = sum(products(merger) for merger in mergers)
    tower = (products(model.visual) - merged) * 4 * image_tokens + merged * image_tokens
    tower_attention = 4 * (4 * image_tokens) ** 2 * vision.hidden_size * vision.depth
    width = text.num_attention_heads * text.head_dim
    expected = [
        2 * (tower + products(model.language_model.layers) * length)
        + tower_attention
        + 2 * length**2 * width * text.num_hidden_layers
        for length in lengths
    ]
    # Pooling is a product here or there, and the angles of the positions are.
    assert operations == pytest.approx(np.mean(expected), rel=0.01)
