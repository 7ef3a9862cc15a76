"""Checkpoints that cannot be teachers: one line each, with the remedy, before a cache is begun."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from safetensors.torch import save_file
from torch import zeros

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher
from mocha_pipe.teacher_cache.teachers.vlm import describe as vlm_describe
from tests.shared import DEVICE
from tests.teacher_cache.teachers.families.llava import save_llava_siglip
from tests.teacher_cache.teachers.families.others import save_smolvlm
from tests.teacher_cache.teachers.families.toolkit import build_tokenizer, chat, token

KIND = "the teacher must be a vision-language model that chats about pictures, or an image encoder; 'it' is of type "
ANOTHER = "name another with --teacher, such as llava-hf/llava-1.5-7b-hf"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refused") / "it"
    save_llava_siglip(folder)
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy of a good checkpoint that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "it"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(folder: Path, **options: Any) -> str:
    """What `describe_teacher` says about it."""
    with pytest.raises(TeacherError) as caught:
        describe_teacher(TeacherConfig(model=str(folder), device=DEVICE, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def settings_alone(folder: Path, config: Any) -> Path:
    """A checkpoint as far as its config.json."""
    folder.mkdir()
    config.save_pretrained(folder)
    save_file({"nothing": zeros(0)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "kind", "problem"),
    [
        (lambda: hf.Qwen2Config(), "qwen2", "which does not answer to pictures"),
        (lambda: hf.Llama4Config(), "llama4", "its forward pass fails in transformers 5.24"),
        (lambda: hf.Florence2Config(), "florence2", "whose text is read by an encoder, away from the answer's states"),
        (
            lambda: hf.Pix2StructConfig(),
            "pix2struct",
            "whose text is read by an encoder, away from the answer's states",
        ),
        (lambda: hf.GitConfig(), "git", "which does not put pictures among the tokens of a language model"),
        (lambda: hf.BlipConfig(), "blip", "which does not put pictures among the tokens of a language model"),
        (lambda: hf.Blip2Config(), "blip-2", "which does not put pictures among the tokens of a language model"),
        (lambda: hf.Kosmos2Config(), "kosmos-2", "which does not put pictures among the tokens of a language model"),
    ],
)
def test_another_kind_of_model_is_refused_by_name(
    config: Callable[[], Any], kind: str, problem: str, tmp_path: Path
) -> None:
    folder = settings_alone(tmp_path / "it", config())
    assert refusal(folder) == f"{KIND}'{kind}', {problem}; {ANOTHER}"


def test_a_processor_that_writes_its_own_question_is_refused(tmp_path: Path) -> None:
    """GOT-OCR 2 takes a list of pictures as pages, and asks for their text whatever it is told."""
    tokenizer = build_tokenizer(image="<imgpad>", start="<img>", end="</img>")
    images = hf.GotOcr2ImageProcessor(size={"height": 32, "width": 32})
    folder = settings_alone(tmp_path / "it", hf.GotOcr2Config(image_token_index=token(tokenizer, "<imgpad>")))
    hf.GotOcr2Processor(images, tokenizer, chat_template=chat("<imgpad>")).save_pretrained(folder)
    assert refusal(folder) == (
        "a teacher's processor must take one picture and one question; that of 'it' does not (Nested images are only "
        "supported with `multi_page` set to `True`.); name another checkpoint with --teacher"
    )


def test_code_of_a_checkpoint_is_never_run_nor_asked_about(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on standard input would hang a job"))
    auto_map = {
        "AutoConfig": "own.Config",
        "AutoModelForImageTextToText": "own.Model",
        "AutoProcessor": "own.Processor",
    }
    (copy / "own.py").write_text("raise SystemExit('code of a checkpoint ran')\n")
    edit(copy / "config.json", auto_map=auto_map)
    edit(copy / "processor_config.json", auto_map=auto_map)
    assert load_teacher(TeacherConfig(model=str(copy), device=DEVICE)).spec.image_tokens == 16
    edit(copy / "config.json", model_type="of_next_month")
    assert refusal(copy) == (
        f"{KIND}'of_next_month', which this version of transformers does not have; code that comes with a checkpoint "
        f"is never run; {ANOTHER}"
    )


def test_a_folder_without_processor_is_refused(copy: Path) -> None:
    (copy / "processor_config.json").unlink()
    assert refusal(copy).startswith("a teacher's folder must hold ")
    assert refusal(copy).endswith("correct --teacher")


def test_a_model_that_was_not_tuned_to_chat_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    assert refusal(copy) == (
        "a teacher is asked in its chat format; 'it' of type 'llava' has no chat template; name a checkpoint that was "
        "tuned to chat with --teacher, or add its chat_template.jinja"
    )


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ messages[0]['content'][1]['text'] }}<image>", "found none"),
        ("{{ messages[0]['content'][1]['text'] }}<image> assistant:", "found the question before it"),
    ],
)
def test_the_question_must_follow_the_picture(template: str, found: str, copy: Path) -> None:
    (copy / "chat_template.jinja").write_text(template)
    assert refusal(copy) == (
        "the teacher's chat template must put the question after the picture, for what follows the picture gets "
        f"pooled; {found}; correct chat_template.jinja"
    )


def test_a_broken_chat_template_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ raise_exception('no pictures please') }}")
    assert refusal(copy) == (
        "the teacher's chat template must make a prompt of a picture and a question; it fails (no pictures please); "
        "correct its chat_template.jinja or --teacher"
    )


def test_a_template_without_the_picture_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ messages[0]['content'][1]['text'] }}")
    refusals = (  # older processors of transformers take a prompt without a picture
        "a teacher's processor must take one picture and one question; that of 'it' does not",
        "processor and model must agree on the token of a picture; 'it' has 260 in its config.json, and its processor "
        "makes none of it",
    )
    assert refusal(copy).startswith(refusals)


def test_the_prompt_holds_no_special_token(copy: Path) -> None:
    assert refusal(copy, prompt="<image> What is the {label}?") == (
        "a prompt must not contain a special token of the teacher's such as '<image>'; found '<image> What is the "
        "{label}?'; pass another one with --prompt"
    )


def test_a_class_name_holds_no_special_token(original: Path) -> None:
    teacher = load_teacher(TeacherConfig(model=str(original), device=DEVICE))
    with pytest.raises(TeacherError) as caught:
        teacher.tokens("</s>")
    assert str(caught.value) == (
        "a class name must not contain a special token of the teacher's such as '</s>'; found '</s>'; rename the class "
        "in data.yaml"
    )


def test_a_prompt_beyond_the_positions_is_refused(original: Path) -> None:
    """The model would go on without a word."""
    rule = "picture and question must fit into the 4096 tokens that the teacher was made for; found "
    remedy = "; shorten --prompt, or lower --image-tokens or --max-new-tokens if you passed them"
    prompt = "{label}" + " and so on" * 500
    length = len("user:  assistant:") + 16 + len(prompt.replace("{label}", "object"))  # one token for each byte
    assert refusal(original, prompt=prompt) == f"{rule}{length}, 16 of them the picture's{remedy}"
    fits = prompt[:4000]
    length = len("user:  assistant:") + 16 + len(fits.replace("{label}", "object"))
    for options in ({}, {"mode": "generate", "max_new_tokens": 4096 - length}):
        assert (
            describe_teacher(TeacherConfig(model=str(original), device=DEVICE, prompt=fits, **options)).prompt == fits
        )
    assert refusal(original, prompt=fits, mode="generate", max_new_tokens=4097 - length) == (
        f"{rule}{length}, 16 of them the picture's, and {4097 - length} of an answer (--max-new-tokens){remedy}"
    )


def test_an_image_token_beyond_the_vocabulary_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    edit(copy / "config.json", text_config={**config["text_config"], "vocab_size": 100})
    assert refusal(copy).startswith("every token of a prompt must be in the model's vocabulary of 100; found the id ")


def test_another_image_token_than_the_processor_s_is_refused(copy: Path) -> None:
    edit(copy / "config.json", image_token_index=200)
    assert refusal(copy) == (
        "processor and model must agree on the token of a picture; 'it' has 200 in its config.json, and its processor "
        "makes none of it; correct image_token_id there or the chat template"
    )


def test_a_layer_that_is_not_there_is_refused(original: Path) -> None:
    assert refusal(original, layer=3) == ("the layer must be one that the teacher has, -3..2; found 3; pass --layer -1")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers says it of SmolVLM's processor."""
    monkeypatch.setattr(
        "transformers.models.smolvlm.processing_smolvlm.num2words", lambda number: str(number), raising=False
    )
    save_smolvlm(tmp_path / "it")
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None, raising=False)
    assert refusal(tmp_path / "it") == (
        "a teacher of type 'smolvlm' needs the package num2words; 'it' is one and it is not installed; install it "
        "with: pip install num2words"
    )


def test_a_model_that_fails_when_it_is_run_is_refused(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes do not match\nand more")

    monkeypatch.setattr("transformers.models.llava.modeling_llava.LlavaModel.forward", fail)
    with pytest.raises(TeacherError) as caught:
        load_teacher(TeacherConfig(model=str(original), device=DEVICE))
    assert str(caught.value) == (
        "a teacher must embed a picture; 'it' of type 'llava' fails (shapes do not match); name another with --teacher"
    )


def test_clip_is_no_language_model(original: Path) -> None:
    """It is an image encoder, and as such a teacher of its own."""
    assert "clip" not in vlm_describe._BROKEN
    assert refusal(original, visual=str(original)) == (
        "the visual encoder must be tower or a CLIP checkpoint; 'it' is of type 'llava'; pass --visual tower or "
        "--visual openai/clip-vit-base-patch32"
    )
