"""What of a crop reaches an image encoder: measured on pictures, whatever the image processor's settings are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError

_PROBE = 256  # side of the picture that is tried first: one grey level for each column


@dataclass(frozen=True, slots=True)
class Sight:
    """The square that a processor hands to its model, and the crop that it is the middle of."""

    side: int
    """Side of the square, in pixels."""
    crop_size: int
    """Side of the square crop that the processor cuts without resizing it."""

    @property
    def words(self) -> str:
        """What the spec says about it."""
        if self.side == self.crop_size:
            return f"the whole crop, {self.side} x {self.side} pixels"
        share = f"{100 * self.side / self.crop_size:.3g} % of each side"
        return f"the middle {self.side} x {self.side} of {self.crop_size} x {self.crop_size} pixels, {share}"


def to_pixels(processor: Any, crops: Sequence[NDArray[np.uint8]]) -> Tensor:  # N x (S, S, 3) -> (N, 3, side, side)
    """Crops as the processor hands them to its model.

    It is given pictures, not arrays: of an array it has to guess which axis holds the colours.
    """
    pictures = [Image.fromarray(crop) for crop in crops]
    pixels: Tensor = processor(images=pictures, return_tensors="pt")["pixel_values"]
    return pixels


def measure(processor: Any, name: str) -> Sight:
    """Find the crop that a processor takes the middle of.

    A picture of vertical stripes, from black on the left to white on the right, tells how many of its columns the model
    sees, to a few. Noise settles it: at one size alone does every pixel arrive as it is.

    Args:
        processor: an image processor of transformers.
        name: of the checkpoint, for messages.

    Raises:
        TeacherError: it does something else than to resize a square, cut its middle and rescale its numbers.
    """
    stripes = np.broadcast_to(np.arange(_PROBE, dtype=np.uint8)[None, :, None], (_PROBE, _PROBE, 3))
    flat = np.ones((_PROBE, _PROBE, 3), np.uint8)
    try:
        pixels = to_pixels(processor, [0 * flat, 255 * flat, np.array(stripes)])
        side = pixels.shape[-1]
        if to_pixels(processor, [flat.repeat(2, axis=0).repeat(2, axis=1)]).shape[1:] != pixels.shape[1:]:
            raise ValueError("larger pictures stay larger")
        # Its numbers for black and for white, channel by channel.
        black, white = pixels[:2, :, side // 2, side // 2, None, None]
        columns = np.arange(side // 4, side - side // 4)
        levels = _levels(pixels[2], black, white)[0, side // 2, columns]
        guess = _PROBE / float(np.polyfit(columns, levels.numpy(), 1)[0])
        if not guess > 0:
            raise ValueError("black and white are the same to it")
        reach = max(3, round(0.01 * guess))
        sizes = range(max(side, round(guess) - reach), round(guess) + reach + 1)
        for size in sorted(sizes, key=lambda size: abs(size - guess)):
            if _is_middle(processor, size, side, black, white):
                return Sight(side, size)
        found = f"{tuple(pixels.shape[1:])} numbers of a picture, not its middle"
    except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        found = first_line(error)
    raise TeacherError(
        "the image processor of a teacher must resize a square picture, keep its middle and rescale its numbers, "
        f"always to one size; that of '{name}' does something else ({found}); correct its preprocessor_config.json or "
        "--teacher"
    )


def _levels(pixels: Tensor, black: Tensor, white: Tensor) -> Tensor:
    """Grey levels from 0 to 255 that a processor's numbers stand for."""
    return (pixels - black) / (white - black) * 255


def _is_middle(processor: Any, size: int, side: int, black: Tensor, white: Tensor) -> bool:
    """Whether a picture of that size arrives pixel by pixel, without its borders."""
    noise = np.random.default_rng(size).integers(0, 256, (size, size), np.uint8)
    pixels = to_pixels(processor, [noise[..., None].repeat(3, axis=2)])
    if pixels.shape != (1, 3, side, side):
        return False
    levels = _levels(pixels[0], black, white)
    starts = {(size - side) // 2, (size - side + 1) // 2}  # libraries differ where the borders are odd
    middles = [torch.from_numpy(noise[start : start + side, start : start + side]) for start in starts]
    return any(bool(((levels - middle).abs() < 0.25).all()) for middle in middles)
