import errno
import os
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs.checksum32 import CRC32C
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheIncompleteError
from mocha_pipe.teacher_cache.store import reader as reader_module
from mocha_pipe.teacher_cache.store.array_layout import read_layout
from mocha_pipe.teacher_cache.store.layout import (
    ShardPlan,
    create_array_atomically,
    encode_shard,
    shard_path,
    write_shard,
)
from mocha_pipe.teacher_cache.store.reader import ShardRows
from mocha_pipe.teacher_cache.store.shard_file import ShardFile

ROWS, DIM = 200, 5
PLAN = ShardPlan(ROWS, 64)  # 4 shards of 2 chunks; the last shard has 8 rows
VALUES = np.random.default_rng(3).normal(size=(ROWS, DIM)).astype(np.float16)


def write_array(folder: Path) -> Path:
    create_array_atomically(folder, "hidden", PLAN, DIM, {})
    for shard in range(len(PLAN)):
        write_shard(folder / "hidden", PLAN, shard, VALUES[slice(*PLAN.span(shard))])
    return folder / "hidden"


@pytest.fixture
def array(tmp_path: Path) -> Path:
    return write_array(tmp_path)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardRows:
    """Read only."""
    return ShardRows(write_array(tmp_path_factory.mktemp("module")), PLAN)


@pytest.fixture
def zarr_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proof that the fast way was taken."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("zarr was asked")

    monkeypatch.setattr(reader_module, "zarr", SimpleNamespace(open_array=refuse))


def indices(*rows: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, ROWS - 1), max_size=40), st.integers(0, ROWS - 1), st.integers(1, 100))
def test_rows_in_any_order_and_runs(reader: ShardRows, scattered: list[int], first: int, count: int) -> None:
    rows = np.array([*scattered, *range(first, min(first + count, ROWS))], np.int64)
    found = reader.lookup(rows)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, VALUES[rows])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, ROWS - 1), st.integers(1, ROWS))
def test_blocks(reader: ShardRows, start: int, count: int) -> None:
    stop = min(start + count, ROWS)
    np.testing.assert_array_equal(reader.block(start, stop), VALUES[start:stop])


@pytest.mark.usefixtures("zarr_refuses")
def test_our_layout_is_read_without_zarr(array: Path) -> None:
    reader = ShardRows(array, PLAN)
    np.testing.assert_array_equal(reader.lookup(np.arange(ROWS)), VALUES)
    np.testing.assert_array_equal(reader.block(0, ROWS), VALUES)


def test_size_and_width(reader: ShardRows) -> None:
    assert (len(reader), reader.dim, len(reader.plan), reader.missing()) == (ROWS, DIM, 4, ())


@pytest.mark.parametrize("row", [-1, ROWS])
def test_row_outside(reader: ShardRows, row: int) -> None:
    with pytest.raises(IndexError, match=f"^rows of 'hidden' run from 0 to 199; asked for {row}$"):
        reader.lookup(indices(3, row))


def test_missing_shard_is_named_with_the_command(array: Path) -> None:
    shard_path(array, 1).unlink()
    reader = ShardRows(array, PLAN)
    assert reader.missing() == (1,)
    np.testing.assert_array_equal(reader.lookup(indices(0, 130)), VALUES[[0, 130]])
    message = (
        f"shard 1 of 'hidden' (rows 64 to 127) is not in the cache {array.parent}; "
        f"compute it with `mocha-pipe cache build --cache {array.parent}`"
    )
    for read in (lambda: reader.lookup(indices(0, 64)), lambda: reader.block(60, 70)):
        with pytest.raises(CacheIncompleteError) as caught:
            read()
        assert str(caught.value) == message


def damage(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("size", [0, 10, 200, -1])
def test_truncated_shard_is_named(array: Path, size: int) -> None:
    path = shard_path(array, 2)
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    finding = f"{size} bytes are too few to hold its index" if 0 <= size < 36 else "its index fails the checksum"
    for read in (lambda: ShardRows(array, PLAN).lookup(indices(130)), lambda: ShardRows(array, PLAN).block(128, 192)):
        with pytest.raises(CacheCorruptError) as caught:
            read()
        assert str(caught.value) == (
            f"{path} is damaged: {finding}; run `mocha-pipe cache verify {array.parent} --repair --data DATA`"
        )


def test_appended_bytes_are_noticed(array: Path) -> None:
    with shard_path(array, 0).open("ab") as file:
        file.write(b"12345678")
    with pytest.raises(CacheCorruptError, match="its index fails the checksum"):
        ShardRows(array, PLAN).lookup(indices(0))


@pytest.mark.parametrize("from_end", range(1, 37, 5))
def test_flipped_bit_in_the_index_is_noticed(array: Path, from_end: int) -> None:
    damage(shard_path(array, 0), -from_end)
    with pytest.raises(CacheCorruptError, match=r"c\.0\.0 is damaged: its index fails the checksum"):
        ShardRows(array, PLAN).lookup(indices(0))


def test_flipped_bit_in_a_chunk_is_noticed_by_block(array: Path) -> None:
    damage(shard_path(array, 1), 400)
    message = rf"{shard_path(array, 1)} is damaged: chunk 1 fails its checksum; run `mocha-pipe cache verify"
    with pytest.raises(CacheCorruptError, match=message):
        ShardRows(array, PLAN).block(0, ROWS)


def test_shard_is_checked_once(array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    check = ShardFile._has_plain_index
    monkeypatch.setattr(
        ShardFile, "_has_plain_index", lambda self, stream: checked.append(self.shard) or check(self, stream)
    )
    reader = ShardRows(array, PLAN)
    for _ in range(3):
        np.testing.assert_array_equal(reader.lookup(indices(0, 70, 199)), VALUES[[0, 70, 199]])
    assert checked == [0, 1, 3]


def count_open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_holds_no_descriptors(array: Path) -> None:
    """A cache may have more shards than a process may have open files."""
    before = count_open_files()
    reader = ShardRows(array, PLAN)
    reader.lookup(np.arange(ROWS))
    reader.block(0, ROWS)
    assert count_open_files() == before


def test_failed_check_leaves_no_descriptor(array: Path) -> None:
    damage(shard_path(array, 0), -1)
    reader, before = ShardRows(array, PLAN), count_open_files()
    with pytest.raises(CacheCorruptError):
        reader.lookup(indices(0))
    assert count_open_files() == before


def test_pickles_without_its_files(reader: ShardRows) -> None:
    reader.lookup(indices(0))
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again.lookup(indices(199, 0)), VALUES[[199, 0]])


def test_threads_share_a_reader(array: Path) -> None:
    reader, right = ShardRows(array, PLAN), []

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(100):
            rows = generator.integers(0, ROWS, 8)
            right.append(bool((reader.lookup(rows) == VALUES[rows]).all()))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 400


FOREIGN = {
    "no shards": {"chunks": (16, DIM), "shards": None, "compressors": None},
    "compressed": {"chunks": (32, DIM), "shards": (64, DIM)},
    "nested keys": {"chunks": (32, DIM), "shards": (64, DIM), "separator": "/"},
    "narrow chunks": {"chunks": (32, 1), "shards": (64, DIM), "compressors": None},
}


@pytest.mark.parametrize("options", FOREIGN.values(), ids=FOREIGN.keys())
def test_other_layouts_are_read_through_zarr(tmp_path: Path, options: dict[str, object]) -> None:
    options = dict(options)
    keys = {"name": "default", "separator": options.pop("separator", ".")}
    array = zarr.create_array(
        tmp_path / "hidden",
        shape=VALUES.shape,
        dtype="float16",
        fill_value=float("nan"),
        chunk_key_encoding=keys,
        **options,
    )
    array[:128] = VALUES[:128]
    reader = ShardRows(tmp_path / "hidden", PLAN)
    rows = indices(127, 3, 4, 5, 3, 64, 100)
    np.testing.assert_array_equal(reader.lookup(rows), VALUES[rows])
    np.testing.assert_array_equal(reader.block(10, 128), VALUES[10:128])
    with pytest.raises(CacheIncompleteError, match=r"^shard \d+ of 'hidden' \(rows \d+ to 199\) is not in the cache"):
        reader.lookup(indices(0, 199))


def test_shard_with_other_offsets_is_read_through_zarr(array: Path) -> None:
    """A writer may put the chunks of a shard in another order; the index says so."""
    path = shard_path(array, 0)
    content = path.read_bytes()
    size = 32 * DIM * 2 + 4
    index = np.array([[size, size], [0, size]], "<u8").tobytes()
    checked = CRC32C(location="end").encode(index).tobytes()
    path.write_bytes(content[size : 2 * size] + content[:size] + checked)
    reader = ShardRows(array, PLAN)
    np.testing.assert_array_equal(reader.lookup(np.arange(ROWS)), VALUES)
    np.testing.assert_array_equal(reader.block(0, ROWS), VALUES)
    damage(path, 3)
    with pytest.raises(
        CacheCorruptError,
        match=r"^array .*hidden is damaged: .*checksum.*; restore its files from a sound copy, or name another",
    ):
        reader.lookup(np.arange(64))


def test_rows_that_were_set_aside_are_not_missing(tmp_path: Path, array: Path) -> None:
    """They hold NaN, which is also what zarr gives for a shard that is not there."""
    values = VALUES.copy()
    values[[5, 6, 130]] = np.nan
    foreign = zarr.create_array(
        tmp_path / "foreign", shape=VALUES.shape, dtype="float16", fill_value=float("nan"), chunks=(64, DIM)
    )
    foreign[:192] = values[:192]
    for shard in range(len(PLAN)):
        write_shard(array, PLAN, shard, values[slice(*PLAN.span(shard))])
    for reader in (ShardRows(array, PLAN), ShardRows(tmp_path / "foreign", PLAN)):
        np.testing.assert_array_equal(reader.lookup(indices(5)), values[[5]])
        np.testing.assert_array_equal(reader.lookup(indices(130, 6, 7)), values[[130, 6, 7]])
        np.testing.assert_array_equal(reader.block(0, 192), values[:192])
    with pytest.raises(CacheIncompleteError, match=r"^shard 3 of 'foreign' \(rows 192 to 199\) is not in the cache"):
        ShardRows(tmp_path / "foreign", PLAN).lookup(indices(195))


def test_a_shard_of_nothing_but_rows_set_aside_is_there(array: Path) -> None:
    write_shard(array, PLAN, 3, np.full((8, DIM), np.nan, np.float16))
    reader = ShardRows(array, PLAN)
    assert reader.missing() == ()
    assert np.isnan(reader.lookup(indices(193, 199))).all()
    assert np.isnan(reader.block(192, 200)).all()


# --- every byte -------------------------------------------------------------------------------------------------------


def test_a_sound_array_passes_every_check(array: Path) -> None:
    reader = ShardRows(array, PLAN)
    assert reader.layout.is_ours
    assert read_layout(array, PLAN).is_ours
    assert read_layout(array, PLAN, DIM).is_ours
    for shard in range(len(PLAN)):
        ShardFile(shard_path(array, shard), PLAN, shard, DIM).check()


@pytest.mark.parametrize("shard", [0, 1])
def test_every_bit_and_every_length_of_a_file_that_arrived_counts(tmp_path: Path, shard: int) -> None:
    """Under a temporary name, before it becomes part of a cache. A full shard of two chunks, and one of one row."""
    plan = ShardPlan(65, 64)
    start, stop = plan.span(shard)
    content, path = encode_shard(VALUES[start:stop, :1], 64), tmp_path / ".c.partial"
    file = ShardFile(path, plan, shard, 1)
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        with pytest.raises(CacheCorruptError, match=r"\.c\.partial is damaged: "):
            file.check()
        path.write_bytes(content[:place])
        with pytest.raises(CacheCorruptError, match=r"\.c\.partial is damaged: "):
            file.check()
    path.write_bytes(content + b"\0")
    with pytest.raises(CacheCorruptError, match="its index fails the checksum"):
        file.check()
    path.write_bytes(content)
    file.check()


def test_a_sound_file_of_another_shard_or_width_is_told(array: Path) -> None:
    """As far as its size tells: two whole shards of one array look alike."""
    other = "its size or its index is not that of its shard"
    for shard, dim in ((3, DIM), (0, DIM + 1)):
        with pytest.raises(
            CacheCorruptError, match=rf"c\.{shard}\.0 is damaged: {other}; run `mocha-pipe cache verify"
        ):
            ShardFile(shard_path(array, shard), PLAN, 1, dim).check()
    ShardFile(shard_path(array, 0), PLAN, 1, DIM).check()
    with pytest.raises(FileNotFoundError):
        ShardFile(array / "c.9.0", PLAN, 1, DIM).check()


def test_the_description_of_another_array_is_told(array: Path, tmp_path: Path) -> None:
    assert not read_layout(array, ShardPlan(ROWS + 1, 64)).is_ours
    assert not read_layout(array, ShardPlan(ROWS, 32)).is_ours
    assert not read_layout(array, PLAN, DIM + 1).is_ours
    assert not read_layout(tmp_path / "nothing", PLAN).is_ours


@pytest.mark.parametrize("options", FOREIGN.values(), ids=FOREIGN.keys())
def test_other_layouts_are_told(tmp_path: Path, options: dict[str, object]) -> None:
    options = dict(options)
    keys = {"name": "default", "separator": options.pop("separator", ".")}
    array = zarr.create_array(
        tmp_path / "hidden",
        shape=VALUES.shape,
        dtype="float16",
        fill_value=float("nan"),
        dimension_names=("row", "feature"),
        chunk_key_encoding=keys,
        **options,
    )
    assert read_layout(tmp_path / "hidden", PLAN).kind == "unreadable", "not a single file is of it"
    array[:1] = VALUES[:1]
    found = read_layout(tmp_path / "hidden", PLAN)
    assert found.kind == "foreign"
    assert found.finding.startswith("laid out anew by another program: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"NaN"', "0.0"),
        ('"float16"', '"float32"'),
        ('"index_location": "end"', '"index_location": "start"'),
        ('"array"', '"group"'),
        ('"attributes"', '"attribute"'),
        ('"storage_transformers"', '"storage_transformer"'),
        ("{", ""),
    ],
)
def test_a_changed_description_is_told(array: Path, old: str, new: str) -> None:
    path = array / "zarr.json"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    assert not read_layout(array, PLAN, DIM).is_ours


def test_attributes_may_be_added(array: Path) -> None:
    path = array / "zarr.json"
    path.write_text(path.read_text().replace('"attributes": {}', '"attributes": {"note": "ours"}'))
    assert read_layout(array, PLAN, DIM).is_ours


def test_something_else_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "image", shape=(3, 4), dtype="float32", chunks=(3, 4))
    other = "it is not the description of a two-dimensional float16 Zarr v3 array (found 'float32' in 2 dimensions)"
    for name, finding in (("image", other), ("nothing", "it is missing")):
        with pytest.raises(CacheCorruptError) as caught:
            ShardRows(tmp_path / name, PLAN)
        assert str(caught.value) == (
            f"{tmp_path / name}/zarr.json is damaged: {finding}; "
            f"run `mocha-pipe cache verify {tmp_path} --repair --data DATA`"
        )


def test_file_that_shrinks_under_the_reader(array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fromfile = np.fromfile

    def shrinks(stream: Any, dtype: Any, count: int) -> NDArray[np.uint8]:
        os.truncate(shard_path(array, 0), 50)
        return fromfile(stream, dtype, count)

    monkeypatch.setattr(np, "fromfile", shrinks)
    with pytest.raises(CacheCorruptError, match="it became shorter while it was read"):
        ShardRows(array, PLAN).block(0, 64)


def test_other_system_errors_stay_what_they_are(array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ShardRows(array, PLAN)

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        reader.lookup(indices(0))
