"""The shipped miniature teacher: small, a real LLaVA, at home in its world, and made by the script beside it."""

from pathlib import Path

import numpy as np
import pytest
import torch

import mocha_pipe.teacher_cache.teachers
from bench.teachers.miniature_model import build_model, build_processor
from bench.teachers.train_miniature import encode_dialogues, sample_crops, train
from mocha_pipe.data.miniature.objects import SHAPES, random_object
from mocha_pipe.data.miniature.scenes import render_scene
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import load_teacher

FOLDER = Path(mocha_pipe.teacher_cache.teachers.__file__).parent / "miniature"


@pytest.fixture(scope="module")
def miniature() -> Teacher:
    return load_teacher(TeacherConfig(model=str(FOLDER), batch=64))


def test_it_is_small_and_carries_no_pickle() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000
    assert {path.suffix for path in FOLDER.iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}


def test_its_files_are_those_that_the_script_writes(tmp_path: Path) -> None:
    processor = build_processor()
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == (FOLDER / "tokenizer.json").read_text()
    assert (tmp_path / "chat_template.jinja").read_text() == (FOLDER / "chat_template.jinja").read_text()
    model = build_model(processor)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_336_704


@pytest.mark.parametrize("text", ["a red mug", "traffic light", "Ünïcode ✓ 漢字", "tab\tand\nline"])
def test_any_class_name_is_text_to_the_tokenizer(text: str) -> None:
    tokenizer = build_processor().tokenizer
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_words_of_the_world_are_one_token_each() -> None:
    tokenizer = build_processor().tokenizer
    tokens = tokenizer.tokenize("a red and white striped mug with a green sticker")
    assert len(tokens) == 10


def test_dialogues_are_scored_on_the_answer_alone() -> None:
    rng = np.random.default_rng(0)
    things = [random_object(rng, shape, "train") for shape in SHAPES[:4]]
    processor = build_processor()
    ids, mask, labels = encode_dialogues(processor, things)
    for row, thing in enumerate(things):
        scored = labels[row][labels[row] != -100]
        assert processor.tokenizer.decode(scored).strip() == f"{thing.caption}</s>"
        text = processor.tokenizer.decode(ids[row][mask[row] == 1], skip_special_tokens=True)
        assert DEFAULT_PROMPT.format(label=thing.shape) in text
    assert torch.equal((ids == processor.tokenizer.convert_tokens_to_ids("<image>")).sum(1), torch.full((4,), 64))


def test_it_is_trained_on_training_objects_only() -> None:
    crops, things = sample_crops(scenes=20, seed=3)
    assert {crop.shape for crop in crops} == {(64, 64, 3)}
    assert {thing.split for thing in things} == {"train"}


def test_training_repeats_bitwise_and_what_it_writes_loads(tmp_path: Path) -> None:
    for name in ("first", "again"):
        train(tmp_path / name, steps=2, batch=4, scenes=3, seed=1)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again")]
    assert weights[0] == weights[1]
    assert load_teacher(TeacherConfig(model=str(tmp_path / "first"))).spec.hidden_dim == 128


def test_it_tells_objects_apart_that_share_colours(miniature: Teacher) -> None:
    """Two objects that differ in pattern only: nearest of two class means, far above chance."""
    rng = np.random.default_rng(11)
    striped = random_object(rng, "book", "val")
    while striped.pattern != "striped":
        striped = random_object(rng, "book", "val")
    checked = type(striped)(striped.shape, striped.main, striped.second, "checked", striped.sticker)
    crops = []
    for index in range(48):
        scene = render_scene(np.random.default_rng((12, index)), [(striped, checked)[index % 2]])
        crops.append(cut_crop(scene.image, scene.xyxy[0], 0.0, 64))
    hidden = miniature.embed(crops, ["book"] * len(crops)).hidden
    means = np.stack([hidden[kind:24:2].mean(0) for kind in (0, 1)])
    distances = np.linalg.norm(hidden[24:, None] - means[None], axis=2)
    assert (distances.argmin(1) == np.arange(24) % 2).mean() > 0.85
