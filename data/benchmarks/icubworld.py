"""iCubWorld (Pasquale et al. 2019) as published with boxes: 32 objects of 6 kinds, seen by a humanoid robot."""

from pathlib import Path

from data.benchmarks.handheld import read_handheld, read_handheld_training
from data.benchmarks.published import PublishedFolder
from data.types import PersonalBenchmark

_KINDS = (
    ("bottle", "bottle", 8),
    ("book", "book", 8),
    ("mug", "mug", 4),
    ("case", "case", 4),
    ("sprayer", "spray", 4),
    ("bags", "bags", 4),
)
OBJECTS = {f"{kind}{number}": coarse for kind, coarse, count in _KINDS for number in range(count)}
"""Personal object -> coarse class, in the order of the label ids."""


def read_icubworld(root: Path, *, progress: bool = False) -> PersonalBenchmark:
    """Read the episodes' images of iCubWorld; layout and errors as `read_handheld`."""
    return read_handheld(_folder(root), progress=progress)


def read_icubworld_training(root: Path, *, progress: bool = False) -> PersonalBenchmark:
    """Read the images of iCubWorld that no episode is about; layout and errors as `read_handheld_training`."""
    return read_handheld_training(_folder(root), progress=progress)


def _folder(root: Path) -> PublishedFolder:
    return PublishedFolder(name="icubworld", root=root, objects=OBJECTS)
