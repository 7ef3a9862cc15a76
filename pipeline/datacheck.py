"""`mocha-pipe data check`: every split of a data set, and everything that is wrong with it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from data.source import read_split, splits_of
from data.types import Problem


@dataclass(frozen=True, kw_only=True)
class SplitCheck:
    """One split as read."""

    split: str
    images: int
    """Images without an error."""
    regions: int
    """Boxes on them."""
    classes: int
    """Classes that the data set names."""
    errors: int
    warnings: int
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, object]:
        """Plain dict for --json."""
        return asdict(self)


def check_data(data: Path) -> list[SplitCheck]:
    """Read every split that the data set has.

    Raises:
        DatasetNotFoundError, DatasetError: there is nothing to read.
    """
    return [_check(data, split) for split in splits_of(data)]


def _check(data: Path, split: str) -> SplitCheck:
    reading = read_split(data, split, progress=True)
    errors = sum(problem.severity == "error" for problem in reading.problems)
    return SplitCheck(
        split=split,
        images=len(reading.records),
        regions=sum(len(record.class_ids) for record in reading.records),
        classes=len(reading.class_names),
        errors=errors,
        warnings=len(reading.problems) - errors,
        problems=reading.problems,
    )
