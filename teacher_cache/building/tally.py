"""What a build counts while it works: regions by where their embeddings came from, and how long the teacher took."""

from dataclasses import dataclass, field

from mocha_pipe.teacher_cache.building.forecast import MIN_WINDOWS, SAMPLE_WINDOWS, Forecast


@dataclass(slots=True)
class Tally:
    """What a build did, in regions, and how long each window of crops took."""

    embedded: int = 0
    """Regions that went through the teacher."""
    reused: int = 0
    """Regions copied from other caches."""
    duplicates: int = 0
    """Regions copied from an equal region of this cache."""
    set_aside: int = 0
    """Regions that got no embedding."""
    windows: list[tuple[int, float]] = field(default_factory=list)
    """Regions and seconds of each call of the teacher, crops and writing included."""

    def add(self, other: "Tally") -> None:
        """Take in what another worker did."""
        self.embedded += other.embedded
        self.reused += other.reused
        self.duplicates += other.duplicates
        self.set_aside += other.set_aside
        self.windows += other.windows

    def forecast(self, regions: int) -> Forecast | None:
        """For a number of regions, from the windows after the first, which warms up; None while these are too few."""
        sample = self.windows[1 : 1 + SAMPLE_WINDOWS]
        return Forecast.of(regions, sample) if len(sample) >= MIN_WINDOWS else None
