"""CORe50 (Lomonaco and Maltoni 2017, arXiv 1705.03550) as published with boxes: 10 kinds of things, 5 of each."""

from pathlib import Path

from data.benchmarks.handheld import read_handheld, read_handheld_training
from data.benchmarks.published import PublishedFolder
from data.types import PersonalBenchmark

_KINDS = ("plug", "phone", "scissors", "light", "can", "glasses", "ball", "pen", "mug", "remote")
OBJECTS = {f"{kind}{number}": kind for kind in _KINDS for number in range(1, 6)}
"""Personal object -> coarse class, in the order of the label ids."""


def read_core50(root: Path, *, progress: bool = False) -> PersonalBenchmark:
    """Read the episodes' images of CORe50; layout and errors as `read_handheld`."""
    return read_handheld(_folder(root), progress=progress)


def read_core50_training(root: Path, *, progress: bool = False) -> PersonalBenchmark:
    """Read the images of CORe50 that no episode is about; layout and errors as `read_handheld_training`."""
    return read_handheld_training(_folder(root), progress=progress)


def _folder(root: Path) -> PublishedFolder:
    return PublishedFolder(name="core50", root=root, objects=OBJECTS)
