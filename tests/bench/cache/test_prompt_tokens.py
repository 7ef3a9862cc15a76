"""The count of padded tokens at toy size."""

from pathlib import Path

import pytest

from bench.cache import prompt_tokens
from bench.inputs import BenchInputs
from bench.teachers.random_llava import random_llava
from mocha_pipe.teacher_cache.building import feed
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig


def test_the_names_are_those_of_coco() -> None:
    names = prompt_tokens._coco_names()
    assert (len(names), names[0], names[-1]) == (80, "person", "toothbrush")


def test_sorting_by_length_leaves_little_padding(tmp_path: Path) -> None:
    figure = prompt_tokens.measure(tmp_path / "work", images=24)["prompt_tokens_vs_padded"]
    assert 1.0 < figure.value < 1.1
    assert "80 class names, batches of 16" in figure.note
    assert list((tmp_path / "work").iterdir()) == []


def test_without_sorting_there_is_more_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_by_length = prompt_tokens.measure(tmp_path, images=24)["prompt_tokens_vs_padded"]
    monkeypatch.setattr("mocha_pipe.teacher_cache.building.embed.BATCHES_AHEAD", 1)
    assert feed.BATCHES_AHEAD > 1
    in_order = prompt_tokens.measure(tmp_path, images=24)["prompt_tokens_vs_padded"]
    assert in_order.value - 1 > 3 * (sorted_by_length.value - 1)


def test_another_data_set_is_counted(inputs: BenchInputs, tmp_path: Path) -> None:
    figure = prompt_tokens.measure(tmp_path, data=inputs.data)["prompt_tokens_vs_padded"]
    assert f"{len(inputs.table)} regions of world/data.yaml, {len(inputs.table.class_names)} class names" in figure.note


def test_a_picture_is_49_tokens_in_a_chat_format_like_qwens() -> None:
    teacher = random_llava(
        "49-tokens", TeacherConfig(model="49-tokens", device="cpu"), chat_template=prompt_tokens.CHAT_TEMPLATE
    )
    assert teacher._prompts.image_tokens == 49
    assert teacher._prompts.text("cup").startswith("<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe")
