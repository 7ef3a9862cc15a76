"""TeacherConfig: its defaults, and that it checks what it is made from (words for users: pipeline/settings)."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, TeacherConfig


def test_defaults_are_the_cheap_deterministic_teacher() -> None:
    config = TeacherConfig(model="llava-hf/llava-1.5-7b-hf")
    assert (config.mode, config.visual, config.layer, config.num_beams) == ("prompt", "tower", -1, 1)
    assert config.question == DEFAULT_PROMPT


def test_an_own_prompt_replaces_the_default() -> None:
    assert TeacherConfig(model="m", prompt="What is the {label}?").question == "What is the {label}?"


@pytest.mark.parametrize(
    "option",
    [
        {"mode": "ask"}, {"dtype": "int8"}, {"prompt": "Describe it."}, {"crop_margin": -0.1}, {"crop_margin": 10.5},
        {"batch": 0}, {"max_new_tokens": 0}, {"num_beams": -2}, {"batch": True}, {"layer": "3"}, {"bananas": 1},
    ],
)  # fmt: skip
def test_values_of_another_type_or_out_of_range_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as made:
        TeacherConfig(**{"model": "m", **option})
    assert made.value.errors()[0]["loc"] == tuple(option)
    if "bananas" not in option:
        with pytest.raises(ValidationError):
            replace(TeacherConfig(model="m"), **option)
