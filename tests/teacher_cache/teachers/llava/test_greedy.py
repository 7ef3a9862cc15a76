"""Greedy answers: the tokens of transformers' own search, in shrinking batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from mocha_pipe.teacher_cache.teachers.llava import teacher as llava_module
from mocha_pipe.teacher_cache.teachers.llava.greedy import greedy_answers
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from mocha_pipe.teacher_cache.teachers.pooling import end_tokens

NAMES = ["cat", "can", "a", "kitchen & dining room table", "cat", "a"]


def embedded(teacher: LlavaTeacher, crops: list[NDArray[np.uint8]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of one batch with their pictures, and the mask."""
    [batch] = teacher.prepare(crops, NAMES)
    pixels = teacher._scale_pixels(batch.pixels, torch.float32)
    pictures = teacher._model.model.get_image_features(pixel_values=pixels)
    assert batch.mask is not None
    return teacher._merge(batch.ids, torch.stack(list(pictures.pooler_output))), batch.mask


@pytest.mark.parametrize("limit", [1, 2, 3, 12])
@torch.inference_mode()
def test_tokens_are_those_of_transformers(
    limit: int,
    small_llava: Path,
    make_teacher: Callable[..., LlavaTeacher],
    make_crops: Callable[..., list[NDArray[np.uint8]]],
) -> None:
    teacher = make_teacher(small_llava, mode="generate", max_new_tokens=limit)
    model = teacher._model
    inputs, mask = embedded(teacher, make_crops(len(NAMES), 28))
    expected = model.generate(
        inputs_embeds=inputs, attention_mask=mask, do_sample=False, max_new_tokens=limit, pad_token_id=0
    )
    sizes: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda _module, states, _out: sizes.append(len(states[0])))
    _, answers = greedy_answers(model, inputs, mask, layer=None, max_new_tokens=limit)
    hook.remove()
    for row, answer in zip(expected.tolist(), answers, strict=True):
        assert answer == row[: len(answer)]
        assert len(answer) == limit or answer[-1] in end_tokens(model.generation_config)
    lengths = [len(answer) for answer in answers]
    assert sizes == [sum(length > step for length in lengths) for step in range(max(lengths))]
    if limit == 12:
        assert len(set(lengths)) > 1, "answers of one length prove nothing about dropped rows"


def test_such_settings_are_left_to_transformers(
    small_llava: Path,
    make_crops: Callable[..., list[NDArray[np.uint8]]],
    make_teacher: Callable[..., LlavaTeacher],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = make_teacher(small_llava, mode="generate", max_new_tokens=5)
    crops = make_crops(len(NAMES), 28)
    greedy = teacher.embed(crops, NAMES).hidden
    monkeypatch.setattr(llava_module, "is_plain_greedy", lambda _config: False)
    monkeypatch.setattr(llava_module, "greedy_answers", None)
    np.testing.assert_allclose(teacher.embed(crops, NAMES).hidden, greedy, rtol=1e-4, atol=1e-4)


def test_end_tokens_of_any_kind() -> None:
    assert end_tokens(GenerationConfig(eos_token_id=2)) == [2]
    assert end_tokens(GenerationConfig(eos_token_id=[2, 7])) == [2, 7]
    assert end_tokens(GenerationConfig()) == []
