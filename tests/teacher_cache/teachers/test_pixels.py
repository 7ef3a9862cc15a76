"""Pixels: the checkpoint's processor neither cuts nor distorts a crop of its own size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoProcessor, CLIPImageProcessor

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.pixels import PixelScaler, image_settings_file, square_size


def scaled(processor: Any, crops: list[NDArray[np.uint8]], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return PixelScaler(processor)(torch.from_numpy(np.stack(crops)), dtype)


def test_a_crop_equals_the_processors_own_treatment(
    toy_llava: Path, make_crops: Callable[..., list[NDArray[np.uint8]]]
) -> None:
    processor = AutoProcessor.from_pretrained(toy_llava).image_processor
    crops = make_crops(2, 336)
    own = processor(images=[Image.fromarray(crop) for crop in crops], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(scaled(processor, crops), own, rtol=0, atol=2e-6)
    assert scaled(processor, crops, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{"do_rescale": False}, {"do_normalize": False}])
def test_what_the_processor_leaves_out_is_left_out(
    options: dict[str, bool], make_crops: Callable[..., list[NDArray[np.uint8]]]
) -> None:
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, **options)
    crops = make_crops(3, 16)
    own = processor(images=crops, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    torch.testing.assert_close(scaled(processor, crops), own, rtol=1e-6, atol=2e-6)


def test_size_is_that_of_the_square() -> None:
    assert square_size(CLIPImageProcessor(crop_size={"height": 24, "width": 24}), "m", "x.json") == 24
    whole = CLIPImageProcessor(do_center_crop=False, size={"height": 32, "width": 32})
    assert square_size(whole, "m", "x.json") == 32


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"crop_size": {"height": 24, "width": 32}}, "{'height': 24, 'width': 32}"),
        ({"do_center_crop": False, "size": {"shortest_edge": 24}}, "{'shortest_edge': 24}"),
    ],
)
def test_other_shapes_are_refused(options: dict[str, object], found: str) -> None:
    with pytest.raises(TeacherError) as caught:
        square_size(CLIPImageProcessor(**options), "my-llava", "processor_config.json")
    assert str(caught.value) == (
        f"a teacher's image processor must make squares of one size; that of 'my-llava' makes {found}; "
        "set crop_size in its processor_config.json to equal height and width"
    )


def test_the_file_that_is_read_is_the_one_that_is_named(tmp_path: Path) -> None:
    assert image_settings_file(tmp_path) == "preprocessor_config.json"
    (tmp_path / "processor_config.json").write_text('{"processor_class": "LlavaProcessor"}')
    assert image_settings_file(tmp_path) == "preprocessor_config.json"
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"crop_size": 24}}')
    assert image_settings_file(tmp_path) == "processor_config.json"
