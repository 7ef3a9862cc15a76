import multiprocessing
import pickle
import shutil
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mocha_pipe.data.types import RegionTargets
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError, CacheIncompleteError
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import ShardPlan, create_array_atomically, shard_path, write_shard
from mocha_pipe.teacher_cache.store.reader import ShardRows
from mocha_pipe.teacher_cache.store.targets import CachedTargets
from tests.teacher_cache.fakes import another_process

NOTHING = np.zeros(0, np.int64)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A complete cache to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "cache"))


def write_targets(folder: Path, plan: ShardPlan, values: NDArray[np.float16]) -> Path:
    create_array_atomically(folder, "targets", plan, values.shape[1], {})
    for shard in range(len(plan)):
        write_shard(folder / "targets", plan, shard, values[slice(*plan.span(shard))])
    return folder / "targets"


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_rows_equal_those_of_every_other_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 200), "rows")
    dim = data.draw(st.integers(1, 9), "dim")
    plan = ShardPlan(count, data.draw(st.sampled_from([32, 64, 96, 128, 256]), "rows per shard"))
    values = np.random.default_rng(count).normal(size=(count, dim)).astype(np.float16)
    folder = write_targets(tmp_path_factory.mktemp("cache"), plan, values)
    rows = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=60), "asked for"), np.int64)
    targets = CachedTargets(ShardRows(folder, plan), NOTHING)
    found = targets.lookup(rows)
    assert (found.dtype, found.shape, len(targets), targets.dim) == (np.float32, (len(rows), dim), count, dim)
    np.testing.assert_array_equal(found, values[rows])
    np.testing.assert_array_equal(found, ShardRows(folder, plan).lookup(rows))
    np.testing.assert_array_equal(found, np.asarray(zarr.open_array(folder, mode="r")[:])[rows])
    np.testing.assert_array_equal(targets.lookup(np.arange(count)), values)
    shutil.rmtree(folder.parent)


def test_a_cache_hands_out_its_targets(finished: Path) -> None:
    cache = RegionCache.open(finished)
    targets: RegionTargets = cache.targets()
    np.testing.assert_array_equal(targets.lookup(np.arange(85)), cache.rows("targets").block(0, 85).astype(np.float32))
    assert targets.set_aside.tolist() == []
    assert targets.set_aside.dtype == np.int64


@pytest.mark.parametrize("row", [-1, 85, 2**40])
def test_row_outside(finished: Path, row: int) -> None:
    targets = RegionCache.open(finished).targets()
    with pytest.raises(IndexError, match=f"^rows of 'targets' run from 0 to 84; asked for {row}$"):
        targets.lookup(np.array([3, row, 84]))


def test_rows_that_were_set_aside_are_nan(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images")
    source.records[20].path.write_bytes(b"no picture")
    helpers.build(source, tmp_path / "cache", helpers.Teacher())
    targets = RegionCache.open(tmp_path / "cache").targets()
    assert targets.set_aside.tolist() == [62, 63, 64, 65]
    found = targets.lookup(np.arange(85))
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == [62, 63, 64, 65]
    assert np.isfinite(np.delete(found, [62, 63, 64, 65], axis=0)).all()
    again = pickle.loads(pickle.dumps(targets))
    assert again.set_aside.tolist() == [62, 63, 64, 65]


def mapped_files(folder: Path) -> set[Path]:
    """Files below a folder that lie in this process's address space."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split(maxsplit=5)[5]) for line in lines if f"{folder}/" in line}


def test_files_are_mapped_and_not_copied(finished: Path) -> None:
    before = mapped_files(finished)
    targets = RegionCache.open(finished).targets()
    assert mapped_files(finished) == {shard_path(finished / "targets", shard) for shard in range(3)}
    assert before == set()
    del targets
    assert mapped_files(finished) == set()


def test_nothing_can_be_changed(finished: Path) -> None:
    for mapped in RegionCache.open(finished).targets()._reader._mapped.values():
        assert mapped is not None
        with pytest.raises(ValueError, match="read-only"):
            mapped[0, 0, 0] = 1


def test_what_a_caller_gets_is_its_own(finished: Path) -> None:
    targets = RegionCache.open(finished).targets()
    found = targets.lookup(np.arange(85))
    expected = found.copy()
    found[:] = 0
    np.testing.assert_array_equal(targets.lookup(np.arange(85)), expected)


def test_pickles_as_the_names_of_its_files(tmp_path: Path) -> None:
    """Whatever their size: 4 MB of targets travel in less than a kilobyte."""
    plan = ShardPlan(8192, 4096)
    values = np.random.default_rng(0).normal(size=(8192, 256)).astype(np.float16)
    targets = CachedTargets(ShardRows(write_targets(tmp_path, plan, values), plan), NOTHING)
    content = pickle.dumps(targets)
    assert len(content) < 1000
    rows = np.array([8191, 0, 4096, 17])
    np.testing.assert_array_equal(pickle.loads(content).lookup(rows), values[rows])


def map_in_another_process(connection: Connection, pickled: bytes) -> None:
    targets: CachedTargets = pickle.loads(pickled)
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = {line.split(maxsplit=5)[5] for line in lines if "/targets/c." in line}
    connection.send((targets.lookup(np.arange(85)), sorted(mapped)))


def test_another_process_maps_the_same_files(finished: Path) -> None:
    """What a spawned loader worker, or a process of a distributed run, does."""
    targets = RegionCache.open(finished).targets()
    with another_process(map_in_another_process, pickle.dumps(targets)) as (_, connection):
        values, mapped = connection.recv()
    np.testing.assert_array_equal(values, targets.lookup(np.arange(85)))
    assert mapped == [str(shard_path(finished / "targets", shard)) for shard in range(3)]


def _look_up(targets: CachedTargets, answers: "multiprocessing.Queue[bytes]") -> None:
    answers.put(targets.lookup(np.arange(85)).tobytes())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_reads_what_its_parent_mapped(finished: Path) -> None:
    targets = RegionCache.open(finished).targets()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_look_up, args=(targets, answers))
    child.start()
    assert answers.get(timeout=20) == targets.lookup(np.arange(85)).tobytes()
    child.join(timeout=20)


def test_reads_after_the_files_lost_their_names(copied: Path) -> None:
    """Another build may replace them; a run that has begun goes on with what it was given."""
    targets = RegionCache.open(copied).targets()
    expected = targets.lookup(np.arange(85))
    shutil.rmtree(copied / "targets")
    np.testing.assert_array_equal(targets.lookup(np.arange(85)), expected)


def test_holds_no_descriptors(finished: Path) -> None:
    """A cache may have more shards than a process may have open files."""
    before = len(list(Path("/dev/fd").iterdir()))
    targets = RegionCache.open(finished).targets()
    targets.lookup(np.arange(85))
    assert len(list(Path("/dev/fd").iterdir())) == before


# --- refused before training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", range(3))
@pytest.mark.parametrize("place", [0, 100, -1, -15])
def test_a_damaged_file_is_refused_at_once(copied: Path, shard: int, place: int) -> None:
    path = shard_path(copied / "targets", shard)
    content = bytearray(path.read_bytes())
    content[place] ^= 8
    path.write_bytes(content)
    finding = "its index fails the checksum" if place < 0 else "chunk 0 fails its checksum"
    with pytest.raises(CacheCorruptError) as caught:
        RegionCache.open(copied).targets()
    assert (
        str(caught.value)
        == f"{path} is damaged: {finding}; run `mocha-pipe cache verify {copied} --repair --data DATA`"
    )


@pytest.mark.parametrize("kept", [0, 1, 300, -1])
def test_a_truncated_file_is_refused_at_once(copied: Path, kept: int) -> None:
    path = shard_path(copied / "targets", 1)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CacheCorruptError, match=rf"c\.1\.0 is damaged: .*; run `mocha-pipe cache verify {copied}"):
        RegionCache.open(copied).targets()


def test_a_missing_file_is_refused_at_once(copied: Path) -> None:
    shard_path(copied / "targets", 1).unlink()
    with pytest.raises(CacheIncompleteError, match=r"^shard 1 of 'targets' \(rows 32 to 63\) is not in the cache"):
        RegionCache.open(copied).targets()


def test_targets_in_another_layout_are_refused(copied: Path) -> None:
    values = RegionCache.open(copied).rows("targets").block(0, 85)
    attributes = dict(zarr.open_array(copied / "targets", mode="r").attrs)
    shutil.rmtree(copied / "targets")
    array = zarr.create_array(
        copied / "targets", shape=values.shape, dtype="float16", chunks=(16, 8), attributes=attributes
    )
    array[:] = values
    with pytest.raises(CacheFormatError) as caught:
        RegionCache.open(copied).targets()
    assert str(caught.value) == (
        f"training maps targets in the layout that mocha-pipe writes; {copied}/targets is laid out anew by another "
        "program: files 16 x 8 (ours: 32 x 8); names default separator=/ (ours: default separator=.); fill 0.0 (ours: "
        "NaN); codecs bytes little, zstd checksum=False level=0 (ours: sharding_indexed); copy it into the layout of "
        f"mocha-pipe with `mocha-pipe cache pull {copied} {copied}-2`, then use that"
    )


def test_a_damaged_list_is_refused_at_once(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images")
    source.records[20].path.write_bytes(b"no picture")
    helpers.build(source, tmp_path / "cache", helpers.Teacher())
    path = tmp_path / "cache" / "quarantine" / "shard-1.json"
    path.write_text(path.read_text().replace('"row": 62', '"row": 61'))
    with pytest.raises(CacheCorruptError, match=r"shard-1\.json is damaged: it is not the list that was written; run"):
        RegionCache.open(tmp_path / "cache").targets()
