"""Prompts: the text around the class name, and the tokens that come of it."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, LABEL_FIELD
from mocha_pipe.teacher_cache.teachers.prompt import Limits, PromptEncoder

QUESTION = "Describe the {label}."


@pytest.fixture
def processor(small_llava: Path) -> Any:
    return AutoProcessor.from_pretrained(small_llava)


def encoder(processor: Any) -> PromptEncoder:
    return PromptEncoder(processor, QUESTION, crop_size=28, image_tokens=4, limits=Limits(vocabulary=1000))


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
        "a class name must not contain a special token of the teacher's such as '<image>'; found 'my <image>'; "
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


@pytest.mark.parametrize("name", ["</s>", "a <s> b", "<pad>", "<unk>"])
def test_no_special_token_is_a_class_name(name: str, processor: Any) -> None:
    """It would be read as the end of the answer, or as nothing."""
    token = name.strip("ab ")
    with pytest.raises(TeacherError) as caught:
        encoder(processor).encode(name)
    assert str(caught.value) == (
        f"a class name must not contain a special token of the teacher's such as '{token}'; found '{name}'; "
        "rename the class in data.yaml"
    )


def test_no_special_token_is_in_the_prompt(processor: Any) -> None:
    with pytest.raises(TeacherError) as caught:
        PromptEncoder(processor, "<image> {label}?", crop_size=28, image_tokens=4, limits=Limits(vocabulary=1000))
    assert str(caught.value) == (
        "a prompt must not contain a special token of the teacher's such as '<image>'; found '<image> {label}?'; "
        "pass another one with --prompt"
    )


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ messages[0]['content'][1]['text'] }}<image>", "none"),
        ("{{ messages[0]['content'][1]['text'] }}<image> ASSISTANT:", "the question before it"),
    ],
)
def test_the_question_must_follow_the_picture(template: str, found: str, processor: Any) -> None:
    processor.chat_template = template
    with pytest.raises(TeacherError) as caught:
        encoder(processor)
    assert str(caught.value) == (
        "the teacher's chat template must put the question after the picture, for what follows the picture gets "
        f"pooled; found {found}; correct chat_template.jinja"
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('system turns only') }}", "system turns only"),
        ("{% for message in messages %}", "Unexpected end of template."),
        ("{{ messages[3]['content'] }}", "list object has no element 3"),
    ],
)
def test_a_broken_chat_template_ends_in_one_line(template: str, problem: str, processor: Any) -> None:
    processor.chat_template = template
    with pytest.raises(TeacherError) as caught:
        encoder(processor)
    assert str(caught.value).startswith(
        f"the teacher's chat template must make a prompt of a picture and a question; it fails ({problem}"
    )
    assert str(caught.value).endswith("; correct its chat_template.jinja or --teacher")
    assert "\n" not in str(caught.value)


def test_every_token_is_in_the_vocabulary(processor: Any) -> None:
    highest = max(encoder(processor).encode("object"))
    with pytest.raises(TeacherError) as caught:
        PromptEncoder(processor, QUESTION, crop_size=28, image_tokens=4, limits=Limits(vocabulary=highest))
    assert str(caught.value) == (
        f"every token of a prompt must be in the model's vocabulary of {highest}; found the id {highest}; correct "
        "image_token_index (or image_token_id) and vocab_size in config.json, or the tokenizer's files"
    )
