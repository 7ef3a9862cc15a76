"""A data set of noise: sound, of the wanted size, the same every time."""

from pathlib import Path

import numpy as np
from PIL import Image

from bench.gpu.pictures import MOST_BOXES, NUM_CLASSES, picture_inputs
from mocha_pipe.data.source import open_source


def test_a_data_set_is_sound_and_of_the_wanted_size(tmp_path: Path) -> None:
    inputs = picture_inputs(tmp_path / "data", images=70, side=64)
    records = inputs.source.records
    assert {(record.width, record.height) for record in records} == {(64, 48)}
    boxes = [len(record.class_ids) for record in records]
    assert (len(records), min(boxes), max(boxes)) == (70, 1, MOST_BOXES)
    assert (inputs.source.num_regions, inputs.source.problems) == (len(inputs.table), ())
    assert len(inputs.source.class_names) == NUM_CLASSES
    assert len(open_source(inputs.data, "val").records) == 2


def test_the_same_numbers_give_the_same_data_set(tmp_path: Path) -> None:
    one, other = (picture_inputs(tmp_path / name, images=5, side=64) for name in ("one", "other"))
    assert one.table.digest == other.table.digest


def test_a_picture_is_as_large_a_file_as_a_photo(tmp_path: Path) -> None:
    record = picture_inputs(tmp_path / "data", images=1, side=640).source.records[0]
    assert isinstance(record.path, Path)
    assert 100_000 < record.path.stat().st_size < 250_000
    with Image.open(record.path) as picture:
        assert np.asarray(picture).std() > 20
