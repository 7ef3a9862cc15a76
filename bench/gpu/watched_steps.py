"""The steps of one training: how long they take, and how much of that time the device works.

A run warms up. Then some steps are timed without a profiler. In a few more steps the profiler notes when the device
works: that slows the trainer down, but no kernel. So the idle share is

    1 - (kernels and copies of a profiled step, overlaps counted once) / (wall time of a timed step)
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from bench.gpu.device import busy_seconds, peak_bytes, profiler, wait


@dataclass(frozen=True, kw_only=True)
class Window:
    """Steps of a run, in their order."""

    warm_up: int
    """At least 1: a step begins where the one before it ends."""
    timed: int
    profiled: int

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.warm_up + self.timed + self.profiled


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What one process measured."""

    step_seconds: Sequence[float]
    """Of each timed step, from the end of one batch to the end of the next, loading included."""
    waiting_seconds: float
    """Time within those steps in which the trainer waited for the loader."""
    busy: float | None
    """Seconds that the device works in a step; None without a GPU."""
    peak_bytes: int | None
    """Largest device memory of the process's tensors."""
    mixed: bool
    """Whether the device computed in mixed precision."""

    @property
    def step(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.step_seconds)

    @property
    def mean(self) -> float:
        """Seconds of a step."""
        return statistics.fmean(self.step_seconds)

    @property
    def waiting(self) -> float:
        """Share of the time in which the trainer waited for images."""
        return self.waiting_seconds / sum(self.step_seconds)

    @property
    def idle(self) -> float | None:
        """Share of the time in which the device did nothing."""
        return None if self.busy is None else max(0.0, 1 - self.busy / self.mean)


class StepWatch:
    """Looks on while an ultralytics trainer trains."""

    def __init__(self, trainer: Any, window: Window) -> None:
        self._trainer, self._window = trainer, window
        self._device: torch.device = trainer.device
        self._profiler = profiler(self._device)
        self._begins: list[float] = []
        self._ends: list[float] = []
        self._peak: int | None = None
        trainer.add_callback("on_train_batch_start", self._begin)
        trainer.add_callback("on_train_batch_end", self._end)

    def _begin(self, _trainer: object) -> None:
        self._begins.append(perf_counter())

    def _end(self, _trainer: object) -> None:
        wait(self._device)  # costs nothing: ultralytics waited already, to show the loss
        self._ends.append(perf_counter())
        if len(self._ends) == self._window.warm_up + self._window.timed:
            self._profiler.start()
        if len(self._ends) == self._window.steps:
            self._profiler.stop()
            self._peak = peak_bytes(self._device)  # before the validation

    def result(self, trace: Path) -> TrainingRun:
        """The measurement of a finished training; `trace` is a file to write the profiler's notes to.

        Raises:
            RuntimeError: the training had more steps, or fewer.
        """
        if len(self._ends) != self._window.steps:
            raise RuntimeError(
                f"{self._window.steps} steps were to be trained, and {len(self._ends)} were: where a batch does not "
                "fit into the device's memory, ultralytics begins again with half of it; choose a smaller --batch"
            )
        self._profiler.export_chrome_trace(str(trace))
        busy = busy_seconds(trace)
        timed = range(self._window.warm_up, self._window.warm_up + self._window.timed)
        return TrainingRun(
            step_seconds=[self._ends[step] - self._ends[step - 1] for step in timed],
            waiting_seconds=sum(self._begins[step] - self._ends[step - 1] for step in timed),
            busy=None if busy is None else busy / self._window.profiled,
            peak_bytes=self._peak,
            mixed=bool(self._trainer.amp),
        )
