"""iCubWorld (Pasquale et al. 2019) as published with boxes: 32 objects of 6 kinds, seen by a humanoid robot."""

from pathlib import Path

from data.benchmarks.handheld import read_handheld
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
    """Read the folder of iCubWorld; layout and errors as `read_handheld`."""
    return read_handheld(PublishedFolder(name="icubworld", root=root, objects=OBJECTS), progress=progress)
