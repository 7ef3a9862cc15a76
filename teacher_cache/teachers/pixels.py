"""From crops to the numbers that a vision tower takes, as the checkpoint's own image processor says."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocha_pipe.data.parsing import parse_json
from mocha_pipe.teacher_cache.errors import TeacherError


def image_settings_file(folder: Path) -> str:
    """Which file of a checkpoint holds the settings of its image processor: the newer one goes first."""
    try:
        settings = parse_json((folder / "processor_config.json").read_bytes())
    except (OSError, ValueError):
        settings = {}
    return "processor_config.json" if "image_processor" in settings else "preprocessor_config.json"


def square_size(image_processor: Any, name: str, settings_file: str) -> int:
    """Side in pixels of the square that an image processor hands to its model.

    Args:
        image_processor: of a checkpoint.
        name: of the checkpoint, for messages.
        settings_file: `image_settings_file` of its folder.

    Raises:
        TeacherError: it hands over something else than a square of one size.
    """
    size = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    sides = {key: side for key, side in dict(size).items() if side is not None}
    if set(sides) != {"height", "width"} or sides["height"] != sides["width"]:
        raise TeacherError(
            f"a teacher's image processor must make squares of one size; that of '{name}' makes {sides}; "
            f"set crop_size in its {settings_file} to equal height and width"
        )
    return int(sides["height"])


class PixelScaler:
    """Rescales and normalises crops on the device of the model, by the numbers of the image processor.

    Crops travel to the device as bytes. They have the processor's size already (see `teacher_cache.crops`).
    """

    def __init__(self, image_processor: Any) -> None:
        """Take the processor's factor, mean and standard deviation."""
        factor = float(image_processor.rescale_factor) if image_processor.do_rescale else 1.0
        has_norm = image_processor.do_normalize
        mean = torch.tensor(image_processor.image_mean if has_norm else [0.0] * 3, dtype=torch.float64)
        std = torch.tensor(image_processor.image_std if has_norm else [1.0] * 3, dtype=torch.float64)
        self._scale = (factor / std).to(torch.float32)[:, None, None]
        self._shift = (-mean / std).to(torch.float32)[:, None, None]

    def __call__(self, crops: Tensor, dtype: torch.dtype) -> Tensor:  # (N, S, S, 3) uint8 -> (N, 3, S, S)
        """Numbers for the tower, on the device of the crops."""
        scale, shift = (part.to(crops.device) for part in (self._scale, self._shift))
        return torch.addcmul(shift, crops.permute(0, 3, 1, 2).to(torch.float32), scale).to(dtype).contiguous()
