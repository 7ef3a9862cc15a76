"""LlavaTeacher against a plain loop: one box at a time through the full transformers model, indices counted by hand."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoProcessor, CLIPImageProcessor, CLIPModel, LlavaForConditionalGeneration

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.describe import describe
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from tests.shared import DEVICE

CLASS_NAMES = ["cat", "kitchen & dining room table", "Müll 垃圾", "a", "the can"]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}

Crops = list[NDArray[np.uint8]]
MakeTeacher = Callable[..., LlavaTeacher]


class PlainLlava:
    """The released model's documented use: processor on one picture and one prompt, then the whole model."""

    def __init__(self, folder: Path) -> None:
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    def inputs(self, crop: NDArray[np.uint8], name: str) -> Any:
        text = f"USER: <image>\n{DEFAULT_PROMPT.replace('{label}', name)} ASSISTANT:"
        return self.processor(images=Image.fromarray(crop), text=text, return_tensors="pt")

    @torch.no_grad()
    def prompt_embedding(self, crop: NDArray[np.uint8], name: str, layer: int = -1) -> NDArray[np.float32]:
        inputs = self.inputs(crop, name)
        states = self.model(**inputs, output_hidden_states=True).hidden_states[layer][0]
        ids = inputs["input_ids"][0].tolist()
        last_image = max(index for index, token in enumerate(ids) if token == self.processor.image_token_id)
        total = torch.zeros(states.shape[1])
        for index in range(last_image + 1, len(ids)):
            total += states[index]
        return (total / (len(ids) - last_image - 1)).numpy()

    @torch.no_grad()
    def answer_states(
        self, crop: NDArray[np.uint8], name: str, *, max_new_tokens: int, num_beams: int
    ) -> list[torch.Tensor]:
        """Last-layer state of every step that chose a token of the answer, end token included."""
        output = self.model.generate(
            **self.inputs(crop, name),
            do_sample=False,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            output_hidden_states=True,
            return_dict_in_generate=True,
        )
        beams = output.beam_indices[0].tolist() if num_beams > 1 else [0] * len(output.hidden_states)
        return [step[-1][beam, -1] for step, beam in zip(output.hidden_states, beams, strict=False) if beam >= 0]

    @torch.no_grad()
    def patch_mean(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        tower = self.model.model.vision_tower
        pixels = self.processor.image_processor(images=Image.fromarray(crop), return_tensors="pt")["pixel_values"]
        norm = getattr(tower, "post_layernorm", None) or tower.vision_model.post_layernorm
        states = norm(tower(pixels).last_hidden_state[0])
        return torch.stack([states[index] for index in range(1, len(states))]).mean(dim=0).numpy()


@pytest.fixture(scope="module")
def plain(small_llava: Path) -> PlainLlava:
    return PlainLlava(small_llava)


@pytest.fixture(scope="module")
def crops(make_crops: Callable[..., Crops]) -> Crops:
    return make_crops(len(CLASS_NAMES), 28)


def test_a_picture_of_the_released_size_becomes_576_tokens(
    toy_llava: Path, make_teacher: MakeTeacher, make_crops: Callable[..., Crops]
) -> None:
    plain, [crop] = PlainLlava(toy_llava), make_crops(1, 336)
    ids = plain.inputs(crop, "cat")["input_ids"][0].tolist()
    assert ids.count(plain.processor.image_token_id) == 576
    found = make_teacher(toy_llava).embed([crop], ["cat"])
    np.testing.assert_allclose(found.hidden[0], plain.prompt_embedding(crop, "cat"), **TOLERANCE)
    np.testing.assert_allclose(found.visual[0], plain.patch_mean(crop), **TOLERANCE)


def test_prompt_embedding_equals_the_plain_loop(
    small_llava: Path, make_teacher: MakeTeacher, plain: PlainLlava, crops: Crops
) -> None:
    found = make_teacher(small_llava, batch=3).embed(crops, CLASS_NAMES).hidden
    for row, crop, name in zip(found, crops, CLASS_NAMES, strict=True):
        np.testing.assert_allclose(row, plain.prompt_embedding(crop, name), **TOLERANCE)


@pytest.mark.parametrize("layer", [-4, -2, 1, 3])
def test_any_layer_can_be_pooled(
    layer: int, small_llava: Path, make_teacher: MakeTeacher, plain: PlainLlava, crops: Crops
) -> None:
    found = make_teacher(small_llava, layer=layer).embed(crops[:2], CLASS_NAMES[:2]).hidden
    for row, crop, name in zip(found, crops, CLASS_NAMES, strict=False):
        np.testing.assert_allclose(row, plain.prompt_embedding(crop, name, layer), **TOLERANCE)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generate_embedding_equals_the_plain_loop(
    num_beams: int, small_llava: Path, make_teacher: MakeTeacher, plain: PlainLlava, crops: Crops
) -> None:
    options: dict[str, Any] = {"max_new_tokens": 9, "num_beams": num_beams}
    found = make_teacher(small_llava, batch=5, mode="generate", **options).embed(crops, CLASS_NAMES).hidden
    lengths = set()
    for row, crop, name in zip(found, crops, CLASS_NAMES, strict=True):
        states = plain.answer_states(crop, name, **options)
        lengths.add(len(states))
        kept = states[1:-1] if len(states) >= 3 else states
        np.testing.assert_allclose(row, torch.stack(kept).mean(dim=0).numpy(), **TOLERANCE)
    assert len(lengths) > 1, "answers of one length prove nothing about padding"


def test_an_answer_of_one_or_two_steps_is_pooled_whole(
    small_llava: Path, make_teacher: MakeTeacher, plain: PlainLlava, crops: Crops
) -> None:
    for limit in (1, 2):
        found = make_teacher(small_llava, mode="generate", max_new_tokens=limit).embed(crops[:1], ["cat"]).hidden[0]
        states = plain.answer_states(crops[0], "cat", max_new_tokens=limit, num_beams=1)
        np.testing.assert_allclose(found, torch.stack(states).mean(dim=0).numpy(), **TOLERANCE)


def test_tower_visual_equals_a_plain_call(
    small_llava: Path, make_teacher: MakeTeacher, plain: PlainLlava, crops: Crops
) -> None:
    found = make_teacher(small_llava, batch=3).embed(crops, CLASS_NAMES).visual
    for row, crop in zip(found, crops, strict=True):
        np.testing.assert_allclose(row, plain.patch_mean(crop), **TOLERANCE)


def test_clip_visual_equals_get_image_features(
    small_llava: Path, toy_clip: Path, make_teacher: MakeTeacher, make_crops: Callable[..., Crops]
) -> None:
    crops = make_crops(3, 28)
    found = make_teacher(small_llava, visual=str(toy_clip)).embed(crops, ["cat"] * 3).visual
    model, processor = CLIPModel.from_pretrained(toy_clip).eval(), CLIPImageProcessor.from_pretrained(toy_clip)
    for row, crop in zip(found, crops, strict=True):
        squashed = Image.fromarray(crop).resize((32, 32), Image.Resampling.BICUBIC)
        with torch.no_grad():
            features = model.get_image_features(**processor(images=squashed, return_tensors="pt"))
        expected = features.pooler_output[0].numpy()
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), **TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def count_calls(module: torch.nn.Module) -> list[torch.Size]:
    """Shapes of the module's first inputs, filled as it is called."""
    shapes: list[torch.Size] = []
    module.register_forward_pre_hook(
        lambda _module, inputs, named: shapes.append(_first(inputs, named).shape), with_kwargs=True
    )
    return shapes


def _first(inputs: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor:
    return next(value for value in [*inputs, *named.values()] if isinstance(value, torch.Tensor))


@pytest.fixture
def fresh_teacher(small_llava: Path) -> Callable[..., LlavaTeacher]:
    """A teacher of this test's own, to hang hooks on."""
    return lambda **options: LlavaTeacher.load(TeacherConfig(model=str(small_llava), device=DEVICE, **options))


def test_prompt_mode_never_computes_logits(
    fresh_teacher: Callable[..., LlavaTeacher], make_crops: Callable[..., Crops]
) -> None:
    teacher = fresh_teacher()
    calls = count_calls(teacher._model.lm_head)
    teacher.embed(make_crops(2, 28), ["cat", "can"])
    assert calls == []


def test_generate_mode_computes_logits_at_the_last_position_only(
    fresh_teacher: Callable[..., LlavaTeacher], make_crops: Callable[..., Crops]
) -> None:
    teacher = fresh_teacher(mode="generate", max_new_tokens=4)
    calls = count_calls(teacher._model.lm_head)
    teacher.embed(make_crops(2, 28), ["cat", "can"])
    assert calls
    assert all(len(shape) == 2 for shape in calls)  # (regions, width): one position of each


@pytest.mark.parametrize("options", [{}, {"mode": "generate", "max_new_tokens": 4, "num_beams": 3}])
def test_the_tower_sees_every_picture_once(
    options: dict[str, Any], fresh_teacher: Callable[..., LlavaTeacher], make_crops: Callable[..., Crops]
) -> None:
    teacher = fresh_teacher(batch=2, **options)
    calls = count_calls(teacher._model.model.vision_tower)
    teacher.embed(make_crops(3, 28), ["cat", "can", "a"])
    assert [shape[0] for shape in calls] == [2, 1]


@pytest.mark.parametrize(("options", "real_column"), [({}, 0), ({"mode": "generate", "max_new_tokens": 4}, -1)])
def test_prompts_are_padded_on_the_right_and_before_an_answer_on_the_left(
    options: dict[str, Any],
    real_column: int,
    fresh_teacher: Callable[..., LlavaTeacher],
    make_crops: Callable[..., Crops],
) -> None:
    teacher = fresh_teacher(**options)
    masks: list[torch.Tensor] = []
    teacher._model.model.register_forward_pre_hook(
        lambda _module, _inputs, named: masks.append(named["attention_mask"]), with_kwargs=True
    )
    teacher.embed(make_crops(2, 28), ["a", "kitchen & dining room table"])
    assert masks[0][:, real_column].tolist() == [1, 1]
    assert sorted(masks[0][:, -1 - real_column].tolist()) == [0, 1]


def test_equal_lengths_need_no_mask(
    fresh_teacher: Callable[..., LlavaTeacher], make_crops: Callable[..., Crops]
) -> None:
    teacher = fresh_teacher()
    masks: list[torch.Tensor | None] = []
    teacher._model.model.register_forward_pre_hook(
        lambda _module, _inputs, named: masks.append(named["attention_mask"]), with_kwargs=True
    )
    crops = make_crops(3, 28)
    together = teacher.embed(crops, ["cat", "cat", "cat"])
    padded = teacher.embed([*crops, crops[0]], ["cat", "cat", "cat", "kitchen & dining room table"])
    assert [mask is None for mask in masks] == [True, False]
    np.testing.assert_allclose(together.hidden, padded.hidden[:3], **TOLERANCE)


def test_a_batch_takes_prompts_of_like_length(
    fresh_teacher: Callable[..., LlavaTeacher], make_crops: Callable[..., Crops]
) -> None:
    teacher = fresh_teacher(batch=2)
    shapes = count_calls(teacher._model.model)
    teacher.embed(make_crops(4, 28), ["a", "kitchen & dining room table", "a", "kitchen & dining room table"])
    assert shapes[0][1] < shapes[1][1]


def test_the_model_is_frozen_and_uses_fused_attention(fresh_teacher: Callable[..., LlavaTeacher]) -> None:
    model = fresh_teacher()._model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == model.config.text_config._attn_implementation == "sdpa"


def test_a_compiled_teacher_says_the_same(
    shallow_llava: Path,
    make_teacher: MakeTeacher,
    make_crops: Callable[..., Crops],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In both modes, of one model: tracing it is what takes the time here."""
    graphs: list[int] = []

    def note(graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., object]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    # What the compiler would make of the graphs takes minutes; that they are captured and used is what counts here.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=note))
    compiled = make_teacher(shallow_llava, compile=True)
    assert compiled.spec == make_teacher(shallow_llava).spec, "speed is no part of what an embedding depends on"
    answers = {"mode": "generate", "max_new_tokens": 2}
    config = TeacherConfig(model=str(shallow_llava), device=DEVICE, **answers)
    describing = LlavaTeacher(describe(config), compiled._model, batch=config.batch)
    crops = make_crops(len(CLASS_NAMES), 28)
    for teacher, options in ((compiled, {}), (describing, answers)):
        before = len(graphs)
        found, expected = (t.embed(crops, CLASS_NAMES) for t in (teacher, make_teacher(shallow_llava, **options)))
        assert len(graphs) > before
        np.testing.assert_allclose(found.hidden, expected.hidden, **TOLERANCE)
        np.testing.assert_allclose(found.visual, expected.visual, **TOLERANCE)
    assert len(graphs) >= 3, "the tower once, and the language model in each mode"


def test_a_batch_that_exceeds_memory_says_what_to_pass(
    fresh_teacher: Callable[..., LlavaTeacher], make_crops: Callable[..., Crops], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = fresh_teacher(batch=4)

    def exceed(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(teacher, "forward", exceed)
    with pytest.raises(TeacherError) as caught:
        teacher.embed(make_crops(4, 28), ["cat"] * 4)
    assert str(caught.value) == ("a batch must fit into the device's memory; 4 regions do not; pass --batch 2")


def test_llava_is_a_teacher(small_llava: Path, make_teacher: MakeTeacher) -> None:
    teacher: Teacher = make_teacher(small_llava)
    assert (teacher.spec.hidden_dim, teacher.spec.visual_dim) == (32, 48)
