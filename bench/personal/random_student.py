"""A student that nothing was taught. What it finds makes no sense, but takes as long as a trained student's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (160, 320, 640)
"""Sides of the images in pixels; ultralytics' default is the last."""


def make_student(folder: Path, config: str, *, class_names: Sequence[str], width: int) -> None:
    """Write the folder of a student with random weights.

    Args:
        folder: of the student.
        config: name or file of a model as ultralytics describes models.
        class_names: coarse classes.
        width: of the embeddings.
    """
    from mocha_pipe.student.fewshot.strangers import save_strangers
    from mocha_pipe.student.network.distill_model import DistillModel
    from mocha_pipe.student.network.student_files import save_student  # before torch: our environment comes first

    # isort: split
    import torch

    torch.manual_seed(0)
    model: Any = DistillModel(config, num_classes=len(class_names), features="fine", target_dim=width)
    model.names = dict(enumerate(class_names))
    for level in model.model[-1].cv3:  # so that scores differ from anchor to anchor
        torch.nn.init.normal_(level[-1].weight)
    save_student(model, folder, image_size=max(SIZES), meta={})
    save_strangers(folder, np.linspace(-1, 1, 999))
