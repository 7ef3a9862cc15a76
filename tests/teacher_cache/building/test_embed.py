import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.build import build_cache
from mocha_pipe.teacher_cache.building.reuse import NOT_THERE
from mocha_pipe.teacher_cache.building.rowplan import owners_before, plan_rows
from mocha_pipe.teacher_cache.errors import CacheWriteError, EmbeddingError
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import ShardPlan, done_shards
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings

ARRAYS = ("hidden", "visual")


class FakeDonor:
    """Has some keys, at rows of its own."""

    def __init__(self, keys: set[bytes]) -> None:
        self.keys = sorted(keys)

    def find(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        return np.array([self.keys.index(key) if key in self.keys else NOT_THERE for key in keys], np.int64)


def table_of(keys: list[int]) -> SimpleNamespace:
    names = np.array([b"%032d" % key for key in keys])
    first = np.array([keys.index(key) for key in keys], np.int64)
    return SimpleNamespace(keys=names, first_of_key=first)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), keys=st.lists(st.integers(0, 12), min_size=1, max_size=40), size=st.integers(1, 9))
def test_every_row_has_one_source_of_its_own_key(data: st.DataObject, keys: list[int], size: int) -> None:
    table, plan = table_of(keys), ShardPlan(len(keys), size)
    shard = data.draw(st.integers(0, len(plan) - 1))
    kept = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    rows = np.array([row for row, keep in zip(range(*plan.span(shard)), kept, strict=False) if keep], np.int64)
    filled = set(data.draw(st.lists(st.sampled_from(owners_before(table, plan, rows, shard) or [shard + 1]))))
    donors = [FakeDonor({b"%032d" % key for key in data.draw(st.sets(st.integers(0, 12)))}) for _ in range(2)]
    found = plan_rows(table, plan, rows, filled, donors)  # type: ignore[arg-type]

    copied = [positions for _, positions, _ in found.copies]
    sources = np.concatenate([found.earlier, found.todo, found.repeats, *copied])
    assert sorted(sources.tolist()) == list(range(len(rows)))
    key = table.keys[rows]
    assert (table.keys[found.originals] == key[found.earlier]).all()
    assert set((found.originals // size).tolist()) == {f for f in filled if f < shard}
    assert (key[found.leaders] == key[found.repeats]).all()
    assert (found.leaders < found.repeats).all()
    assert not set(found.leaders.tolist()) & set(found.repeats.tolist()), "a row is copied from one that is filled"
    assert (np.diff(found.todo) > 0).all()
    assert len(set(key[found.todo].tolist())) == len(found.todo), "the teacher sees no key twice"
    assert not {k for donor in donors for k in donor.keys} & set(key[found.todo].tolist())
    for donor, positions, places in found.copies:
        assert [donor.keys[place] for place in places] == key[positions].tolist()  # type: ignore[attr-defined]
    assert not set(donors[0].keys) & set(key[copied[1]].tolist()), "the first cache is preferred"


def embedding_of(cache: RegionCache, row: int) -> bytes:
    return b"".join(cache.rows(name).lookup(np.array([row])).tobytes() for name in ARRAYS)


@pytest.mark.parametrize("rows_per_shard", [32, 256])
def test_equal_regions_are_embedded_once_and_have_equal_bits(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace, rows_per_shard: int
) -> None:
    """Whether they lie in one shard or in several."""
    twice, teacher = helpers.repeated(source), helpers.Teacher()
    table = RegionTable.build(twice)
    assert (len(table), table.num_distinct) == (85 + 85 + 22, 85)
    report = helpers.build(twice, tmp_path / "cache", teacher, rows_per_shard=rows_per_shard)
    assert sum(teacher.calls) == report.embedded == 85
    assert (report.duplicates, report.reused, report.rows) == (107, 0, 192)
    cache, single = RegionCache.open(tmp_path / "cache"), RegionCache.open(finished)
    place = {key: row for row, key in enumerate(single.table.keys.tolist())}
    for row, key in enumerate(table.keys.tolist()):
        assert embedding_of(cache, row) == embedding_of(single, place[key])


def test_equal_regions_of_an_earlier_build_are_copied(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    twice = helpers.repeated(source)
    helpers.build(twice, tmp_path / "whole", helpers.Teacher())
    helpers.build(twice, tmp_path / "cache", helpers.Teacher())
    (tmp_path / "cache/hidden/c.5.0").unlink()  # its keys all stand in earlier shards
    teacher = helpers.Teacher()
    report = helpers.build(twice, tmp_path / "cache", teacher)
    assert (teacher.calls, report.embedded, report.duplicates) == ([], 0, 32)
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(tmp_path / "whole")


Damage = Callable[[RegionEmbeddings, int], RegionEmbeddings]


def spoil(array: str, rows: dict[int, float], feature: int = 3) -> Damage:
    """Put values into some rows of what the teacher returns, counted over all its calls."""

    def damage(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
        block = getattr(embeddings, array)
        for row, value in rows.items():
            if first <= row < first + len(block):
                block[row - first, feature] = value
        return embeddings

    return damage


def test_what_float16_cannot_hold_is_set_aside_with_the_reason(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    hidden, visual = spoil("hidden", {40: np.nan, 41: 65505.0}), spoil("visual", {42: np.inf, 70: -np.inf})
    teacher = helpers.Teacher(damage=lambda embeddings, first: visual(hidden(embeddings, first), first))
    report = helpers.build(source, tmp_path / "cache", teacher)
    assert [(region.row, region.reason) for region in report.set_aside] == [
        (40, "an embedding must fit float16; 'hidden' is nan at feature 3"),
        (41, "an embedding must fit float16; 'hidden' is 65505.0 at feature 3"),
        (42, "an embedding must fit float16; 'visual' is inf at feature 3"),
        (70, "an embedding must fit float16; 'visual' is -inf at feature 3"),
    ]
    cache, whole = RegionCache.open(tmp_path / "cache"), RegionCache.open(finished)
    assert cache.is_complete
    assert cache.quarantine() == report.set_aside
    region, table = report.set_aside[0], cache.table
    assert (region.key, region.class_name) == (table.keys[40].decode(), table.class_names[table.class_ids[40]])
    assert region.image == table.image_names[table.image_of_rows(np.array([40]))[0]]
    aside = [region.row for region in report.set_aside]
    others = np.delete(np.arange(85), aside)
    for name in ARRAYS:
        assert np.isnan(cache.rows(name).lookup(np.array(aside))).all()
        np.testing.assert_array_equal(cache.rows(name).lookup(others), whole.rows(name).lookup(others))


def test_a_teacher_that_returns_nothing_finite_is_stopped(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    teacher = helpers.Teacher(damage=spoil("visual", dict.fromkeys(range(85), np.nan), feature=1))
    with pytest.raises(EmbeddingError) as caught:
        helpers.build(source, tmp_path / "cache", teacher)
    assert str(caught.value) == (
        "embeddings must be finite and at most 65504 in size; none of the first 32 regions has one (row 0: an "
        "embedding must fit float16; 'visual' is nan at feature 1); try --dtype float32"
    )
    assert not done_shards(tmp_path / "cache" / "hidden")
    assert not RegionCache.open(tmp_path / "cache").quarantine()


def test_a_teacher_that_returns_nothing_finite_is_stopped_early_whatever_the_batch(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    teacher = helpers.Teacher(damage=spoil("visual", dict.fromkeys(range(85), np.nan)))
    with pytest.raises(EmbeddingError, match=r"none of the first 16 regions has one \(row 8: "):
        helpers.build(source, tmp_path / "cache", teacher, batch=1)
    assert teacher.calls == [8, 8]


def test_a_teacher_that_returned_something_finite_is_not_stopped(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    teacher = helpers.Teacher(damage=spoil("hidden", dict.fromkeys(range(32, 64), np.nan)))
    report = helpers.build(source, tmp_path / "cache", teacher)
    assert [region.row for region in report.set_aside] == list(range(32, 64))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the disk be full once so many shard files are written: half of the next one, then what a full device says."""
    write_bytes, room = Path.write_bytes, [0]

    def write(path: Path, content: bytes) -> int:
        if ".partial" in path.name and path.name.startswith(".c."):
            room[0] -= 1
            if room[0] < 0:
                write_bytes(path, content[: len(content) // 2])
                return write_bytes(Path("/dev/full"), content)
        return write_bytes(path, content)

    def arm(files: int) -> None:
        room[0] = files
        monkeypatch.setattr(Path, "write_bytes", write)

    return arm


@pytest.mark.parametrize("files", [1, 7])
def test_a_full_disk_keeps_what_is_committed_and_the_next_build_goes_on(
    source: DetectionSource,
    finished: Path,
    tmp_path: Path,
    helpers: SimpleNamespace,
    full_disk: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    files: int,
) -> None:
    folder = tmp_path / "cache"
    full_disk(files)
    expected = (
        f"the disk under {folder} must hold the cache; it does not (No space left on device); free space and run the "
        "same command again: it goes on after the last finished shard"
    )
    with pytest.raises(CacheWriteError, match=f"^{re.escape(expected)}$") as caught:
        helpers.build(source, folder, helpers.Teacher())
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    done = done_shards(folder / "hidden") & done_shards(folder / "visual")
    assert len(done) == min(files // 2, 3)
    assert not [path for path in folder.rglob("*") if ".partial" in path.name], "half a file is left"
    monkeypatch.undo()
    teacher = helpers.Teacher()
    report = helpers.build(source, folder, teacher)
    assert (report.skipped_shards, sum(teacher.calls)) == (
        len(done),
        85 - 32 * min(len(done), 2) - 21 * (len(done) > 2),
    )
    assert helpers.file_tree(folder) == helpers.file_tree(finished)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EDQUOT, "raise the quota or free space"), (errno.EROFS, "make it writable"), (errno.EIO, "bring it back")],
)
def test_other_failures_of_the_disk_have_their_remedy(
    source: DetectionSource,
    tmp_path: Path,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    remedy: str,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("mocha_pipe.teacher_cache.building.embed.write_shard", fail)
    with pytest.raises(CacheWriteError, match=re.escape(f"({os.strerror(number)}); {remedy} and run the same command")):
        helpers.build(source, tmp_path / "cache", helpers.Teacher())


def test_an_error_that_is_not_the_disks_passes(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("mocha_pipe.teacher_cache.building.embed.write_shard", fail)
    with pytest.raises(OSError, match="Too many open files") as caught:
        helpers.build(source, tmp_path / "cache", helpers.Teacher())
    assert not isinstance(caught.value, CacheWriteError)


def test_the_next_shard_is_cut_while_the_last_one_is_at_the_teacher(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images of the second shard are read before the first shard is written."""
    from mocha_pipe.teacher_cache.building import embed, feed

    events: list[str] = []
    read_picture, write_shard = feed.read_picture, embed.write_shard
    monkeypatch.setattr(feed, "read_picture", lambda path: events.append(path.name) or read_picture(path))
    monkeypatch.setattr(embed, "write_shard", lambda *args: events.append("write") or write_shard(*args))
    helpers.build(source, tmp_path / "cache", helpers.Teacher(delay=0.1))
    table = RegionTable.build(source)
    second = {table.image_names[image] for image in table.image_of_rows(np.arange(40, 50))}
    assert second & set(events[: events.index("write")])


def test_the_teacher_is_loaded_once_for_all_shards(
    source: DetectionSource, table: RegionTable, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    loads: list[int] = []

    def load_teacher() -> object:
        loads.append(1)
        return helpers.Teacher()

    options = {"spec": helpers.spec, "load_teacher": load_teacher, "rows_per_shard": 32}
    build_cache(source, table, tmp_path / "cache", **options)
    assert loads == [1]
