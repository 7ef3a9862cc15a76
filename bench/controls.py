"""Controls for what a teacher brings: the same student with targets that no teacher made. Part of `make study`.

    attributes   what an object is made of, in the miniature world's own words: shape, colours, pattern, sticker
    instances    which object it is: a random code for each, told apart from the codes of others (contrastive loss)

Both know more than a data set of boxes says: the world's plan, from which the scenes were drawn.

Legend: N regions, D width of a target, n rows asked for.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.miniature.objects import PersonalObject
from mocha_pipe.data.miniature.world import training_objects
from mocha_pipe.data.regions import RegionTable

Control = Literal["attributes", "instances"]

_CODE_SEED = 0
_ATTRIBUTES = ("shape", "main", "second", "pattern", "sticker")


class PlannedTargets:
    """Targets in memory (a `data.types.RegionTargets`)."""

    def __init__(self, values_ND: NDArray[np.float32]) -> None:
        self.values_ND = values_ND
        self.dim = values_ND.shape[1]
        self.set_aside = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.values_ND)

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:  # (n,) -> (n, D)
        """Targets of the given rows, in their order."""
        return self.values_ND[rows]


def control_targets(control: Control, size: WorldSize, seed: int, table: RegionTable, dim: int) -> PlannedTargets:
    """Targets of the training regions of a miniature.

    Args:
        control: what they tell.
        size: of the world.
        seed: of the world.
        table: its training regions.
        dim: width of the codes of `instances`; that of `attributes` is the number of values that occur.
    """
    scenes = training_objects(size, seed=seed)
    assert [len(objects) for objects in scenes] == np.diff(table.first_row).tolist(), "the plan of another world"
    objects = [thing for scene in scenes for thing in scene]
    return PlannedTargets(attributes(objects) if control == "attributes" else instances(objects, dim))


def attributes(objects: Sequence[PersonalObject]) -> NDArray[np.float32]:  # (N, D)
    """One channel for each value of each attribute that some of the objects lack, of mean 0 and deviation 1."""
    channels = []
    for name in _ATTRIBUTES:
        values = np.array([getattr(thing, name) for thing in objects])
        channels += [values == value for value in np.unique(values)]
    has_ND = np.stack(channels, axis=1).astype(np.float64)
    has_ND = has_ND[:, has_ND.std(axis=0) > 0]
    return np.asarray((has_ND - has_ND.mean(axis=0)) / has_ND.std(axis=0), np.float32)


def instances(objects: Sequence[PersonalObject], dim: int) -> NDArray[np.float32]:  # (N, D)
    """A random code of deviation 1 for each different object; equal objects share it."""
    different = {thing: number for number, thing in enumerate(sorted(set(objects)))}
    codes = np.random.default_rng(_CODE_SEED).normal(size=(len(different), dim)).astype(np.float32)
    return codes[[different[thing] for thing in objects]]
