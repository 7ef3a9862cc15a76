"""The spec that follows from a configuration, and checkpoints that cannot be teachers."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.checkpoint import folder_digest
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.describe import describe
from tests.shared import DEVICE


@pytest.fixture
def copy(small_llava: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may spoil."""
    return Path(shutil.copytree(small_llava, tmp_path / "my-llava"))


def spec(folder: Path, **options: Any) -> TeacherSpec:
    return describe(TeacherConfig(model=str(folder), **{"device": DEVICE, **options})).spec


def edit(path: Path, **values: Any) -> None:
    """Overwrite fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_spec_holds_all_that_changes_an_embedding(small_llava: Path) -> None:
    assert spec(small_llava, batch=2, max_new_tokens=7, num_beams=4) == TeacherSpec(
        model="small-llava",
        revision=folder_digest(small_llava),
        prompt=DEFAULT_PROMPT,
        mode="prompt",
        layer=-1,
        pooling="hidden: mean over the text after the image; "
        "visual: mean over the tower's last patch states after post_layernorm",
        crop_margin=0.0,
        crop_size=28,
        dtype="float32",
        visual="tower",
        visual_revision="",
        max_new_tokens=0,
        num_beams=1,
        hidden_dim=32,
        visual_dim=48,
    )


def test_generation_settings_count_in_generate_mode_only(small_llava: Path) -> None:
    assert spec(small_llava, num_beams=4).digest() == spec(small_llava).digest()
    generated = spec(small_llava, mode="generate", max_new_tokens=7, num_beams=4)
    assert (generated.mode, generated.max_new_tokens, generated.num_beams) == ("generate", 7, 4)
    assert generated.pooling.startswith("hidden: mean over the generated steps, first and last left out; ")
    search: dict[str, Any] = {"sampling_seed": 0, "no_repeat_ngram": 3, "all_beams": True}
    assert spec(small_llava, **search).digest() == spec(small_llava).digest()
    searched = spec(small_llava, mode="generate", **search)
    assert {name: getattr(searched, name) for name in search} == search
    assert searched.pooling.startswith(
        "hidden: mean over the generated steps of all beams, first and last step left out; "
    )
    each = [spec(small_llava, mode="generate", **{name: value}).digest() for name, value in search.items()]
    assert len({*each, spec(small_llava, mode="generate").digest()}) == 4


def test_a_clip_checkpoint_is_named_with_its_revision(small_llava: Path, toy_clip: Path) -> None:
    found = spec(small_llava, visual=str(toy_clip))
    assert (found.visual, found.visual_revision) == ("toy-clip", folder_digest(toy_clip))
    assert found.pooling.endswith("; visual: projected image embedding, unit norm")


def test_speed_settings_do_not_change_the_spec(small_llava: Path) -> None:
    assert spec(small_llava, batch=1) == spec(small_llava, batch=64)


def test_visual_must_be_clip(small_llava: Path, toy_llava: Path) -> None:
    with pytest.raises(TeacherError) as caught:
        spec(small_llava, visual=str(toy_llava))
    assert str(caught.value) == (
        "the visual encoder must be tower or a CLIP checkpoint; 'toy-llava' is of type 'llava'; "
        "pass --visual tower or --visual openai/clip-vit-base-patch32"
    )


@pytest.mark.parametrize("layer", [4, -5])
def test_the_layer_must_exist(layer: int, small_llava: Path) -> None:
    with pytest.raises(TeacherError) as caught:
        spec(small_llava, layer=layer)
    assert str(caught.value) == (f"the layer must be one that the teacher has, -4..3; found {layer}; pass --layer -1")


def test_a_question_beyond_the_teachers_positions_is_refused(small_llava: Path) -> None:
    most = json.loads((small_llava / "config.json").read_text())["text_config"]["max_position_embeddings"]
    with pytest.raises(TeacherError) as caught:
        spec(small_llava, prompt="{label} " + "word " * most)
    found = re.fullmatch(
        rf"picture and question must fit into the {most} tokens that the teacher was made for; found (\d+), "
        r"\d+ of them the picture's; shorten --prompt, or lower --image-tokens or --max-new-tokens if you passed them",
        str(caught.value),
    )
    assert found
    assert int(found[1]) > most


def test_an_answer_must_fit_too(small_llava: Path) -> None:
    with pytest.raises(TeacherError, match=r"and 100000 of an answer \(--max-new-tokens\); shorten "):
        spec(small_llava, mode="generate", max_new_tokens=100000)
    spec(small_llava, mode="prompt", max_new_tokens=100000)


def test_a_folder_without_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(
        TeacherError, match=r"^a teacher's folder must hold its processor and tokenizer; those of 'my-llava' cannot be"
    ):
        spec(copy)


def test_a_folder_without_llava_processor_is_refused(copy: Path) -> None:
    edit(copy / "processor_config.json", patch_size=None)
    with pytest.raises(TeacherError) as caught:
        spec(copy)
    assert str(caught.value) == (
        "a teacher needs LLaVA's processor with its patch_size; 'my-llava' has a LlavaProcessor without; "
        "fetch its processor_config.json or correct --teacher"
    )


def test_crop_and_tower_must_have_one_size(copy: Path) -> None:
    settings = json.loads((copy / "processor_config.json").read_text())
    image_processor = {**settings["image_processor"], "crop_size": {"height": 42, "width": 42}}
    edit(copy / "processor_config.json", image_processor=image_processor)
    with pytest.raises(TeacherError) as caught:
        spec(copy)
    assert str(caught.value) == (
        "image processor and vision tower must agree on the picture's side; 'my-llava' has 42 and 28 pixels; "
        "correct crop_size in its processor_config.json"
    )


def test_an_image_token_beyond_the_vocabulary_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    edit(copy / "config.json", text_config={**config["text_config"], "vocab_size": config["image_token_index"]})
    with pytest.raises(TeacherError, match=r"^every token of a prompt must be in the model's vocabulary of \d+; found"):
        spec(copy)


def test_one_size_of_pictures_takes_no_budget(small_llava: Path) -> None:
    with pytest.raises(TeacherError) as caught:
        spec(small_llava, image_tokens=64)
    assert str(caught.value) == (
        "--image-tokens is for models whose tokens grow with the picture; 'small-llava' makes 4 of every crop, and "
        "found 64; leave out --image-tokens"
    )
