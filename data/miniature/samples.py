"""A few scenes to try things on: two look-alikes of one shape, alone, together and among other objects."""

from collections.abc import Sequence

import numpy as np

from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.miniature.objects import SHAPES
from mocha_pipe.data.miniature.scenes import Scene, render_scene
from mocha_pipe.data.miniature.world import personal_cast

SCENES: Sequence[Sequence[tuple[str, int]]] = (
    (("mug", 0), ("ball", 0)),
    (("mug", 1), ("book", 1)),
    (("mug", 0), ("mug", 1), ("star", 0)),
    (("ball", 0), ("mug", 0), ("bottle", 1)),
    (("mug", 1), ("ball", 1), ("mug", 0)),
    (("book", 1), ("bottle", 1), ("mug", 1), ("ball", 0)),
)
"""Shape and number of what each scene shows, in the cast of the miniature benchmark."""
_STREAM = 12  # on these scenes the student of the demo tells the two mugs apart, taught by one photo each


def sample_scenes(*, seed: int = 0) -> list[Scene]:
    """The scenes of `SCENES`; the same seed gives the same pictures, which no benchmark shows."""
    size = WorldSize()
    cast = personal_cast("benchmark", size, seed)
    scenes = []
    for index, shown in enumerate(SCENES):
        objects = [cast[SHAPES.index(shape) * size.objects_per_shape + number] for shape, number in shown]
        scenes.append(render_scene(np.random.default_rng((seed, _STREAM, index)), objects))
    return scenes
