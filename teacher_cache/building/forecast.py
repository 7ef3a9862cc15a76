"""How long the teacher will take, from the time that a sample of regions took on this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.duration import duration
from mocha_pipe.teacher_cache.building.feed import BATCHES_AHEAD, CropFeed, RegionCrop
from mocha_pipe.teacher_cache.store.whitening import Moments
from mocha_pipe.teacher_cache.teachers.base import Teacher

MIN_WINDOWS, SAMPLE_WINDOWS = 4, 8
"""Windows of crops that a forecast takes at least, and at most."""
_DRAWS = 1000
_PROJECTION_ROWS, _EIGEN_SIDE = 1024, 512
_LEAST_SPREAD = 0.05  # a short sample does not see how a machine slows down when it gets warm


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Seconds for a number of regions: best guess, and the 95 % range that the sample's own scatter gives."""

    regions: int
    seconds: float
    low: float
    high: float

    @classmethod
    def of(cls, regions: int, sample: Sequence[tuple[int, float]], *, seed: int = 0) -> "Forecast":
        """Forecast from timed windows.

        Args:
            regions: how many are to be embedded.
            sample: regions and seconds of at least one window.
            seed: of the bootstrap over the windows.
        """
        counts, seconds = np.array(sample, float).T
        picks = np.random.default_rng(seed).integers(0, len(counts), (_DRAWS, len(counts)))
        rates = seconds[picks].sum(axis=1) / counts[picks].sum(axis=1)
        rate = float(seconds.sum() / counts.sum())
        low, high = np.quantile(rates, (0.025, 0.975)).tolist()
        return cls(
            regions=regions,
            seconds=regions * rate,
            low=regions * min(low, rate * (1 - _LEAST_SPREAD)),
            high=regions * max(high, rate * (1 + _LEAST_SPREAD)),
        )

    def __str__(self) -> str:
        return f"{duration(self.seconds)} ({duration(self.low)} to {duration(self.high)})"


def time_teacher(
    source: DetectionSource, table: RegionTable, teacher: Teacher, *, sample: int, batch: int, seed: int = 0
) -> list[tuple[int, float]]:
    """Embed the regions of random images, as a build would, and time window after window.

    Args:
        source: the images that the table was built from.
        table: the regions.
        teacher: loaded; one more window goes before the timed ones, to warm it up.
        sample: regions to time at least, where there are so many.
        batch: crops per forward pass.
        seed: of the choice of images.

    Returns:
        Regions and seconds of each window.
    """
    images = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(table.first_row)))
    counts = np.diff(table.first_row)[images]
    images = np.sort(images[: int(np.searchsorted(np.cumsum(counts), sample)) + 1])
    rows = np.concatenate([np.arange(table.first_row[image], table.first_row[image + 1]) for image in images])
    # Small samples are cut finer than a build's windows, so that their scatter shows.
    size = max(1, min(batch * BATCHES_AHEAD, -(-len(rows) // SAMPLE_WINDOWS)))
    timed: list[tuple[int, float]] = []
    with CropFeed(source, table, teacher.spec) as feed:
        _embed(teacher, table, next(feed.windows(rows[:size], size)))
        last = time.perf_counter()
        for window in feed.windows(rows, size):
            _embed(teacher, table, window)
            now = time.perf_counter()
            timed.append((len(window), now - last))
            last = now
    return timed


def _embed(teacher: Teacher, table: RegionTable, window: Sequence[RegionCrop]) -> None:
    seen = [(crop.pixels, crop.row) for crop in window if crop.pixels is not None]
    if seen:
        names = [table.class_name(row) for _, row in seen]
        teacher.embed([pixels for pixels, _ in seen], names)


def time_projection(rows: int, joint_dim: int, device: str) -> float:
    """Seconds that covariance, eigenvectors and targets of N rows will take, from a small piece of each."""
    block = torch.randn(_PROJECTION_ROWS, joint_dim, dtype=torch.float64, device=device)
    started = time.perf_counter()
    Moments(joint_dim, device).add(block)
    covariance_seconds = time.perf_counter() - started
    side = min(joint_dim, _EIGEN_SIDE)
    started = time.perf_counter()
    torch.linalg.eigh(block[:, :side].T @ block[:, :side])
    eigen_seconds = time.perf_counter() - started
    return covariance_seconds * rows / _PROJECTION_ROWS + eigen_seconds * (joint_dim / side) ** 3
