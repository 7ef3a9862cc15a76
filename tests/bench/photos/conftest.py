"""A benchmark of a few pictures of two objects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.photos.recipe import Study
from mocha_pipe.data.benchmarks.photos import read_photos
from mocha_pipe.data.types import PersonalBenchmark

PICTURES = 5


def draw_subjects(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("red dog", "blue cat"):
        (folder / name).mkdir(parents=True)
        for index in range(PICTURES):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def benchmark(tmp_path: Path) -> PersonalBenchmark:
    return read_photos(draw_subjects(tmp_path / "subjects"))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(
        root=tmp_path / "study", subjects=tmp_path / "subjects", objects=tmp_path / "objects",
        detector=tmp_path / "detector.pt", teacher="teacher", seeds=(0,),
    )  # fmt: skip
