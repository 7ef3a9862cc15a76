"""Rows whose answer has ended leave the batch, and nothing else changes by it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.vlm.answers import is_plain_greedy
from mocha_pipe.teacher_cache.teachers.vlm.teacher import VlmTeacher
from tests.shared import DEVICE
from tests.teacher_cache.teachers.families.grids import save_qwen2_5_vl
from tests.teacher_cache.teachers.families.others import save_idefics3, save_mistral3

NAMES = ["cat", "kitchen & dining room table", "a", "dog", "Müll"]
STEPS = 8


def load(folder: Path, **options: Any) -> VlmTeacher:
    config = {"device": DEVICE, "dtype": "float32", "mode": "generate", "max_new_tokens": STEPS, "batch": 8, **options}
    return VlmTeacher.load(TeacherConfig(model=str(folder), **config))


def noise(teacher: VlmTeacher) -> list[NDArray[np.uint8]]:
    side = teacher.spec.crop_size
    return list(np.random.default_rng(1).integers(0, 256, (len(NAMES), side, side, 3), np.uint8))


@pytest.mark.parametrize("save", [save_qwen2_5_vl, save_idefics3, save_mistral3])
def test_a_row_is_computed_until_its_answer_ends(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "it")
    teacher = load(tmp_path / "it")
    crops, computed = noise(teacher), []
    lengths = []
    for crop, name in zip(crops, NAMES, strict=True):
        inputs = teacher._questions.ask([crop], [name])
        answer = teacher._model.generate(**inputs, do_sample=False, max_new_tokens=STEPS)
        lengths.append(answer.shape[1] - inputs["input_ids"].shape[1])
    assert len(set(lengths)) > 1, "choose other pictures: these answers end together"
    hook = teacher._model.model.register_forward_hook(lambda _m, _a, out: computed.append(len(out.last_hidden_state)))
    teacher.embed(crops, NAMES)
    hook.remove()
    assert computed == [sum(length > step for length in lengths) for step in range(max(lengths))]


@pytest.mark.parametrize("penalty", [1.0, 1.8])
def test_the_checkpoint_s_own_settings_and_another_layer_count(penalty: float, tmp_path: Path) -> None:
    """Qwen's released checkpoints ask for a penalty on tokens that were said already."""
    save_qwen2_5_vl(tmp_path / "it")
    teacher = load(tmp_path / "it", layer=1)
    plain = teacher.embed(noise(teacher), NAMES).hidden
    teacher._model.generation_config.repetition_penalty = penalty
    crops = noise(teacher)
    found = teacher.embed(crops, NAMES).hidden
    assert (np.abs(found - plain).max() > 1e-3) == (penalty > 1)
    for row, crop, name in zip(found, crops, NAMES, strict=True):
        output = teacher._model.generate(
            **teacher._questions.ask([crop], [name]), do_sample=False, max_new_tokens=STEPS,
            output_hidden_states=True, return_dict_in_generate=True,
        )  # fmt: skip
        states = [step[1][0, -1] for step in output.hidden_states]
        expected = torch.stack(states[1:-1] if len(states) >= 3 else states).mean(dim=0)
        torch.testing.assert_close(torch.from_numpy(row), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "plain"),
    [({}, True), ({"repetition_penalty": 1.0}, True), ({"repetition_penalty": 1.2}, False), ({"min_length": 3}, False),
     ({"no_repeat_ngram_size": 2}, False), ({"suppress_tokens": [5]}, False)],
)  # fmt: skip
def test_settings_that_change_a_greedy_search(options: dict[str, Any], plain: bool) -> None:
    assert is_plain_greedy(GenerationConfig(**options)) is plain
