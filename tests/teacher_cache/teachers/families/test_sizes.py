"""How large crops are shown, and that they arrive as they are: colours, size, tiles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher
from mocha_pipe.teacher_cache.teachers.vlm.questions import Questions
from tests.shared import DEVICE
from tests.teacher_cache.teachers.families.grids import save_qwen2_vl, save_qwen3_vl
from tests.teacher_cache.teachers.families.llava import save_internvl, save_llava_siglip
from tests.teacher_cache.teachers.families.others import save_mistral3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], None]], Path]:
    """Folder of a tiny model, made once."""
    root = tmp_path_factory.mktemp("sizes")

    def make(save: Callable[[Path], None]) -> Path:
        if not (path := root / save.__name__).is_dir():
            save(path)
        return path

    return make


def spec(folder: Path, **options: Any) -> TeacherSpec:
    return describe_teacher(TeacherConfig(model=str(folder), device=DEVICE, **options))


@pytest.mark.parametrize(
    ("save", "side", "tokens"),
    [
        (save_qwen2_vl, 224, 64),  # 28 px a token
        (save_qwen3_vl, 224, 49),  # 32 px a token
        (save_mistral3, 224, 64),
        (save_internvl, 32, 16),  # one tile of its only size
        (save_llava_siglip, 32, 16),
    ],
)
def test_by_default_crops_are_224_pixels_or_the_only_size(
    save: Callable[[Path], None], side: int, tokens: int, folder: Any
) -> None:
    found = spec(folder(save))
    assert (found.crop_size, found.image_tokens) == (side, tokens)
    assert found.sees == f"the whole crop, squashed to {side} x {side} pixels: {tokens} image tokens"


@pytest.mark.parametrize(("budget", "tokens"), [(4, 4), (16, 16), (63, 49), (64, 64), (150, 144)])
def test_a_budget_is_filled_and_never_exceeded(budget: int, tokens: int, folder: Any) -> None:
    path = folder(save_qwen2_vl)
    found = spec(path, image_tokens=budget)
    assert found.image_tokens == tokens
    processor = AutoProcessor.from_pretrained(path)
    larger = Questions(processor, "{label}?", name="m", image_token_id=processor.image_token_id)
    assert larger.image_tokens(found.crop_size + 4) > budget


def test_a_budget_beyond_one_tile_asks_for_tiles(folder: Any) -> None:
    found = spec(folder(save_internvl), image_tokens=100)
    assert found.image_tokens == 80  # 2 x 2 tiles and the thumbnail
    assert found.sees.endswith("80 image tokens, in tiles")
    assert spec(folder(save_internvl), image_tokens=16).image_tokens == 16


def test_a_budget_that_nothing_fits_is_refused(folder: Any) -> None:
    with pytest.raises(TeacherError) as caught:
        spec(folder(save_qwen2_vl), image_tokens=3)
    assert str(caught.value) == (
        "a crop must fit into --image-tokens; 'save_qwen2_vl' makes at least 4 of one, and found 3; pass "
        "--image-tokens 4 or more"
    )


def test_one_size_takes_no_budget(folder: Any) -> None:
    with pytest.raises(TeacherError) as caught:
        spec(folder(save_llava_siglip), image_tokens=64)
    assert str(caught.value) == (
        "--image-tokens is for models whose tokens grow with the picture; 'save_llava_siglip' makes 16 of every crop, "
        "and found 64; leave out --image-tokens"
    )


@pytest.mark.parametrize("side", [1, 3, 4, 32])
def test_colours_arrive_in_their_order_whatever_the_size(side: int, folder: Any) -> None:
    """An array of 1 or 3 rows could be read with its colours first."""
    processor = AutoProcessor.from_pretrained(folder(save_llava_siglip))
    questions = Questions(processor, "{label}?", name="m", image_token_id=processor.image_token_id)
    crop = np.zeros((side, side, 3), np.uint8)
    crop[..., 0], crop[..., 1] = 255, 51
    pixels = questions.ask([crop], ["cat"])["pixel_values"][0]
    mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
    colours = [float(pixels[c].mean()) * std[c] + mean[c] for c in range(3)]
    assert colours == pytest.approx([1.0, 0.2, 0.0], abs=1e-5)


def test_a_crop_of_the_spec_s_size_is_not_resized_again(folder: Any) -> None:
    path = folder(save_llava_siglip)
    processor = AutoProcessor.from_pretrained(path)
    questions = Questions(processor, "{label}?", name="m", image_token_id=processor.image_token_id)
    side = spec(path).crop_size
    crop = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    pixels = questions.ask([crop], ["cat"])["pixel_values"][0].permute(1, 2, 0).numpy()
    mean, std = (np.array(getattr(processor.image_processor, name)) for name in ("image_mean", "image_std"))
    np.testing.assert_allclose((pixels * std + mean) * 255, crop, atol=1e-3)
    assert Image.fromarray(crop).size == (side, side)
