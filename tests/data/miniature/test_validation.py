"""The validation world: a second personal benchmark, which shares nothing with the first but the way it is made."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.miniature.objects import SHAPES
from mocha_pipe.data.miniature.world import (
    _detection_scenes,
    _personal_scenes,
    make_validation,
    personal_cast,
    scene_seed,
)

Content = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory, small: WorldSize) -> Path:
    root = tmp_path_factory.mktemp("validation") / "world"
    make_validation(root, small, seed=4, progress=False)
    return root


def test_it_is_laid_out_like_the_benchmark(validation: Path, world: Path, content: Content) -> None:
    assert content(validation).keys() == content(world / "benchmark").keys()
    benchmark = open_benchmark(validation)
    assert benchmark.coarse_names == SHAPES
    assert list(benchmark.coarse_of) == [index for index in range(len(SHAPES)) for _ in range(2)]
    assert len(benchmark.source.records) == 2 * len(SHAPES) * 2


def test_its_labels_name_its_objects(validation: Path, small: WorldSize) -> None:
    benchmark = open_benchmark(validation)
    cast = personal_cast("validation", small, 4)
    assert list(benchmark.source.class_names) == [thing.name for thing in cast]
    assert {thing.split for thing in cast} == {"val"}
    for record in benchmark.source.records:
        assert record.class_ids[0] == int(Path(record.name).stem) % len(cast)
        assert np.all(record.xyxy[:, 2:] > record.xyxy[:, :2])


def test_neither_training_nor_the_benchmark_shows_one_of_its_objects() -> None:
    size = WorldSize(train_scenes=300, val_scenes=1, objects_per_shape=3, scenes_per_object=8)
    scenes = [*_detection_scenes(size, 0), *_personal_scenes("benchmark", size, 0)]
    elsewhere = {thing.name for scene in scenes if scene.part != "val" for thing in scene.objects}
    shown = {thing.name for scene in _personal_scenes("validation", size, 0) for thing in scene.objects}
    assert len(shown) == 3 * len(SHAPES)
    assert not shown & elsewhere


def test_its_scenes_have_seeds_of_their_own() -> None:
    own = {scene_seed(0, "validation", index) for index in range(2000)}
    assert len(own) == 2000
    assert not own & {scene_seed(0, part, index) for part in ("train", "val", "benchmark") for index in range(2000)}


def test_the_same_seed_writes_the_same_bytes_and_another_one_others(
    validation: Path, tmp_path: Path, small: WorldSize, tiny: WorldSize, content: Content
) -> None:
    make_validation(tmp_path / "other", tiny, seed=5, progress=False)
    make_validation(tmp_path / "again", small, seed=4, progress=False)
    assert content(tmp_path / "again") == content(validation)
    assert content(tmp_path / "other")["images/00000.jpg"] != content(validation)["images/00000.jpg"]
