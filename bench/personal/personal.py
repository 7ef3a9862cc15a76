"""What the measurements of personal names share: a student that nothing was taught, and pairs of timed calls."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np

SIZES = (160, 320, 640)
"""Sides of the images in pixels; ultralytics' default is the last."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Seconds of one thread's processor time, which waiting for a busy core does not add to; one pair per round."""

    plain: list[float] = field(default_factory=list)
    personal: list[float] = field(default_factory=list)

    def take(self, turn: int, plain: Callable[[], object], personal: Callable[[], object]) -> None:
        """One round; who goes first changes from turn to turn."""
        kinds = [(plain, self.plain), (personal, self.personal)]
        for call, seconds in kinds if turn % 2 else reversed(kinds):
            seconds.append(thread_seconds(call))

    @property
    def ratio(self) -> float:
        """Personal to plain, median over rounds."""
        return statistics.median(mine / plain for plain, mine in zip(self.plain, self.personal, strict=True))

    def __str__(self) -> str:
        mine, plain = (1000 * statistics.median(seconds) for seconds in (self.personal, self.plain))
        return f"{mine:.1f} / {plain:.1f} ms per image"


def thread_seconds(call: Callable[[], object]) -> float:
    """Processor time of one call in this thread; what runs beside it does not count."""
    started = thread_time()
    call()
    return thread_time() - started


def make_student(folder: Path, config: str, *, class_names: Sequence[str], width: int) -> None:
    """The folder of a student with random weights and embeddings of this width."""
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
