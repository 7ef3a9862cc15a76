"""From crops to the numbers that a vision tower takes, by the checkpoint's own image processor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from teacher_cache.errors import TeacherError


def square_size(image_processor: Any, name: str) -> int:
    """Side in pixels of the square that an image processor hands to its model.

    Raises:
        TeacherError: it hands over something else than a square of one size.
    """
    size = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    sides = {key: side for key, side in dict(size).items() if side is not None}
    if set(sides) != {"height", "width"} or sides["height"] != sides["width"]:
        raise TeacherError(
            f"a teacher's image processor must make squares of one size; that of '{name}' makes {sides}; "
            "set crop_size in preprocessor_config.json to equal height and width"
        )
    return int(sides["height"])


def pixel_values(
    image_processor: Any, crops: Sequence[NDArray[np.uint8]]
) -> torch.Tensor:  # N x (S, S, 3) -> (N, 3, S, S) float32
    """Crops of the processor's own size, rescaled and normalised.

    The processor neither resizes nor cuts them: a crop is the whole box already (see `teacher_cache.crops`).
    """
    values: torch.Tensor = image_processor(
        images=list(crops),
        do_resize=False,
        do_center_crop=False,
        input_data_format="channels_last",
        return_tensors="pt",
    )["pixel_values"]
    return values
