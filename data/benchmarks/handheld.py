"""CORe50 and iCubWorld as published with boxes: one layout, objects held by a hand, one to an image.

CORe50: Lomonaco and Maltoni 2017, arXiv 1705.03550; 10 kinds of things, 5 of each. iCubWorld: Pasquale et al. 2019;
32 objects of 6 kinds, seen by a humanoid robot.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mocha_pipe.data.benchmarks.episode_files import read_episode_file
from mocha_pipe.data.benchmarks.published import PublishedFolder
from mocha_pipe.data.types import PersonalBenchmark

_CORE50_KINDS = ("plug", "phone", "scissors", "light", "can", "glasses", "ball", "pen", "mug", "remote")
CORE50 = {f"{kind}{number}": kind for kind in _CORE50_KINDS for number in range(1, 6)}
"""Personal object -> coarse class, in the order of the label ids."""

_ICUBWORLD_KINDS = (
    ("bottle", "bottle", 8),
    ("book", "book", 8),
    ("mug", "mug", 4),
    ("case", "case", 4),
    ("sprayer", "spray", 4),
    ("bags", "bags", 4),
)
ICUBWORLD = {f"{kind}{number}": coarse for kind, coarse, count in _ICUBWORLD_KINDS for number in range(count)}
"""Personal object -> coarse class, in the order of the label ids."""


def read_handheld(root: Path, *, name: str, objects: Mapping[str, str], progress: bool = False) -> PersonalBenchmark:
    """Read what lies under `train/`: support and query of all episodes.

    Layout: `train/images/` and `train/labels/` (or `images/train/` and `labels/train/`, or label files beside the
    images); `episodes_1shot.json`, `episodes_5shot.json` and so on, whose names point into `train`. Images that no
    episode names are not read. Without episode files all images are, and episodes are drawn.

    Raises:
        DatasetNotFoundError: There is no `train`.
        DatasetError: An image or label file breaks a rule, or there is no image.
        EpisodeError: An episode file does.
    """
    folder = PublishedFolder(name=name, root=root, objects=objects)
    images = folder.find("train")
    files = {
        int(match[1]): read_episode_file(path, images)
        for path in sorted(folder.root.glob("episodes_*shot.json"))
        if (match := re.fullmatch(r"episodes_([1-9]\d*)shot\.json", path.name))
    }
    used = frozenset().union(*(file.images for file in files.values()))
    if used:
        images = {name: path for name, path in images.items() if name in used}
    source = folder.read(images, progress=progress)
    published = dict(file.placed(source, shots) for shots, file in files.items())
    return replace(folder.benchmark(source), published=published)


def read_handheld_training(
    root: Path, *, name: str, objects: Mapping[str, str], progress: bool = False
) -> PersonalBenchmark:
    """Read what lies under `val/`: images of no episode, so that a detector may learn the coarse classes from them.

    Raises:
        DatasetNotFoundError: There is no `val`.
        DatasetError: An image or label file breaks a rule, or there is no image.
    """
    folder = PublishedFolder(name=name, root=root, objects=objects)
    return folder.benchmark(folder.read(folder.find("val"), progress=progress))
