"""The world on disk: layout, repeatability, and the walls between its splits."""

import hashlib
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.miniature.objects import SHAPES, Split
from mocha_pipe.data.miniature.world import (
    _detection_scenes,
    _personal_scenes,
    make_miniature,
    personal_cast,
    scene_seed,
)
from mocha_pipe.data.source import open_source

Content = Callable[[Path], dict[str, bytes]]


def test_the_readers_accept_it(world: Path) -> None:
    train, val = (open_source(world / "data.yaml", split) for split in ("train", "val"))
    assert (len(train.records), len(val.records)) == (6, 3)
    assert train.class_names == SHAPES
    assert train.num_regions >= 6
    assert not train.problems
    benchmark = open_benchmark(world / "benchmark")
    assert len(benchmark.source.records) == 2 * len(SHAPES) * 2
    assert list(benchmark.coarse_of) == [index for index in range(len(SHAPES)) for _ in range(2)]


def test_the_same_seed_writes_the_same_bytes_and_another_one_others(
    world: Path, tmp_path: Path, small: WorldSize, tiny: WorldSize, content: Content
) -> None:
    make_miniature(tmp_path / "other", tiny, seed=5, progress=False)
    other = content(tmp_path / "other")
    make_miniature(tmp_path / "again", small, seed=4, progress=False)
    assert content(tmp_path / "again") == content(world)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"]
    same_names = other.keys() & content(world).keys()
    assert len(same_names) > 20
    assert all(other[name] != content(world)[name] for name in same_names if name.startswith("images"))


def test_nothing_is_written_where_something_is(tmp_path: Path, tiny: WorldSize) -> None:
    (tmp_path / "labels").mkdir()
    with pytest.raises(DatasetError) as refused:
        make_miniature(tmp_path, tiny, progress=False)
    assert str(refused.value) == (
        f"{tmp_path}: a world is written to a new or empty folder, found something there; name another"
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["labels"]


def test_it_is_the_one_that_it_was(world: Path, content: Content) -> None:
    """Digest of all labels; figures in the documentation were measured on this very world."""
    digest = hashlib.blake2b(digest_size=16)
    for name, text in sorted(content(world).items(), key=lambda item: Path(item[0])):
        if not name.endswith(".jpg"):  # which another version of the codec may write in other bytes
            digest.update(name.encode() + b"\0" + text + b"\0")
    assert digest.hexdigest() == "c4493538d3636935ce1bafb38e72e425"


def test_no_two_splits_share_a_scene_seed() -> None:
    splits: tuple[Split, ...] = ("train", "val", "benchmark")
    seeds = {split: {scene_seed(0, split, index) for index in range(2000)} for split in splits}
    assert all(len(drawn) == 2000 for drawn in seeds.values())
    assert all(not seeds[a] & seeds[b] for a, b in combinations(splits, 2))


def test_no_object_is_shown_in_two_splits() -> None:
    shown: dict[str, set[str]] = {"train": set(), "val": set(), "benchmark": set()}
    size = WorldSize(train_scenes=300, val_scenes=100, objects_per_shape=3, scenes_per_object=2)
    for planned in (*_detection_scenes(size, 0), *_personal_scenes("benchmark", size, 0)):
        shown[planned.part] |= {thing.name for thing in planned.objects}
    assert all(shown.values())
    assert all(not shown[a] & shown[b] for a, b in combinations(shown, 2))


def test_every_benchmark_scene_has_a_distractor_of_the_main_objects_shape(small: WorldSize) -> None:
    things = personal_cast("benchmark", small, 0)
    for index, planned in enumerate(_personal_scenes("benchmark", small, 0)):
        main, distractor = planned.objects[:2]
        assert main == things[index % len(things)]
        assert main.shape == distractor.shape
        assert main != distractor


def test_labels_name_the_objects_in_the_order_of_their_boxes(world: Path, small: WorldSize) -> None:
    benchmark = open_benchmark(world / "benchmark")
    names = [thing.name for thing in personal_cast("benchmark", small, 4)]
    assert list(benchmark.source.class_names) == names
    for record in benchmark.source.records:
        index = int(Path(record.name).stem)
        assert record.class_ids[0] == index % len(names)
        assert np.all(record.xyxy[:, 2:] > record.xyxy[:, :2])
