"""What a user can set about the data, and how settings of every package are checked. Light: `--help` reads it."""

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

SETTINGS = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
"""How a class of settings is checked: no unknown names, no text for a number, no number for true or false."""
AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
DeviceName = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""Such as `cuda:1`, or `1`, for which a file may hold the number."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class WorldSize:
    """How much of the miniature world is written."""

    train_scenes: AtLeastOne = 1600
    """Scenes of the training split."""
    val_scenes: AtLeastOne = 200
    """Scenes of the validation split."""
    objects_per_shape: AtLeastOne = 3
    """Personal objects of a benchmark for each of the eight shapes; all in the same two colours."""
    scenes_per_object: AtLeastOne = 16
    """Scenes of a benchmark in which an object is the main one; support and query images are drawn from these."""
