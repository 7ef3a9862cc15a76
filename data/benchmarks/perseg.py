"""PerSeg (Zhang et al. 2023, arXiv 2305.03048) as published with boxes: 39 objects, a few photographs of each."""

from dataclasses import replace
from pathlib import Path

from mocha_pipe.data.benchmarks.episode_files import read_episode_file
from mocha_pipe.data.benchmarks.published import PublishedFolder
from mocha_pipe.data.types import PersonalBenchmark

OBJECTS = {
    "backpack": "backpack",
    "backpack_dog": "backpack",
    "barn": "house",
    "bear_plushie": "toy",
    "berry_bowl": "fruit",
    "can": "can",
    "candle": "decoration",
    "cat2": "cat",
    "cat": "cat",
    "cat_statue": "decoration",
    "chair": "chair",
    "clock": "clock",
    "colorful_sneaker": "shoe",
    "colorful_teapot": "teapot",
    "dog2": "dog",
    "dog3": "dog",
    "dog4": "dog",
    "dog5": "dog",
    "dog6": "dog",
    "dog7": "dog",
    "dog8": "dog",
    "dog": "dog",
    "duck_toy": "toy",
    "elephant": "decoration",
    "fancy_boot": "shoe",
    "grey_sloth_plushie": "toy",
    "monster_toy": "toy",
    "poop_emoji": "toy",
    "rc_car": "toy",
    "robot_toy": "toy",
    "round_bird": "decoration",
    "shiny_sneaker": "shoe",
    "table": "table",
    "teapot": "teapot",
    "teddybear": "toy",
    "thin_bird": "decoration",
    "tortoise_plushie": "toy",
    "wolf_plushie": "toy",
    "wooden_pot": "decoration",
}
"""Personal object -> coarse class, in the order of the label ids."""


def read_perseg(root: Path, *, progress: bool = False) -> PersonalBenchmark:
    """Read the folder of PerSeg.

    Layout: `images/` and `labels/`, or images with their label files beside them; `episodes.json` with image names per
    episode. Without that file episodes are drawn.

    Raises:
        DatasetError: An image or label file breaks a rule, or there is no image.
        EpisodeError: The episode file does.
    """
    folder = PublishedFolder(name="perseg", root=root, objects=OBJECTS)
    images = folder.find("images" if (root / "images").is_dir() else ".")
    source = folder.read(images, progress=progress)
    path = root / "episodes.json"
    published = dict([read_episode_file(path, images).placed(source)]) if path.is_file() else {}
    return replace(folder.benchmark(source), published=published)
