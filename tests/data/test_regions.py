import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mocha_pipe.data.regions
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.regions import RegionTable, recompute_keys
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import DetectionSource, ImageRecord

Make = Callable[..., Path]
few = settings(max_examples=25, deadline=None)
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

    monkeypatch.setattr(mocha_pipe.data.regions, "image_digest", count)
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


def region_key(digest: str, box: np.ndarray, name: str) -> str:
    """The key of one region."""
    record = ImageRecord(
        path=Path(digest), name="a.jpg", width=40, height=30, xyxy=box.reshape(1, 4), class_ids=np.zeros(1, np.int64)
    )
    source = DetectionSource(root=Path(), split="train", class_names=(name,), records=(record,))
    return str(RegionTable.of(source, [digest]).keys[0].decode())


def plain_key(digest: str, box: np.ndarray, name: str) -> str:
    """As the documentation of `recompute_keys` says it."""
    hundredths = [int(np.floor(float(np.float32(side)) * 100 + 0.5)) for side in box]
    content = bytes.fromhex(digest) + b"".join(side.to_bytes(8, "little", signed=True) for side in hundredths)
    return hashlib.blake2b(content + name.encode(), digest_size=16).hexdigest()


@few
@given(digests, boxes, class_names)
def test_key_repeats_and_is_hex(digest: str, box: np.ndarray, name: str) -> None:
    key = region_key(digest, box, name)
    assert key == region_key(digest, box.copy(), name)
    assert len(bytes.fromhex(key)) == 16


@few
@given(digests, boxes, class_names, st.integers(0, 3), st.floats(0.011, 100))
def test_a_moved_side_changes_the_key(digest: str, box: np.ndarray, name: str, side: int, shift: float) -> None:
    moved = box.copy()
    moved[side] += shift
    assert region_key(digest, moved, name) != region_key(digest, box, name)


@few
@given(digests, st.lists(st.integers(0, 500_000), min_size=4, max_size=4), st.floats(-0.004, 0.004), class_names)
def test_a_shift_below_the_grid_keeps_the_key(digest: str, hundredths: list[int], shift: float, name: str) -> None:
    box = np.array(hundredths) / 100
    assert region_key(digest, box + shift, name) == region_key(digest, box, name)


@few
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


def test_others_read_image_and_class_of_a_region(table: RegionTable, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table.write(tmp_path)
    regions = pq.read_table(tmp_path / "regions.parquet")
    images = pq.read_table(tmp_path / "images.parquet")
    assert regions["image"].to_pylist() == table.image_of_rows(np.arange(len(table))).tolist()
    assert regions["class_name"].to_pylist() == [table.class_name(row) for row in range(len(table))]
    assert images["name"].take(regions["image"].combine_chunks()).to_pylist() == [
        table.image_names[image] for image in table.image_of_rows(np.arange(len(table)))
    ]
    assert json.loads(regions.schema.metadata[b"class_names"]) == list(table.class_names)


def test_a_table_of_before_is_read(table: RegionTable, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table.write(tmp_path)
    regions = pq.read_table(tmp_path / "regions.parquet").drop_columns(["image", "class_name"])
    pq.write_table(regions, tmp_path / "regions.parquet")
    assert_same(RegionTable.read(tmp_path), table)


REMEDY = "remove the folder and run: mocha-pipe cache build"


def test_parts_make_the_table_that_one_piece_makes(
    table: RegionTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write(tmp_path / "whole")
    names = [list(table.image_names), list(table.image_digests)]
    state = hashlib.blake2b(json.dumps(names).encode(), digest_size=16)
    for column in (table.image_sizes, table.first_row, table.xyxy, table.class_ids):
        state.update(column.tobytes())
    monkeypatch.setattr(mocha_pipe.data.regions, "_ROWS_AT_ONCE", 2)
    np.testing.assert_array_equal(recompute_keys(table), table.keys)
    table.write(tmp_path / "parts")
    for file in ("images.parquet", "regions.parquet"):
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    metadata = pq.read_schema(tmp_path / "parts/images.parquet").metadata
    assert metadata[b"content"] == state.hexdigest().encode()


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


# --- equal regions ----------------------------------------------------------------------------------------------------

CONTENTS = ("00" * 16, "ab" * 16, "ff" * 16)
"""Digests of three images."""
GRID = [0.0, 0.004, 1.25, 7.5, 12.0]
"""Corners, of which the first two are one on the grid of 1/100 px."""
some_boxes = st.tuples(*[st.sampled_from(GRID)] * 2, *[st.sampled_from([20.0, 21.5])] * 2)
some_regions = st.lists(st.tuples(some_boxes, st.integers(0, 2)), max_size=6)
some_images = st.lists(st.tuples(st.integers(0, 2), some_regions), max_size=5)
Images = list[tuple[int, list[tuple[tuple[float, float, float, float], int]]]]


def table_of(images: Images, class_names: tuple[str, ...] = ("ball", "mug", "star")) -> RegionTable:
    """The table of images that are told by the number of their content and their regions."""
    records = [
        ImageRecord(
            path=Path(CONTENTS[content]),
            name=f"{number:03d}.jpg",
            width=40,
            height=30,
            xyxy=np.array([box for box, _ in regions], np.float64).reshape(-1, 4),
            class_ids=np.array([class_id for _, class_id in regions], np.int64),
        )
        for number, (content, regions) in enumerate(images)
    ]
    source = DetectionSource(root=Path(), split="train", class_names=class_names, records=tuple(records))
    return RegionTable.of(source, [CONTENTS[content] for content, _ in images])


def plain_regions(images: Images) -> list[tuple[int, tuple[int, ...], int]]:
    """What makes two regions equal: content of the image, box on the grid, class."""
    return [
        (content, tuple(int(corner * 100 + 0.5) for corner in box), class_id)
        for content, regions in images
        for box, class_id in regions
    ]


@few
@given(some_images)
def test_equal_keys_are_equal_image_box_and_class(images: Images) -> None:
    keys, plain = table_of(images).keys.tolist(), plain_regions(images)
    for first in range(len(keys)):
        for second in range(first):
            assert (keys[first] == keys[second]) == (plain[first] == plain[second])


@few
@given(some_images)
def test_first_of_key_equals_a_plain_search(images: Images) -> None:
    table, plain = table_of(images), plain_regions(images)
    assert table.first_of_key.tolist() == [plain.index(region) for region in plain]
    assert table.first_of_key.dtype == np.int64
    assert table.num_distinct == len(set(plain))
    assert table.num_distinct_images == len({content for content, _ in images})


@few
@given(some_images)
def test_first_of_key_is_a_projection(images: Images) -> None:
    first = table_of(images).first_of_key
    np.testing.assert_array_equal(first[first], first)
    assert (first <= np.arange(len(first))).all()


@few
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.tuples(boxes, st.integers(0, 1)), max_size=4)), max_size=4))
def test_keys_follow_from_the_table_itself(images: Images) -> None:
    """Also from boxes that were rounded to float32 on their way into it."""
    table = table_of(images, ("star", "kümmel"))
    recomputed = recompute_keys(table)
    assert recomputed.dtype == np.dtype("S32")
    np.testing.assert_array_equal(recomputed, table.keys)
    places = zip(table.image_of_rows(np.arange(len(table))), table.xyxy, table.class_ids, strict=True)
    plain = [plain_key(table.image_digests[i], box, table.class_names[class_id]) for i, box, class_id in places]
    assert [key.decode() for key in recomputed.tolist()] == plain


@pytest.mark.parametrize("column", ["xyxy", "class_ids", "image_digests", "first_row", "class_names"])
def test_recomputed_keys_show_what_was_changed(table: RegionTable, column: str) -> None:
    changes = {
        "xyxy": table.xyxy + np.float32([0, 0, 0, 1]),
        "class_ids": (table.class_ids + 1) % 3,
        "image_digests": tuple("00" * 16 for _ in table.image_digests),
        "first_row": np.array([0, 1, 1, 3]),
        "class_names": ("x", "y", "z"),
    }
    other = replace(table, **{column: changes[column]})
    changed = (recompute_keys(other) != table.keys).tolist()
    assert changed == ([False, True, False] if column == "first_row" else [True] * 3)


# --- the two files ----------------------------------------------------------------------------------------------------


@few
@given(images=some_images, names=st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=3, max_size=3))
def test_every_table_comes_back(tmp_path_factory: pytest.TempPathFactory, images: Images, names: list[str]) -> None:
    table = table_of(images, tuple(names))
    image_names = tuple(f"{number}{names[number % 3]}" for number in range(len(images)))
    table = replace(table, image_names=image_names)
    folder = tmp_path_factory.mktemp("table")
    table.write(folder)
    assert_same(RegionTable.read(folder), table)
    np.testing.assert_array_equal(RegionTable.read(folder).first_of_key, table.first_of_key)
    shutil.rmtree(folder)


def as_read(folder: Path) -> RegionTable | None:
    """The table, or None where it is refused as damaged."""
    with contextlib.suppress(DatasetError):
        return RegionTable.read(folder)
    return None


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 60 regions on disk; tests put every file back."""
    folder = tmp_path_factory.mktemp("written")
    regions = [((0.0, corner, 20.0 + width, 21.5), width % 3) for corner in GRID for width in range(4)]
    table_of([(0, regions), (1, regions), (2, regions)]).write(folder)
    return folder


@pytest.mark.parametrize("file", ["images.parquet", "regions.parquet"])
def test_no_flipped_bit_changes_what_is_read(written: Path, file: str) -> None:
    """Every page has a checksum and all that was read a digest; what is left says nothing that is read."""
    table, content = RegionTable.read(written), (written / file).read_bytes()
    refused = 0
    for position in range(0, 8 * len(content), 97):
        place, bit = divmod(position, 8)
        (written / file).write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
        found = as_read(written)
        if found is None:
            refused += 1
        else:
            assert_same(found, table)
    (written / file).write_bytes(content)
    assert refused > 8 * len(content) / 97 / 2


@pytest.mark.parametrize("file", ["images.parquet", "regions.parquet"])
def test_a_damaged_page_is_refused(written: Path, file: str) -> None:
    """Wherever the keys, the boxes or the names lie."""
    import pyarrow.parquet as pq

    content, group = (written / file).read_bytes(), pq.ParquetFile(written / file).metadata.row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        last = column.data_page_offset + column.total_compressed_size - 1
        for place in range(last - 8, last + 1):
            (written / file).write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
            with pytest.raises(DatasetError, match=rf"{file}: cannot be read as parquet \(.+\); {REMEDY}$"):
                RegionTable.read(written)
    (written / file).write_bytes(content)


@pytest.mark.parametrize("file", ["images.parquet", "regions.parquet"])
def test_every_truncation_is_refused(written: Path, file: str) -> None:
    content = (written / file).read_bytes()
    for size in range(0, len(content), 41):
        (written / file).write_bytes(content[:size])
        with pytest.raises(DatasetError, match=rf"{file}: cannot be read as parquet \(.+\); {REMEDY}$"):
            RegionTable.read(written)
    (written / file).write_bytes(content)


@pytest.mark.parametrize("column", ["name", "digest", "width", "height"])
def test_an_image_that_was_renamed_or_resized_on_disk_is_refused(written: Path, tmp_path: Path, column: str) -> None:
    """No key holds a name or a size, so the digest over all columns must."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(written, tmp_path / "copy")
    images = pq.read_table(written / "images.parquet")
    values = images[column].to_pylist()
    values[1] = values[1] + 1 if column in ("width", "height") else "ee" * 16
    field = images.schema.field(column)
    images = images.set_column(images.schema.get_field_index(column), field, pa.array(values, field.type))
    pq.write_table(images, tmp_path / "copy" / "images.parquet")
    with pytest.raises(DatasetError, match="are not of one table"):
        RegionTable.read(tmp_path / "copy")
