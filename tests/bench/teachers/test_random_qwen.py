"""Qwen3-VL with random weights, for measurements."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageTextToText

from bench.teachers.random_qwen import random_qwen, write_settings
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

Crops = Callable[[int, int], list[NDArray[np.uint8]]]


def test_the_large_geometry_is_that_of_the_released_model(tmp_path: Path) -> None:
    architecture = write_settings(tmp_path / "large", "qwen3-vl-8b")
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(architecture)
    assert sum(weight.numel() for weight in model.parameters()) == 8_767_123_696
    assert len(model.model.visual.deepstack_merger_list) == 3


def test_a_random_teacher_embeds_in_the_asked_type(make_crops: Crops) -> None:
    config = TeacherConfig(model="tiny-qwen3-vl", device="cpu", dtype="bfloat16", batch=3)
    teacher = random_qwen("tiny-qwen3-vl", config)
    assert (teacher.spec.crop_size, teacher.spec.image_tokens, teacher.spec.dtype) == (224, 64, "bfloat16")
    assert {weight.dtype for weight in teacher._model.parameters()} == {torch.bfloat16}
    embeddings = teacher.embed(make_crops(4, 224), ["cat", "can", "a", "kitchen & dining room table"])
    assert (embeddings.hidden.shape, embeddings.visual.shape) == ((4, 64), (4, 64))
    assert np.isfinite(embeddings.hidden).all()
    assert len(np.unique(embeddings.hidden, axis=0)) == 4


def test_a_model_serves_another_mode_and_its_answers_have_full_length(make_crops: Crops) -> None:
    first = random_qwen("tiny-qwen3-vl", TeacherConfig(model="tiny-qwen3-vl", device="cpu"))
    config = TeacherConfig(model="tiny-qwen3-vl", device="cpu", mode="generate", max_new_tokens=9)
    teacher = random_qwen("tiny-qwen3-vl", config, model=first._model)
    assert teacher._model is first._model
    steps: list[int] = []
    hook = teacher._model.model.register_forward_hook(lambda *_: steps.append(1))
    embeddings = teacher.embed(make_crops(2, 224), ["cat", "can"])
    hook.remove()
    assert (len(steps), embeddings.hidden.shape) == (9, (2, 64))
