"""Pixels: the checkpoint's processor neither cuts nor distorts a crop of its own size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoProcessor, CLIPImageProcessor

from teacher_cache.errors import TeacherError
from teacher_cache.teachers.pixels import pixel_values, square_size


def test_a_crop_equals_the_processors_own_treatment(
    toy_llava: Path, make_crops: Callable[..., list[NDArray[np.uint8]]]
) -> None:
    processor = AutoProcessor.from_pretrained(toy_llava).image_processor
    crops = make_crops(2, 336)
    own = processor(images=[Image.fromarray(crop) for crop in crops], return_tensors="pt")["pixel_values"]
    assert torch.equal(pixel_values(processor, crops), own)


def test_a_crop_is_not_cut_by_a_processor_that_enlarges_first() -> None:
    processor = CLIPImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16})
    crop = np.zeros((16, 16, 3), np.uint8)
    crop[0] = 255
    values = pixel_values(processor, [crop])[0]
    assert values.shape == (3, 16, 16)
    assert (values[:, 0] > values[:, 1]).all()


def test_size_is_that_of_the_square() -> None:
    assert square_size(CLIPImageProcessor(crop_size={"height": 24, "width": 24}), "m") == 24
    whole = CLIPImageProcessor(do_center_crop=False, size={"height": 32, "width": 32})
    assert square_size(whole, "m") == 32


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"crop_size": {"height": 24, "width": 32}}, "{'height': 24, 'width': 32}"),
        ({"do_center_crop": False, "size": {"shortest_edge": 24}}, "{'shortest_edge': 24}"),
    ],
)
def test_other_shapes_are_refused(options: dict[str, object], found: str) -> None:
    with pytest.raises(TeacherError) as caught:
        square_size(CLIPImageProcessor(**options), "my-llava")
    assert str(caught.value) == (
        f"a teacher's image processor must make squares of one size; that of 'my-llava' makes {found}; "
        "set crop_size in preprocessor_config.json to equal height and width"
    )
