"""What a teacher is to the rest of the pipeline. Importing this file loads neither torch nor transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.spec import TeacherSpec


@dataclass(frozen=True, slots=True, eq=False)
class RegionEmbeddings:
    """What a teacher says about n regions, in the order in which they were given."""

    hidden: NDArray[np.float32]  # (n, Dh)
    """Pooled hidden state of the language model (h in the paper); of width 0 where the teacher has none."""
    visual: NDArray[np.float32]  # (n, Dv)
    """Image embedding (z in the paper)."""


class Teacher(Protocol):
    """A frozen model that embeds regions. Equal spec and equal regions mean equal embeddings, up to rounding."""

    spec: TeacherSpec
    """Everything that can change an embedding."""

    def embed(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> RegionEmbeddings:
        """Embed regions, any number of them.

        Args:
            crops: (crop_size, crop_size, 3) uint8 RGB each, from `teacher_cache.crops.cut_crop`.
            class_names: one name per crop, put into the prompt.

        Returns:
            One row per crop, in the order given.
        """
        ...

    def tokens(self, class_name: str) -> int:
        """Tokens that its language model reads of one region, picture and prompt together; 0 where it has none."""
        ...
