import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data.regions
from data.errors import DatasetError, DatasetNotFoundError
from data.regions import RegionTable, region_key
from data.source import open_source

Make = Callable[..., Path]
digests = st.binary(min_size=16, max_size=16).map(bytes.hex)
boxes = st.lists(st.floats(0, 5000, width=32), min_size=4, max_size=4).map(np.array)
class_names = st.text(max_size=8)
LABELS = {
    "train/a.jpg": "0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.1 0.2\n",
    "train/b.jpg": "",
    "train/c.jpg": "1 0.5 0.5 1 1\n",
}


@pytest.fixture
def table(make_yolo: Make) -> RegionTable:
    return RegionTable.build(open_source(make_yolo(LABELS)))


def assert_same(first: RegionTable, second: RegionTable) -> None:
    for name in ("class_names", "image_names", "image_digests", "digest"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("image_sizes", "first_row", "xyxy", "class_ids", "keys"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), strict=True)


def test_rows_follow_the_source(table: RegionTable) -> None:
    assert len(table) == 3
    assert table.class_names == ("ball", "mug", "star")
    assert table.image_names == tuple(f"images/train/{stem}.jpg" for stem in "abc")
    assert table.first_row.tolist() == [0, 2, 2, 3]
    np.testing.assert_allclose(table.xyxy, [[10, 5, 30, 15], [8, 8, 12, 12], [0, 0, 40, 20]])
    assert table.class_ids.tolist() == [0, 1, 1]
    assert table.image_sizes.tolist() == [[40, 20]] * 3
    dtypes = (table.xyxy, table.class_ids, table.first_row, table.image_sizes, table.keys)
    assert [array.dtype for array in dtypes] == [np.float32, np.int32, np.int64, np.int32, np.dtype("S32")]
    assert len(set(table.keys.tolist())) == 3


def test_image_of_rows_skips_backgrounds(table: RegionTable) -> None:
    assert table.image_of_rows(np.array([2, 0, 1, 0])).tolist() == [2, 0, 0, 0]
    assert table.image_of_rows(np.array([], dtype=np.int64)).tolist() == []
    for rows in ([-1], [3]):
        with pytest.raises(IndexError, match=r"rows must lie in 0\.\.2, found"):
            table.image_of_rows(np.array(rows))


def test_source_without_boxes_has_an_empty_table(make_yolo: Make, tmp_path: Path) -> None:
    table = RegionTable.build(open_source(make_yolo({"train/a.jpg": ""})))
    assert (len(table), table.xyxy.shape, table.keys.shape, table.first_row.tolist()) == (0, (0, 4), (0,), [0, 0])
    table.write(tmp_path / "table")
    assert_same(RegionTable.read(tmp_path / "table"), table)


def test_each_image_is_hashed_once(make_yolo: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def count(path: Path) -> str:
        seen.append(path.name)
        return "00" * 16

    monkeypatch.setattr(data.regions, "image_digest", count)
    RegionTable.build(open_source(make_yolo(LABELS)))
    assert sorted(seen) == ["a.jpg", "b.jpg", "c.jpg"]


def test_another_root_and_other_file_names_keep_every_key(make_yolo: Make, table: RegionTable, tmp_path: Path) -> None:
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        for old, new in (("a", "x"), ("b", "y"), ("c", "z")):
            target = tmp_path / "elsewhere" / kind / f"{new}.{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "set" / kind / "train" / f"{old}.{suffix}", target)
    (tmp_path / "elsewhere" / "data.yaml").write_text("train: images\nnames: [ball, mug, star]\n")
    moved = RegionTable.build(open_source(tmp_path / "elsewhere" / "data.yaml"))
    assert moved.image_names != table.image_names
    assert moved.keys.tolist() == table.keys.tolist()
    assert moved.digest == table.digest


def test_a_changed_image_changes_its_keys_and_no_other(make_yolo: Make, table: RegionTable, write_image: Make) -> None:
    data_file = make_yolo(LABELS)
    write_image(data_file.parent / "images/train/a.jpg", seed=99)
    changed = RegionTable.build(open_source(data_file))
    assert (changed.keys == table.keys).tolist() == [False, False, True]
    assert changed.digest != table.digest


def test_a_changed_label_changes_one_key(make_yolo: Make, table: RegionTable) -> None:
    labels = {**LABELS, "train/a.jpg": "0 0.5 0.5 0.5 0.5\n2 0.25 0.5 0.1 0.2\n"}
    changed = RegionTable.build(open_source(make_yolo(labels)))
    assert (changed.keys == table.keys).tolist() == [True, False, True]


def test_a_class_that_moves_in_the_list_keeps_its_keys_but_not_the_digest(make_yolo: Make, table: RegionTable) -> None:
    swapped = {
        "train/a.jpg": "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.1 0.2\n",
        "train/b.jpg": "",
        "train/c.jpg": "0 0.5 0.5 1 1\n",
    }
    moved = RegionTable.build(open_source(make_yolo(swapped, {"names": ["mug", "ball", "star"]})))
    assert moved.keys.tolist() == table.keys.tolist()
    assert moved.digest != table.digest


@given(digests, boxes, class_names)
def test_key_repeats_and_is_hex(digest: str, box: np.ndarray, name: str) -> None:
    key = region_key(digest, box, name)
    assert key == region_key(digest, box.copy(), name)
    assert len(bytes.fromhex(key)) == 16


@given(digests, boxes, class_names, st.integers(0, 3), st.floats(0.011, 100))
def test_a_moved_side_changes_the_key(digest: str, box: np.ndarray, name: str, side: int, shift: float) -> None:
    moved = box.copy()
    moved[side] += shift
    assert region_key(digest, moved, name) != region_key(digest, box, name)


@given(digests, st.lists(st.integers(0, 500_000), min_size=4, max_size=4), st.floats(-0.004, 0.004), class_names)
def test_a_shift_below_the_grid_keeps_the_key(digest: str, hundredths: list[int], shift: float, name: str) -> None:
    box = np.array(hundredths) / 100
    assert region_key(digest, box + shift, name) == region_key(digest, box, name)


@given(digests, digests, boxes, class_names, class_names)
def test_image_and_class_are_part_of_the_key(first: str, second: str, box: np.ndarray, one: str, other: str) -> None:
    assert (region_key(first, box, one) == region_key(second, box, one)) == (first == second)
    assert (region_key(first, box, one) == region_key(first, box, other)) == (one == other)


def test_written_table_comes_back_and_equal_tables_give_equal_bytes(
    make_yolo: Make, table: RegionTable, tmp_path: Path
) -> None:
    again = RegionTable.build(open_source(make_yolo(LABELS)))
    table.write(tmp_path / "one")
    again.write(tmp_path / "two")
    assert_same(RegionTable.read(tmp_path / "one"), table)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["images.parquet", "regions.parquet"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    RegionTable.read(tmp_path / "one").write(tmp_path / "three")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "three" / path.name).read_bytes()


REMEDY = "remove the folder and run: mocha-pipe cache build"


def test_missing_file(table: RegionTable, tmp_path: Path) -> None:
    table.write(tmp_path)
    (tmp_path / "regions.parquet").unlink()
    with pytest.raises(DatasetNotFoundError) as caught:
        RegionTable.read(tmp_path)
    assert str(caught.value) == f"{tmp_path}/regions.parquet: no such file; run: mocha-pipe cache build"


def test_damaged_file(table: RegionTable, tmp_path: Path) -> None:
    table.write(tmp_path)
    (tmp_path / "images.parquet").write_bytes(b"none")
    with pytest.raises(DatasetError, match=rf"images\.parquet: cannot be read as parquet \(.+\); {REMEDY}$"):
        RegionTable.read(tmp_path)


def test_files_of_two_tables(make_yolo: Make, table: RegionTable, tmp_path: Path) -> None:
    other = RegionTable.build(open_source(make_yolo({"train/a.jpg": "0 0.5 0.5 0.5 0.5\n"})))
    table.write(tmp_path / "one")
    other.write(tmp_path / "two")
    shutil.copy(tmp_path / "two" / "regions.parquet", tmp_path / "one")
    with pytest.raises(DatasetError) as caught:
        RegionTable.read(tmp_path / "one")
    assert str(caught.value) == f"{tmp_path}/one: images.parquet and regions.parquet are not of one table; {REMEDY}"


def test_other_columns(table: RegionTable, tmp_path: Path) -> None:
    table.write(tmp_path)
    shutil.copy(tmp_path / "images.parquet", tmp_path / "regions.parquet")
    with pytest.raises(DatasetError) as caught:
        RegionTable.read(tmp_path)
    assert str(caught.value) == f"{tmp_path}: images.parquet or regions.parquet has other columns; {REMEDY}"
