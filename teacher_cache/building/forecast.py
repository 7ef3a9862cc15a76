"""What a build counts while it works, and how long the rest will take. Needs no torch: tables of reports use it too."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

MIN_WINDOWS, SAMPLE_WINDOWS = 4, 8
"""Windows of crops that a forecast takes at least, and at most."""
_DRAWS = 1000
_LEAST_SPREAD = 0.05  # a short sample does not see how a machine slows down when it gets warm


def duration(seconds: float) -> str:
    """A time in words: `4.2 s`, `3 min 20 s`, `14 h 05 min`."""
    if seconds < 59.95:  # what rounds to 60.0 is a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Seconds for a number of regions: best guess, and the 95 % range that the sample's own scatter gives."""

    regions: int
    seconds: float
    low: float
    high: float

    @classmethod
    def of(cls, regions: int, sample: Sequence[tuple[int, float]]) -> "Forecast":
        """Forecast from timed windows; the range is a bootstrap over them, the same whenever it is drawn.

        Args:
            regions: how many are to be embedded.
            sample: regions and seconds of at least one window.
        """
        counts, seconds = np.array(sample, float).T
        picks = np.random.default_rng(0).integers(0, len(counts), (_DRAWS, len(counts)))
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


@dataclass(slots=True)
class Tally:
    """What a build, or one worker of it, has done so far."""

    shards: int = 0
    """Shards written for the first time."""
    embedded: int = 0
    """Regions that went through the teacher."""
    reused: int = 0
    """Regions copied from other caches."""
    duplicates: int = 0
    """Regions copied from an equal region of this cache."""
    windows: list[tuple[int, float]] = field(default_factory=list)
    """Regions and seconds of each call of the teacher, crops and writing included."""

    def add(self, other: "Tally") -> None:
        """Take in what another worker did."""
        for count in fields(self):
            setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))

    def forecast(self, regions: int) -> Forecast | None:
        """For a number of regions, from the windows after the first, which warms up; None while these are too few."""
        sample = self.windows[1 : 1 + SAMPLE_WINDOWS]
        return Forecast.of(regions, sample) if len(sample) >= MIN_WINDOWS else None
