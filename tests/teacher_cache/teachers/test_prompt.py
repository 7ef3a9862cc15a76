"""Prompts: the text around the class name, and the tokens that come of it."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, LABEL_FIELD
from mocha_pipe.teacher_cache.teachers.prompt import PromptEncoder

QUESTION = "Describe the {label}."


@pytest.fixture
def processor(small_llava: Path) -> Any:
    return AutoProcessor.from_pretrained(small_llava)


def encoder(processor: Any) -> PromptEncoder:
    return PromptEncoder(processor, QUESTION, crop_size=28, image_tokens=4)


def test_the_default_prompt_names_the_class_once() -> None:
    assert DEFAULT_PROMPT.count(LABEL_FIELD) == 1


def test_chat_template_and_released_format_agree(processor: Any) -> None:
    by_template = encoder(processor).text("cat")
    processor.chat_template = None
    by_format = encoder(processor).text("cat")
    assert by_template == by_format == "USER: <image>\nDescribe the cat. ASSISTANT:"


def test_tokens_are_start_user_picture_question(processor: Any) -> None:
    ids = list(encoder(processor).encode("cat"))
    tokenizer, image = processor.tokenizer, processor.image_token_id
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    first = ids.index(image)
    assert ids[first : first + 4] == [image] * 4
    assert tokenizer.decode(ids[1:first]).strip() == "USER:"
    assert "Describe the cat. ASSISTANT:" in tokenizer.decode(ids[first + 4 :])


def test_a_template_that_writes_the_start_token_does_not_double_it(processor: Any) -> None:
    processor.chat_template = "<s>" + processor.chat_template
    ids = encoder(processor).encode("cat")
    assert ids.count(processor.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", ["{label}", "{}", "50% {x}", "Müll 垃圾", "", "a" * 300])
def test_any_text_can_be_a_class_name(name: str, processor: Any) -> None:
    ids = encoder(processor).encode(name)
    assert processor.tokenizer.unk_token_id not in ids
    assert f"Describe the {name}." in processor.tokenizer.decode(ids)


def test_a_name_is_encoded_once(processor: Any) -> None:
    prompts = encoder(processor)
    assert prompts.encode("cat") is prompts.encode("cat")


def test_the_image_token_is_no_class_name(processor: Any) -> None:
    with pytest.raises(TeacherError) as caught:
        encoder(processor).encode("my <image>")
    assert str(caught.value) == (
        "a class name must not contain the teacher's image token '<image>'; found 'my <image>'; "
        "rename the class in data.yaml"
    )


def test_processor_and_model_must_agree_on_image_tokens(processor: Any) -> None:
    processor.num_additional_image_tokens = 0
    with pytest.raises(TeacherError) as caught:
        encoder(processor)
    assert str(caught.value) == (
        "processor and model must agree on the tokens of one picture; the processor makes 3, the model 4; correct "
        "patch_size, vision_feature_select_strategy and num_additional_image_tokens in processor_config.json"
    )


def test_text_must_follow_the_picture(processor: Any) -> None:
    processor.chat_template = "{{ messages[0]['content'][1]['text'] }}<image>"
    with pytest.raises(TeacherError) as caught:
        encoder(processor)
    assert str(caught.value) == (
        "the teacher's chat template must put text after the picture, which is what gets pooled; found none; "
        "correct chat_template.jinja"
    )
