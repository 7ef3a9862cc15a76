"""What a teacher of any family owes the cache, on tiny models with random weights. See table.py for the families."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.smolvlm import processing_smolvlm

from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT, TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher
from mocha_pipe.teacher_cache.teachers.vlm.questions import TILING, to_device
from mocha_pipe.teacher_cache.teachers.vlm.teacher import VlmTeacher
from tests.shared import DEVICE
from tests.teacher_cache.teachers.families.table import OFTEN, SELDOM

NAMES = ["cat", "kitchen & dining room table", "a", "Müll 垃圾"]
TOLERANCE = 1e-5
"""Of the norm of an embedding, in float32."""
COSINE = 0.995
"""At least, between bfloat16 and float32."""

Crops = list[NDArray[np.uint8]]


class Family:
    """A tiny model on disk, and teachers of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher = cache(self._teacher)

    def _teacher(self, **options: Any) -> VlmTeacher:
        values = {"device": DEVICE, "dtype": "float32", "batch": 3, **options}
        return VlmTeacher.load(TeacherConfig(model=str(self.folder), **values))

    def crops(self, count: int = len(NAMES)) -> Crops:
        """Smooth random pictures of the size that the teacher wants."""
        side = self.teacher().spec.crop_size
        tiles = np.random.default_rng(7).integers(0, 256, (count, 4, 4, 3), np.uint8)
        return [np.ascontiguousarray(t.repeat(-(-side // 4), 0).repeat(-(-side // 4), 1)[:side, :side]) for t in tiles]


@pytest.fixture(
    scope="module",
    params=[*OFTEN, *(pytest.param(name, marks=pytest.mark.families) for name in SELDOM)],
)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    name = request.param
    folder = tmp_path_factory.mktemp("family") / name
    with pytest.MonkeyPatch.context() as patch:
        # SmolVLM's processor wants the package num2words, which it uses for videos alone.
        patch.setattr(processing_smolvlm, "num2words", str)
        try:
            {**OFTEN, **SELDOM}[name](folder)
        except AttributeError as error:
            if "module transformers has no attribute" not in str(error):
                raise
            pytest.skip(f"this transformers is older than the family ({error})")
        yield Family(folder)


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest distance of two rows, as a share of the norm."""
    assert found.shape == expected.shape
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def test_a_region_is_what_the_documented_use_of_the_model_says(family: Family) -> None:
    """One region through the whole model as its model card has it, and indices counted by hand."""
    crop, name = family.crops(2)[1], NAMES[1]
    processor = AutoProcessor.from_pretrained(family.folder)
    model = AutoModelForImageTextToText.from_pretrained(family.folder, dtype=torch.float32).eval()
    question = {"type": "text", "text": DEFAULT_PROMPT.replace("{label}", name)}
    turns = [{"role": "user", "content": [{"type": "image", "image": Image.fromarray(crop)}, question]}]
    tiling = {option: False for option in TILING if hasattr(processor.image_processor, option)}
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template([turns], add_generation_prompt=True, processor_kwargs=tiling, **options)
    inputs.pop("labels", None)
    with torch.inference_mode():
        states = model(**inputs, output_hidden_states=True).hidden_states[-1][0]
    ids = inputs["input_ids"][0].tolist()
    last = max(place for place, token in enumerate(ids) if token == model.config.image_token_id)
    expected = torch.stack([states[place] for place in range(last + 1, len(ids))]).mean(dim=0).numpy()
    found = family.teacher().embed([crop], [name])
    assert difference(found.hidden, expected[None]) <= TOLERANCE
    spec = family.teacher().spec
    assert spec.image_tokens == ids.count(model.config.image_token_id)
    assert family.teacher().tokens(name) == len(ids)


def test_a_batch_of_different_regions_equals_one_by_one(family: Family) -> None:
    """In batches of three and one: what a model keeps from call to call must not count."""
    teacher, crops = family.teacher(), family.crops()
    together = teacher.embed(crops, NAMES)
    alone = [teacher.embed([crop], [name]) for crop, name in zip(crops, NAMES, strict=True)]
    assert difference(together.hidden, np.concatenate([one.hidden for one in alone])) <= TOLERANCE
    assert difference(together.visual, np.concatenate([one.visual for one in alone])) <= TOLERANCE
    assert together.hidden.shape == (len(NAMES), teacher.spec.hidden_dim)
    assert together.visual.shape == (len(NAMES), teacher.spec.visual_dim)


def test_picture_and_label_matter(family: Family) -> None:
    crops = family.crops(2)
    found = family.teacher().embed([crops[0], crops[1], crops[0]], ["cat", "cat", "scissors"])
    assert difference(found.hidden[:1], found.hidden[1:2]) > 1e-3
    assert difference(found.visual[:1], found.visual[1:2]) > 1e-3
    assert difference(found.hidden[:1], found.hidden[2:]) > 1e-3
    assert difference(found.visual[:1], found.visual[2:]) <= TOLERANCE


def test_padding_on_either_side_says_the_same(family: Family) -> None:
    teacher, crops = family.teacher(), family.crops(2)
    with torch.inference_mode():
        left, right = (teacher._read(teacher._ask([0, 1], crops, NAMES[:2], side)) for side in ("left", "right"))
    assert difference(left.cpu().numpy(), right.cpu().numpy()) <= TOLERANCE


def test_bfloat16_is_near_float32(family: Family) -> None:
    whole, half = (family.teacher(dtype=dtype).embed(family.crops(), NAMES) for dtype in ("float32", "bfloat16"))
    for one, other in ((whole.hidden, half.hidden), (whole.visual, half.visual)):
        cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosines.min() >= COSINE


@pytest.mark.parametrize("num_beams", [1, 2])
def test_answers_of_a_batch_are_those_of_generate_alone(family: Family, num_beams: int) -> None:
    teacher = family.teacher(mode="generate", max_new_tokens=5, num_beams=num_beams)
    crops, model = family.crops(3), teacher._model
    found = teacher.embed(crops, NAMES[:3])
    for row, crop, name in zip(range(3), crops, NAMES, strict=False):
        inputs = to_device(teacher._questions.ask([crop], [name]), model.device, model.dtype)
        output = model.generate(
            **inputs, do_sample=False, num_beams=num_beams, max_new_tokens=5, output_hidden_states=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        answer = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        beams = output.beam_indices[0].tolist() if num_beams > 1 else [0] * len(answer)
        states = [step[-1][beam, -1] for step, beam in zip(output.hidden_states, beams, strict=False) if beam >= 0]
        kept = states[1:-1] if len(states) >= 3 else states
        expected = torch.stack(kept).mean(dim=0).detach().cpu().numpy()
        assert difference(found.hidden[row : row + 1], expected[None]) <= TOLERANCE
    prompted = family.teacher().embed(crops, NAMES[:3])
    assert difference(found.visual, prompted.visual) <= TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(50, 1), (1, 50), (8, 8), (30, 400), (4, 1000)])
def test_crops_of_any_shape_cost_the_same(family: Family, height: int, width: int) -> None:
    """They are squashed to the spec's square, so that no processor sees how thin they were."""
    spec = family.teacher().spec
    image = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    crop = cut_crop(image, [0, 0, width, height], 0.0, spec.crop_size)
    inputs = family.teacher()._questions.ask([crop], ["cat"])
    count = int((inputs["input_ids"] == family.teacher()._questions.image_token_id).sum())
    assert count == spec.image_tokens


def test_the_shorter_way_of_llava_leads_to_the_same(tmp_path: Path) -> None:
    OFTEN["llava"](tmp_path / "llava")
    family = Family(tmp_path / "llava")
    general = family.teacher().embed(family.crops(), NAMES)
    shorter = LlavaTeacher.load(TeacherConfig(model=str(family.folder), device=DEVICE, dtype="float32", batch=3))
    assert difference(shorter.embed(family.crops(), NAMES).hidden, general.hidden) <= TOLERANCE


def test_describing_equals_loading(family: Family) -> None:
    config = TeacherConfig(model=str(family.folder), device=DEVICE, dtype="float32")
    if family.folder.name != "llava":  # LLaVA-1.5 goes its own, shorter way
        assert describe_teacher(config) == family.teacher().spec
    assert TeacherSpec.from_json(family.teacher().spec.to_json()) == family.teacher().spec
