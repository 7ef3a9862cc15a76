"""What exists in the miniature world: personal objects, their captions, and which split may show them.

A detector knows the eight shapes only. An object is personal by its two colours, its pattern and, on some, a sticker.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

SHAPES = ("ball", "book", "kite", "mug", "bottle", "star", "cross", "ring")
COLOURS = {
    "red": (205, 35, 40),
    "green": (40, 150, 60),
    "blue": (40, 75, 200),
    "yellow": (235, 215, 50),
    "purple": (130, 50, 160),
    "orange": (240, 135, 30),
    "white": (240, 240, 240),
    "black": (25, 25, 28),
}
PATTERNS = ("plain", "striped", "banded", "dotted", "checked", "split")
UNSEEN_COLOURS = {
    "pink": (250, 150, 190),
    "teal": (0, 130, 130),
    "brown": (120, 70, 35),
    "lime": (170, 230, 40),
    "navy": (20, 25, 95),
    "grey": (130, 132, 135),
    "sky": (130, 200, 245),
    "olive": (110, 115, 40),
}
UNSEEN_PATTERNS = ("diagonal", "ringed", "quartered", "waved", "crossed")
"""These and `UNSEEN_COLOURS` occur in no scene of training, only in worlds that ask what carries over (`Shift`)."""

Split = Literal["train", "val", "benchmark"]
Shift = Literal["none", "colours", "patterns", "small"]
"""How a world differs from that of training: unseen colours, unseen patterns, objects of half the size in a scene."""


@dataclass(frozen=True, order=True, slots=True)
class PersonalObject:
    """One object that somebody could call theirs."""

    shape: str
    main: str
    """Colour of the body."""
    second: str
    """Colour of the pattern; equal to `main` exactly when the pattern is plain."""
    pattern: str
    sticker: str = ""
    """Colour of a small sticker, or empty for none."""

    @property
    def name(self) -> str:
        """A short unique name, e.g. `mug_red_white_striped_green`."""
        return "_".join(part for part in (self.shape, self.main, self.second, self.pattern, self.sticker) if part)

    @property
    def caption(self) -> str:
        """The sentence that the miniature teacher learns to say of it."""
        colours = self.main if self.pattern == "plain" else f"{self.main} and {self.second} {self.pattern}"
        look = _with_article(f"{colours} {self.shape}")
        return f"{look} with {_with_article(self.sticker)} sticker" if self.sticker else look

    @property
    def split(self) -> Split:
        """The only split whose scenes may show it: a benchmark object is never seen in training."""
        bucket = hashlib.blake2b(self.name.encode(), digest_size=1).digest()[0] % 8
        return "benchmark" if bucket == 0 else "val" if bucket == 1 else "train"


def random_object(rng: np.random.Generator, shape: str, split: Split) -> PersonalObject:
    """Draw an object of one shape that the split may show; a third of all objects carry a sticker."""
    colours = tuple(COLOURS)
    while True:
        pattern = str(rng.choice(PATTERNS))
        main, second, sticker = (str(colour) for colour in rng.choice(colours, size=3, replace=False))
        candidate = PersonalObject(
            shape, main, main if pattern == "plain" else second, pattern, sticker if rng.random() < 1 / 3 else ""
        )
        if candidate.split == split:
            return candidate


def _variants(base: PersonalObject) -> Iterator[PersonalObject]:
    """Objects of the same shape in the same two colours: pattern, roles of the colours or sticker differ."""
    stickers = ("", *(colour for colour in COLOURS if colour not in (base.main, base.second)))
    patterns = [pattern for pattern in PATTERNS if pattern != "plain"]
    for pattern, swap, sticker in product(patterns, (False, True), stickers):
        main, second = (base.second, base.main) if swap else (base.main, base.second)
        variant = replace(base, main=main, second=second, pattern=pattern, sticker=sticker)
        if variant != base:
            yield variant


def personal_objects(rng: np.random.Generator, per_shape: int, split: Split) -> tuple[PersonalObject, ...]:
    """Draw `per_shape` objects of every shape, in two colours that they share: colour alone cannot tell them apart."""
    chosen: list[PersonalObject] = []
    for shape in SHAPES:
        while True:
            base = random_object(rng, shape, split)
            look_alikes = [variant for variant in _variants(base) if variant.split == split]
            if base.pattern != "plain" and len(look_alikes) >= per_shape - 1:
                break
        picks = rng.choice(len(look_alikes), size=per_shape - 1, replace=False)
        chosen += [base, *(look_alikes[pick] for pick in sorted(picks))]
    return tuple(chosen)


def shifted(thing: PersonalObject, shift: Shift) -> PersonalObject:
    """The object of another world that stands for this one: each colour or pattern has its counterpart there."""
    if shift == "colours":
        colour = dict(zip(COLOURS, UNSEEN_COLOURS, strict=True)) | {"": ""}
        return replace(thing, main=colour[thing.main], second=colour[thing.second], sticker=colour[thing.sticker])
    if shift == "patterns":
        pattern = dict(zip(PATTERNS, ("plain", *UNSEEN_PATTERNS), strict=True))
        return replace(thing, pattern=pattern[thing.pattern])
    return thing


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
