"""The shipped miniature teacher: small, a real LLaVA, at home in its world, and made by the script beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

import mocha_pipe.teacher_cache.teachers
from bench.teachers.miniature_model import build_model, build_processor
from bench.teachers.train_miniature import encode_dialogues, sample_crops, train
from mocha_pipe.data.miniature.objects import SHAPES, random_object
from mocha_pipe.data.miniature.scenes import render_scene
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher

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


@pytest.mark.parametrize(
    ("mode", "digest"),
    [("prompt", "937475c80cb2c72e57b0c132a90d2c57"), ("generate", "9535ffa458e7be214b299b8e596b2855")],
)
def test_its_spec_is_that_of_the_caches_that_exist(mode: Any, digest: str) -> None:
    """Another digest would close every cache that was built so far."""
    assert describe_teacher(TeacherConfig(model=str(FOLDER), mode=mode, dtype="float32")).digest() == digest


@torch.inference_mode()
def test_its_embeddings_are_those_of_the_caches_that_exist(miniature: Teacher) -> None:
    """Pixels scaled by hand, picture states merged into the prompt's, positions counted, padding on the right."""
    names = ["mug", "a very long class name of many words", "book"]
    crops = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8))
    model = LlavaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(FOLDER)
    tokenizer, images = processor.tokenizer, processor.image_processor
    mean, std = (np.array(values)[:, None, None] for values in (images.image_mean, images.image_std))
    scale, shift = (torch.tensor(values, dtype=torch.float32) for values in (images.rescale_factor / std, -mean / std))
    pixels = torch.addcmul(shift, torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float(), scale)
    pictures = model.model.get_image_features(pixel_values=pixels.contiguous())
    rows = [
        tokenizer(f"USER: {'<image>' * 64}\n{DEFAULT_PROMPT.format(label=name)} ASSISTANT:").input_ids for name in names
    ]
    length = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    merged = model.get_input_embeddings()(ids)
    merged = merged.masked_scatter(
        (ids == processor.image_token_id)[..., None], torch.stack(list(pictures.pooler_output))
    )
    place = (mask.cumsum(dim=1) - 1).clamp(min=0)
    states = model.model(inputs_embeds=merged, attention_mask=mask, position_ids=place).last_hidden_state
    found = miniature.embed(crops, names)
    for row, (state, tokens) in enumerate(zip(states, rows, strict=True)):
        first = len(tokens) - tokens[::-1].index(processor.image_token_id)
        expected = state[first : len(tokens)].mean(dim=0).numpy()
        np.testing.assert_allclose(found.hidden[row], expected, rtol=0, atol=1e-6 * np.linalg.norm(expected))


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
