"""Answers that are drawn, banned from repeating themselves and pooled over all beams, against `generate` by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, TeacherConfig
from mocha_pipe.teacher_cache.teachers.search import region_seed
from mocha_pipe.teacher_cache.teachers.vlm.teacher import VlmTeacher
from tests.shared import DEVICE
from tests.teacher_cache.teachers.families.table import OFTEN

Crops = list[NDArray[np.uint8]]
MakeTeacher = Callable[..., Teacher]
NAMES = ["cat", "kitchen & dining room table", "a"]
SEARCHES: dict[str, dict[str, Any]] = {
    "drawn": {"sampling_seed": 4},
    "banned": {"no_repeat_ngram": 2},
    "pooled": {"num_beams": 3, "all_beams": True},
    "reference": {"sampling_seed": 4, "num_beams": 3, "no_repeat_ngram": 3, "all_beams": True},
    "answer": {"sampling_seed": 4, "num_beams": 3},
}


def by_hand(model: Any, inputs: Any, crop: NDArray[np.uint8], search: dict[str, Any]) -> NDArray[np.float32]:
    """`hidden` of one region, from what `generate` returns."""
    if "sampling_seed" in search:
        torch.manual_seed(region_seed(search["sampling_seed"], crop, inputs["input_ids"]))
    with torch.no_grad():
        output = model.generate(
            **inputs, do_sample="sampling_seed" in search, num_beams=search.get("num_beams", 1), max_new_tokens=9,
            no_repeat_ngram_size=search.get("no_repeat_ngram", 0), output_hidden_states=True,
            return_dict_in_generate=True,
        )  # fmt: skip
    rows = [step[-1][:, -1] for step in output.hidden_states]  # (beams, width) each
    if not search.get("all_beams"):
        beams = output.beam_indices[0].tolist() if search.get("num_beams", 1) > 1 else [0] * len(rows)
        rows = [row[beam : beam + 1] for row, beam in zip(rows, beams, strict=False) if beam >= 0]
    kept = rows[1:-1] if len(rows) >= 3 else rows
    return np.asarray(torch.cat(kept).mean(dim=0).detach().numpy())


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_llava_answers_as_generate_does_by_hand(
    search: dict[str, Any], small_llava: Path, make_teacher: MakeTeacher, make_crops: Callable[..., Crops]
) -> None:
    crops = make_crops(3, 28)
    found = make_teacher(small_llava, batch=3, mode="generate", max_new_tokens=9, **search).embed(crops, NAMES).hidden
    model = LlavaForConditionalGeneration.from_pretrained(small_llava, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(small_llava)
    for row, crop, name in zip(found, crops, NAMES, strict=True):
        text = f"USER: <image>\n{DEFAULT_PROMPT.replace('{label}', name)} ASSISTANT:"
        inputs = processor(images=Image.fromarray(crop), text=text, return_tensors="pt")
        np.testing.assert_allclose(row, by_hand(model, inputs, crop, search), rtol=1e-4, atol=1e-5)


def test_a_teacher_of_another_family_answers_as_generate_does_by_hand(
    tmp_path: Path, make_crops: Callable[..., Crops]
) -> None:
    OFTEN["qwen2_vl"](tmp_path)
    search = SEARCHES["reference"]
    options: dict[str, Any] = {"device": DEVICE, "dtype": "float32", "mode": "generate", "max_new_tokens": 9}
    teacher = VlmTeacher.load(TeacherConfig(model=str(tmp_path), **options, **search))
    crops = make_crops(2, teacher.spec.crop_size)
    found = teacher.embed(crops, NAMES[:2]).hidden
    for row, crop, name in zip(found, crops, NAMES, strict=False):
        inputs = teacher._questions.ask([crop], [name])
        np.testing.assert_allclose(row, by_hand(teacher._model, inputs, crop, search), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["drawn", "reference"])
def test_an_answer_depends_on_region_and_seed_alone(
    name: str, small_llava: Path, make_teacher: MakeTeacher, make_crops: Callable[..., Crops]
) -> None:
    crops = make_crops(3, 28)
    options = {"mode": "generate", "max_new_tokens": 9, **SEARCHES[name]}
    together = make_teacher(small_llava, batch=3, **options).embed([*crops, crops[0]], [*NAMES, NAMES[0]]).hidden
    before = torch.random.get_rng_state()
    alone = [make_teacher(small_llava, batch=1, **options).embed([crop], [each]).hidden[0]
             for crop, each in zip(crops, NAMES, strict=True)][::-1]  # fmt: skip
    np.testing.assert_array_equal(together, [*alone[::-1], alone[-1]])
    assert torch.equal(before, torch.random.get_rng_state())
    if name == "drawn":  # three beams of the toy model are the same three by either seed
        other = make_teacher(small_llava, **{**options, "sampling_seed": 5}).embed(crops, NAMES).hidden
        assert not np.allclose(other, together[:3])
