"""What of a crop an image processor lets through, measured, for processors of every make."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    BitImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    MobileViTImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.encoder.sight import Sight, measure, to_pixels


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


@pytest.mark.parametrize(
    ("processor", "side", "crop_size"),
    [
        (ViTImageProcessor(size=square(224)), 224, 224),
        (SiglipImageProcessor(size=square(384)), 384, 384),
        (CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=square(336)), 336, 336),
        (BitImageProcessor(size={"shortest_edge": 256}, crop_size=square(224)), 224, 256),  # DINOv2
        (ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875), 224, 256),
        (ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.95), 224, 235),  # borders of 5 and 6 pixels
        (ConvNextImageProcessor(size={"shortest_edge": 384}), 384, 384),
        (MobileViTImageProcessor(size={"shortest_edge": 288}, crop_size=square(256)), 256, 288),  # swaps colours
        (BitImageProcessor(size={"shortest_edge": 1024}, crop_size=square(518)), 518, 1024),
        (CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square(32), do_normalize=False), 32, 32),
    ],
)
def test_the_middle_of_the_crop_is_found(processor: Any, side: int, crop_size: int) -> None:
    assert measure(processor, "toy") == Sight(side, crop_size)


def test_timm_s_own_processor(toy_encoder: Callable[[str], Path]) -> None:
    assert measure(AutoImageProcessor.from_pretrained(toy_encoder("timm")), "toy") == Sight(64, 73)


def test_what_it_sees_in_words() -> None:
    assert Sight(224, 224).words == "the whole crop, 224 x 224 pixels"
    assert Sight(224, 256).words == "the middle 224 x 224 of 256 x 256 pixels, 87.5 % of each side"
    assert Sight(224, 248).words == "the middle 224 x 224 of 248 x 248 pixels, 90.3 % of each side"


@pytest.mark.parametrize("width", [1, 3, 4])
def test_narrow_crops_keep_their_axes(width: int) -> None:
    """An array 3 pixels wide or high could be read with its colours first."""
    crop = np.zeros((width, 3, 3), np.uint8)
    crop[..., 0] = 255
    pixels = to_pixels(ViTImageProcessor(size=square(8), do_normalize=False), [crop])
    torch.testing.assert_close(pixels[0].mean(dim=(1, 2)), torch.tensor([1.0, 0.0, 0.0]))


def respond(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Callable[..., dict[str, torch.Tensor]]:
    """A processor that makes 32 x 32 pixels of any picture, and then changes them."""

    def process(images: list[Image.Image], return_tensors: str) -> dict[str, torch.Tensor]:
        arrays = [np.array(image.resize((32, 32)), np.float32) for image in images]
        return {"pixel_values": torch.from_numpy(np.stack([change(a).transpose(2, 0, 1) for a in arrays]))}

    return process


@pytest.mark.parametrize(
    ("processor", "found"),
    [
        (respond(lambda picture: picture[::-1]), "(3, 32, 32) numbers of a picture, not its middle"),
        (respond(lambda picture: 0 * picture), "black and white are the same to it"),
        (ViTImageProcessor(do_resize=False), "larger pictures stay larger"),
        (lambda **_: SimpleNamespace(), "'types.SimpleNamespace' object is not subscriptable"),
        (
            CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=square(32)),
            "(3, 32, 32) numbers of a picture, not its middle",
        ),
    ],
)  # fmt: skip
def test_a_processor_that_does_something_else_is_refused(processor: Any, found: str) -> None:
    with pytest.raises(TeacherError) as caught:
        measure(processor, "toy")
    assert str(caught.value) == (
        "the image processor of a teacher must resize a square picture, keep its middle and rescale its numbers, "
        f"always to one size; that of 'toy' does something else ({found}); correct its preprocessor_config.json or "
        "--teacher"
    )
