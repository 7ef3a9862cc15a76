"""A teacher's image encoder without its language model: what a gallery by CLIP would run on a device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from mocha_pipe.teacher_cache.teachers.visual import mean_patch


@torch.inference_mode()
def visual_alone(teacher: LlavaTeacher, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:  # (n, Dv)
    """`visual` of these crops, which go through the encoder as one batch."""
    if teacher._clip is not None:
        return teacher._clip.embed(crops).cpu().numpy()
    tower: Any = teacher._model.model.vision_tower
    pixels = teacher._scale_pixels(torch.from_numpy(np.stack(crops)).to(tower.device), tower.dtype)
    return mean_patch(tower, tower(pixels).last_hidden_state).cpu().numpy()


def num_visual_weights(teacher: LlavaTeacher) -> int:
    """Weights of the encoder that `visual_alone` runs."""
    modules = [teacher._model.model.vision_tower]
    if teacher._clip is not None:
        modules = [teacher._clip._model.vision_model, teacher._clip._model.visual_projection]
    return sum(weight.numel() for module in modules for weight in module.parameters())
