"""Models with random weights for measurements, and the one-by-one loop that they are compared with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageTextToText

from bench.teachers.one_by_one import describe_one, never_end
from bench.teachers.random_llava import _write_settings, random_llava
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

Crops = Callable[[int, int], list[NDArray[np.uint8]]]
NAMES = ["cat", "can", "a", "kitchen & dining room table"]


def test_the_large_geometry_is_that_of_the_released_model(tmp_path: Path) -> None:
    architecture = _write_settings(tmp_path / "large", "llava-1.5-7b")
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(architecture)
    assert sum(weight.numel() for weight in model.parameters()) == 7_063_427_072
    assert model.model.language_model.layers[0].self_attn.head_dim == 128
    assert architecture.image_seq_length == 576


def test_a_random_teacher_embeds_in_the_asked_type(make_crops: Crops) -> None:
    teacher = random_llava("tiny", TeacherConfig(model="tiny", device="cpu", dtype="bfloat16", batch=3))
    assert {weight.dtype for weight in teacher._model.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in teacher._model.parameters())
    embeddings = teacher.embed(make_crops(4, 56), NAMES)
    assert (embeddings.hidden.shape, embeddings.visual.shape) == ((4, 64), (4, 32))
    assert np.isfinite(embeddings.hidden).all()
    assert len(np.unique(embeddings.hidden, axis=0)) == 4


def test_random_answers_have_full_length(make_crops: Crops) -> None:
    config = TeacherConfig(model="tiny", device="cpu", mode="generate", max_new_tokens=9)
    teacher = random_llava("tiny", config)
    for crop in make_crops(3, 56):
        assert len(describe_one(teacher, crop, "cat")[0]) == 9


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("layer", [-1, 1])
def test_one_by_one_says_and_pools_what_a_batch_does(
    num_beams: int, layer: int, small_llava: Path, make_teacher: Callable[..., LlavaTeacher], make_crops: Crops
) -> None:
    teacher = make_teacher(small_llava, mode="generate", max_new_tokens=8, num_beams=num_beams, layer=layer)
    crops = make_crops(len(NAMES), 28)
    together = teacher.embed(crops, NAMES).hidden
    lengths = set()
    for crop, name, expected in zip(crops, NAMES, together, strict=True):
        answer, pooled = describe_one(teacher, crop, name, num_beams=num_beams)
        np.testing.assert_allclose(pooled.numpy(), expected, rtol=1e-3, atol=1e-4 * np.linalg.norm(expected))
        lengths.add(len(answer))
    assert len(lengths) > 1, "answers of one length do not show where they end"


def test_an_answer_ends_with_its_end_token_or_never(small_llava: Path, make_crops: Crops) -> None:
    teacher = LlavaTeacher.load(
        TeacherConfig(model=str(small_llava), device="cpu", dtype="float32", mode="generate", max_new_tokens=12)
    )
    crop = make_crops(1, 28)[0]
    ended, _ = describe_one(teacher, crop, "cat")
    never_end(teacher)
    endless, _ = describe_one(teacher, crop, "cat")
    assert len(ended) < len(endless) == 12
    assert endless[: len(ended)] == ended
