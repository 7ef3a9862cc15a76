"""The validation world: a second personal benchmark, which shares nothing with the first but the way it is made."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.miniature.objects import SHAPES
from mocha_pipe.data.miniature.world import (
    WorldSize,
    _detection_scenes,
    _personal_scenes,
    make_miniature,
    make_validation,
    personal_cast,
    scene_seed,
)

SMALL = WorldSize(train_scenes=6, val_scenes=3, objects_per_shape=2, scenes_per_object=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("validation") / "world"
    make_validation(root, SMALL, seed=4, progress=False)
    return root


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_is_laid_out_like_the_benchmark(world: Path, tmp_path: Path) -> None:
    make_miniature(tmp_path / "miniature", SMALL, seed=4, progress=False)
    assert content(world).keys() == content(tmp_path / "miniature" / "benchmark").keys()
    benchmark = open_benchmark(world)
    assert benchmark.coarse_names == SHAPES
    assert list(benchmark.coarse_of) == [index for index in range(len(SHAPES)) for _ in range(2)]
    assert len(benchmark.source.records) == 2 * len(SHAPES) * 2


def test_its_labels_name_its_objects(world: Path) -> None:
    benchmark = open_benchmark(world)
    cast = personal_cast("validation", SMALL, 4)
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


def test_the_same_seed_writes_the_same_bytes_over_an_earlier_world(world: Path, tmp_path: Path) -> None:
    make_validation(tmp_path / "again", SMALL, seed=5, progress=False)
    other = content(tmp_path / "again")
    make_validation(tmp_path / "again", SMALL, seed=4, progress=False)
    assert content(tmp_path / "again") == content(world) != other
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_the_miniature_itself_is_the_one_that_it_was(tmp_path: Path) -> None:
    """Digest of all labels; figures in the documentation were measured on this very world."""
    make_miniature(tmp_path / "world", SMALL, seed=4, progress=False)
    digest = hashlib.blake2b(digest_size=16)
    for name, text in sorted(content(tmp_path / "world").items(), key=lambda item: Path(item[0])):
        if not name.endswith(".jpg"):  # which another version of the codec may write in other bytes
            digest.update(name.encode() + b"\0" + text + b"\0")
    assert digest.hexdigest() == "c4493538d3636935ce1bafb38e72e425"
