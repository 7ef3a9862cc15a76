import os
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.images import read_image, read_picture
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building import feed
from mocha_pipe.teacher_cache.building.feed import CropFeed, RegionCrop
from mocha_pipe.teacher_cache.crops import cut_crop

LARGEST = 7  # boxes of an image


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads, whatever this machine has."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


class Reads:
    """Counts what is read, in place of `read_picture`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, delay: float = 0.0) -> None:
        self.names: list[str] = []
        self._delay = delay
        monkeypatch.setattr(feed, "read_picture", self)

    def __call__(self, path: Path) -> Image.Image:
        self.names.append(path.name)
        time.sleep(self._delay * (sum(path.name.encode()) % 3))  # later images may well be ready earlier
        return read_picture(path)


def all_rows(table: RegionTable) -> NDArray[np.int64]:
    return np.arange(len(table))


def test_crops_are_those_of_a_plain_loop(
    source: DetectionSource, table: RegionTable, helpers: SimpleNamespace, threads: None
) -> None:
    expected = [
        cut_crop(read_image(record.path), box, helpers.spec.crop_margin, helpers.spec.crop_size)
        for record in source.records
        for box in record.xyxy.astype(np.float32)
    ]
    with CropFeed(source, table, helpers.spec) as crops:
        found = [crop for window in crops.windows(all_rows(table), 9) for crop in window]
    assert [crop.row for crop in found] == list(range(85))
    for crop, pixels in zip(found, expected, strict=True):
        np.testing.assert_array_equal(crop.required(), pixels)


def test_an_image_is_decoded_once_for_all_its_boxes_and_one_without_boxes_never(
    source: DetectionSource, table: RegionTable, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    with CropFeed(source, table, helpers.spec) as crops:
        for _ in crops.windows(all_rows(table), 4):
            pass
    assert Counter(reads.names) == {record.name: 1 for record in source.records if len(record.class_ids)}


@settings(max_examples=15, deadline=None)
@given(chosen=st.sets(st.integers(0, 84)), size=st.integers(1, 90))
def test_windows_keep_order_and_size_for_any_rows(
    source: DetectionSource, table: RegionTable, helpers: SimpleNamespace, chosen: set[int], size: int
) -> None:
    rows = np.array(sorted(chosen), np.int64)
    with CropFeed(source, table, helpers.spec) as crops:
        windows = list(crops.windows(rows, size))
    assert [crop.row for window in windows for crop in window] == rows.tolist()
    assert all(len(window) == size for window in windows[:-1])
    assert not windows or 1 <= len(windows[-1]) <= size


def test_order_holds_where_images_take_unequal_times(
    source: DetectionSource,
    table: RegionTable,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    threads: None,
) -> None:
    reads = Reads(monkeypatch, delay=0.01)
    with CropFeed(source, table, helpers.spec) as crops:
        found = [crop.row for window in crops.windows(all_rows(table), 40) for crop in window]
    assert found == list(range(85))
    assert len(reads.names) == 22


def test_at_most_a_window_is_cut_ahead(
    source: DetectionSource,
    table: RegionTable,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    threads: None,
) -> None:
    size, boxes = 8, {record.name: len(record.class_ids) for record in source.records}
    reads = Reads(monkeypatch)

    def settle() -> int:
        """Rows of all images read so far, once no more are being read."""
        before = -1
        while before != len(reads.names):
            before = len(reads.names)
            time.sleep(0.05)
        return sum(boxes[name] for name in reads.names)

    with CropFeed(source, table, helpers.spec) as crops:
        windows = crops.windows(all_rows(table), size)
        deadline = time.monotonic() + 10
        while settle() < size:
            assert time.monotonic() < deadline, "the first window is begun before it is asked for"
        assert settle() < size + LARGEST, "and no more"
        for used, _ in enumerate(windows, start=1):
            assert settle() < (used + 1) * size + 2 * LARGEST
    assert used == 11


def test_an_unreadable_image_gives_the_reason_for_each_of_its_boxes(
    tmp_path: Path, helpers: SimpleNamespace, threads: None
) -> None:
    source = helpers.make_source(tmp_path / "images", images=6)
    table = RegionTable.build(source)
    broken = source.records[4].path
    broken.write_bytes(b"no picture")
    with CropFeed(source, table, helpers.spec) as crops:
        found = [crop for window in crops.windows(all_rows(table), 4) for crop in window]
    reason = f"{broken.name}: cannot be read as an image (no known image format); replace or remove the file"
    assert [(crop.row, crop.reason) for crop in found if crop.pixels is None] == [(row, reason) for row in range(6, 10)]
    assert all(crop.reason == "" for crop in found if crop.pixels is not None)
    with pytest.raises(DatasetError) as caught:
        found[6].required()
    assert str(caught.value) == reason


def test_an_image_that_is_gone_ends_the_iteration(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images", images=6)
    table = RegionTable.build(source)
    source.records[4].path.unlink()
    with CropFeed(source, table, helpers.spec) as crops, pytest.raises(DatasetNotFoundError, match="no such image"):
        list(crops.windows(all_rows(table), 4))


def test_closing_drops_what_was_not_begun_and_ends_the_threads(
    source: DetectionSource, table: RegionTable, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    reads = Reads(monkeypatch, delay=0.02)
    with CropFeed(source, table, helpers.spec) as crops:
        crops.windows(all_rows(table), 85)
    assert len(reads.names) < 22
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crops")]


def test_a_crop_has_its_pixels() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    assert RegionCrop(0, pixels).required() is pixels
