"""How large a crop a vision-language model is shown, and how many tokens that costs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.vlm.questions import Questions

SIDE = 224
"""Side of a crop, in pixels, for models whose tokens grow with the picture: what image encoders are trained on."""
_SMALL, _LARGE = 112, 448
"""A model that makes equally many tokens of both is taken to bring every picture to one size."""
_LEAST, _MOST, _STEP = 28, 1024, 4
"""Sides that a budget chooses among: some processors refuse smaller pictures, and crops are seldom larger."""


@dataclass(frozen=True, slots=True)
class CropSize:
    """What is shown to the model of one region."""

    side: int
    """Of the square, in pixels."""
    image_tokens: int
    """What the language model reads of it."""
    tiled: bool
    """Whether the processor may cut it into tiles."""

    @property
    def words(self) -> str:
        """What the spec says about it."""
        tiles = ", in tiles" if self.tiled else ""
        return f"the whole crop, squashed to {self.side} x {self.side} pixels: {self.image_tokens} image tokens{tiles}"


def choose_size(plain: Questions, tiling: Questions, budget: int | None, name: str) -> CropSize:
    """The size at which crops are shown.

    Without a budget it is `SIDE`, or that of the model's pictures where it has one size for all; nothing is cut into
    tiles. With a budget it is the largest up to 1024 pixels, in steps of 4, whose tokens fit, in tiles where the
    processor can.

    Args:
        plain: asks without tiles.
        tiling: asks with tiles, where the processor can.
        budget: image tokens that one crop may cost; None for the default.
        name: of the checkpoint, for messages.

    Raises:
        TeacherError: the budget is too small, or cannot change anything.
    """
    tokens = plain.image_tokens(_SMALL)
    is_fixed = tokens == plain.image_tokens(_LARGE)
    if budget is None:
        side = _own_side(plain) if is_fixed else SIDE
        return CropSize(side, plain.image_tokens(side), tiled=False)
    if is_fixed and not plain.can_tile:
        refuse_budget(budget, tokens, name)
    asking = tiling if plain.can_tile else plain
    if (least := asking.image_tokens(_LEAST)) > budget:
        raise TeacherError(
            f"a crop must fit into --image-tokens; '{name}' makes at least {least} of one, and found {budget}; "
            f"pass --image-tokens {least} or more"
        )
    fits, beyond = _LEAST, _MOST + _STEP
    while beyond - fits > _STEP:
        middle = (fits + beyond) // (2 * _STEP) * _STEP
        fits, beyond = (middle, beyond) if asking.image_tokens(middle) <= budget else (fits, middle)
    return CropSize(fits, asking.image_tokens(fits), tiled=plain.can_tile)


def refuse_budget(budget: int | None, tokens: int, name: str) -> None:
    """Refuse a budget for a model of one size.

    Raises:
        TeacherError: there is one.
    """
    if budget is not None:
        raise TeacherError(
            f"--image-tokens is for models whose tokens grow with the picture; '{name}' makes {tokens} of every crop, "
            f"and found {budget}; leave out --image-tokens"
        )


def _own_side(questions: Questions) -> int:
    """Side of the pictures that a model of one size is given; `_LARGE` where their pixels lie in no square."""
    inputs: dict[str, Any] = questions.ask([np.zeros((_LARGE, _LARGE, 3), np.uint8)], ["object"])
    shape = inputs["pixel_values"].shape
    return int(shape[-1]) if len(shape) > 3 and shape[-1] == shape[-2] else _LARGE
