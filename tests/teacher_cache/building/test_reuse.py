from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.teacher_cache.building.build import BuildReport, build_cache
from mocha_pipe.teacher_cache.building.reuse import NOT_THERE, Donor
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheMismatchError, CacheNotFoundError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import shard_path
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings


def relabelled(source: DetectionSource, chosen: Sequence[int]) -> DetectionSource:
    """The same boxes, the chosen ones of the next class."""
    wanted, first, records = set(chosen), 0, []
    for record in source.records:
        ids = np.array(record.class_ids)
        for box in range(len(ids)):
            if first + box in wanted:
                ids[box] = (ids[box] + 1) % len(source.class_names)
        records.append(replace(record, class_ids=ids))
        first += len(ids)
    return replace(source, records=tuple(records))


class CountingTeacher:
    """Quick, and every crop of every class has its own embedding."""

    def __init__(self, spec: TeacherSpec) -> None:
        self.spec = replace(spec, crop_size=8, hidden_dim=8, visual_dim=4)
        self.passes = 0

    def tokens(self, class_name: str) -> int:
        return 0

    def embed(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> RegionEmbeddings:
        self.passes += len(crops)
        pixels = np.stack(crops).reshape(len(crops), 12, 16).mean(axis=2, dtype=np.float32) / 255
        values = pixels + np.array([[len(name)] for name in class_names], np.float32) * np.linspace(-1, 1, 12)
        return RegionEmbeddings(hidden=values[:, :8].astype(np.float32), visual=values[:, 8:].astype(np.float32))


def thousand_boxes(root: Path) -> DetectionSource:
    generator, records = np.random.default_rng(5), []
    root.mkdir()
    for index in range(50):
        path = root / f"{index:03d}.png"
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
        corners = generator.uniform(0, 12, (20, 2))
        xyxy = np.concatenate([corners, corners + generator.uniform(4, 12, (20, 2))], axis=1)
        ids = generator.integers(0, 3, 20)
        records.append(ImageRecord(path=path, name=path.name, width=24, height=24, xyxy=xyxy, class_ids=ids))
    return DetectionSource(root=root, split="train", class_names=("cup", "glove", "lighter"), records=tuple(records))


def test_relabelling_12_of_1_000_boxes_costs_12_forward_passes(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = thousand_boxes(tmp_path / "images")
    chosen = np.random.default_rng(1).choice(1_000, 12, replace=False).tolist()
    changed = relabelled(source, chosen)

    def build(data: DetectionSource, name: str, **options: Any) -> tuple[CountingTeacher, BuildReport]:
        teacher = CountingTeacher(helpers.spec)
        table = RegionTable.build(data)
        return teacher, build_cache(
            data, table, tmp_path / name, spec=teacher.spec, load_teacher=lambda: teacher, batch=64, **options
        )

    assert build(source, "old")[0].passes == 1_000
    teacher, report = build(changed, "new", reuse=[tmp_path / "old"])
    assert teacher.passes == 12
    assert (report.embedded, report.reused, report.duplicates, report.shards) == (12, 988, 0, 4)
    assert build(changed, "whole")[0].passes == 1_000
    assert helpers.file_tree(tmp_path / "new") == helpers.file_tree(tmp_path / "whole")


@pytest.fixture
def changed(source: DetectionSource) -> DetectionSource:
    return relabelled(source, [3, 40, 41])


@pytest.fixture
def direct(changed: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> Path:
    """A cache of the changed boxes made without reuse."""
    helpers.build(changed, tmp_path / "direct", helpers.Teacher())
    return tmp_path / "direct"


def test_a_cache_of_the_same_regions_needs_no_teacher(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    report = helpers.build(source, tmp_path / "cache", None, reuse=[finished])
    assert (report.embedded, report.reused) == (0, 85)
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(finished)


def test_an_incomplete_cache_gives_what_it_has(
    source: DetectionSource, changed: DetectionSource, direct: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    helpers.build(source, tmp_path / "donor", helpers.Teacher(), part=(0, 2))  # shards 0 and 2
    teacher = helpers.Teacher()
    report = helpers.build(changed, tmp_path / "cache", teacher, reuse=[tmp_path / "donor"])
    assert (sum(teacher.calls), report.embedded, report.reused) == (33, 33, 52)
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(direct)


def test_what_another_cache_set_aside_is_embedded(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    def damage(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
        if first == 0:
            embeddings.hidden[[5, 9]] = np.nan
        return embeddings

    donated = helpers.build(source, tmp_path / "donor", helpers.Teacher(damage=damage))
    assert [region.row for region in donated.set_aside] == [5, 9]
    teacher = helpers.Teacher()
    report = helpers.build(source, tmp_path / "cache", teacher, reuse=[tmp_path / "donor"])
    assert (teacher.calls, report.reused, report.set_aside) == ([2], 83, ())
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(finished)


def test_several_caches_complete_each_other(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    for index in range(2):
        helpers.build(source, tmp_path / f"{index}", helpers.Teacher(), part=(index, 2))
    report = helpers.build(source, tmp_path / "cache", None, reuse=[tmp_path / "0", tmp_path / "1"])
    assert (report.embedded, report.reused) == (0, 85)
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(finished)


def test_equal_regions_are_copied_from_another_cache_once(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    twice = helpers.repeated(source)
    helpers.build(twice, tmp_path / "direct", helpers.Teacher())
    report = helpers.build(twice, tmp_path / "cache", None, reuse=[finished])
    assert (report.embedded, report.reused, report.duplicates) == (0, 85, 107)
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(tmp_path / "direct")


def test_a_cache_of_another_teacher_is_refused(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    spec = replace(helpers.spec, prompt="What is the {label} made of?")
    with pytest.raises(CacheMismatchError) as caught:
        helpers.build(source, tmp_path / "cache", None, spec=spec, reuse=[finished])
    assert str(caught.value).startswith(
        f"cache {finished} was made from something else: prompt differs: cache has 'Describe the {{label}}.', "
        "expected 'What is the {label} made of?'; name another"
    )
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_is_not_there_is_named(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    with pytest.raises(CacheNotFoundError, match=f"there is no teacher cache at {tmp_path / 'nowhere'};"):
        helpers.build(source, tmp_path / "cache", None, reuse=[tmp_path / "nowhere"])


def test_a_damaged_shard_is_not_copied(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    helpers.build(source, tmp_path / "donor", helpers.Teacher())
    path = shard_path(tmp_path / "donor" / "visual", 1)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheCorruptError, match=r"donor/visual/c\.1\.0 is damaged: chunk 0 fails its checksum"):
        helpers.build(source, tmp_path / "cache", None, reuse=[tmp_path / "donor"])
    assert not shard_path(tmp_path / "cache" / "hidden", 1).exists()


def test_a_key_is_found_where_it_stands(finished: Path, helpers: SimpleNamespace) -> None:
    table, donor = RegionCache.open(finished).table, Donor(finished, helpers.spec)
    places = {key: row for row, key in enumerate(table.keys.tolist())}
    strangers = [b"0" * 32, b"f" * 32, b"8" * 32]

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.sampled_from([*places, *strangers])))
    def check(keys: list[bytes]) -> None:
        found = donor.find(np.array(keys, "S32"))
        assert found.tolist() == [places.get(key, NOT_THERE) for key in keys]

    check()


def test_an_empty_cache_has_no_key(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    table = RegionTable.build(source)
    helpers.build(source, tmp_path / "donor", helpers.Teacher(), rows_per_shard=128, part=(1, 2))
    assert (Donor(tmp_path / "donor", helpers.spec).find(table.keys) == NOT_THERE).all()


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, 84)))
def test_verified_rows_come_in_the_order_asked_for(finished: Path, rows: list[int]) -> None:
    reader = RegionCache.open(finished).rows("visual")
    expected = reader.lookup(np.arange(85))[rows]
    np.testing.assert_array_equal(reader.verified(np.array(rows, np.int64)), expected)
