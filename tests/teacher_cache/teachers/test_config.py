"""TeacherConfig refuses values out of range, in one line."""

from typing import Any

import pytest

from mocha_pipe.data.errors import MochaError
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.prompt import DEFAULT_PROMPT


def test_defaults_are_the_cheap_deterministic_teacher() -> None:
    config = TeacherConfig(model="llava-hf/llava-1.5-7b-hf")
    assert (config.mode, config.visual, config.layer, config.num_beams) == ("prompt", "tower", -1, 1)
    assert config.question == DEFAULT_PROMPT


def test_an_own_prompt_replaces_the_default() -> None:
    assert TeacherConfig(model="m", prompt="What is the {label}?").question == "What is the {label}?"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "ask"}, "teacher mode must be prompt or generate; found 'ask'; pass --mode prompt"),
        (
            {"dtype": "int8"},
            "teacher dtype must be one of auto, float32, bfloat16, float16; found 'int8'; pass --dtype auto",
        ),
        (
            {"prompt": "Describe it."},
            "a teacher prompt must name the class with {label}; found 'Describe it.'; "
            "pass --prompt 'Describe the {label}.'",
        ),
        (
            {"crop_margin": -0.1},
            "teacher crop margin must lie in 0..10 (share of the box); found -0.1; pass --crop-margin 0",
        ),
        ({"batch": 0}, "teacher batch must be at least 1; found 0; pass --batch 1"),
        ({"max_new_tokens": 0}, "teacher max_new_tokens must be at least 1; found 0; pass --max-new-tokens 1"),
        ({"num_beams": -2}, "teacher num_beams must be at least 1; found -2; pass --num-beams 1"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="teacher") as caught:
        TeacherConfig(model="m", **options)
    assert isinstance(caught.value, MochaError)
    assert str(caught.value) == message
