"""What a teacher sees without its language model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import CLIPModel

from bench.teachers.visual_alone import num_visual_weights, visual_alone
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

Crops = list[NDArray[np.uint8]]


@pytest.fixture(params=["tower", "clip"])
def teacher(
    request: pytest.FixtureRequest, small_llava: Path, toy_clip: Path, make_teacher: Callable[..., LlavaTeacher]
) -> LlavaTeacher:
    return make_teacher(small_llava, visual="tower" if request.param == "tower" else str(toy_clip))


def test_it_is_the_visual_embedding(teacher: LlavaTeacher, make_crops: Callable[..., Crops]) -> None:
    crops = make_crops(5, teacher.spec.crop_size)
    found = visual_alone(teacher, crops)
    np.testing.assert_allclose(found, teacher.embed(crops, ["cat"] * 5).visual, rtol=1e-5, atol=1e-6)
    assert len(np.unique(found.round(3), axis=0)) == 5


def test_it_needs_no_language_model(
    teacher: LlavaTeacher, make_crops: Callable[..., Crops], monkeypatch: pytest.MonkeyPatch
) -> None:
    def speak(*_: Any, **__: Any) -> None:
        raise AssertionError("the language model ran")

    monkeypatch.setattr(teacher._model.model.language_model, "forward", speak)
    assert visual_alone(teacher, make_crops(2, teacher.spec.crop_size)).shape == (2, teacher.spec.visual_dim)


def test_weights_are_those_of_the_image_encoder_alone(
    small_llava: Path, toy_clip: Path, make_teacher: Callable[..., LlavaTeacher]
) -> None:
    own = make_teacher(small_llava)
    everything = sum(weight.numel() for weight in own._model.parameters())
    speech = (own._model.model.language_model, own._model.model.multi_modal_projector, own._model.lm_head)
    assert num_visual_weights(own) == everything - sum(w.numel() for part in speech for w in part.parameters())
    words = ("text_model.", "text_projection.", "logit_scale")
    clip = CLIPModel.from_pretrained(toy_clip).named_parameters()
    beside = make_teacher(small_llava, visual=str(toy_clip))
    assert num_visual_weights(beside) == sum(weight.numel() for name, weight in clip if not name.startswith(words))
