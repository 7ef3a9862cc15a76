"""Readers of data set layouts.

A reader turns one split into a `SplitReading`: the records that are fine and every problem of the others. It raises
only where there is nothing to read (no file, no key, no image), so `open_source` and `data check` share one code path.
"""

from mocha_pipe.data.readers.coco import read_coco, split_of_coco_file
from mocha_pipe.data.readers.packed import is_packed, read_packed, read_place, splits_of_shards
from mocha_pipe.data.readers.reading import SplitReading
from mocha_pipe.data.readers.yolo import read_yolo, splits_of_yaml

__all__ = [
    "SplitReading",
    "is_packed",
    "read_coco",
    "read_packed",
    "read_place",
    "read_yolo",
    "split_of_coco_file",
    "splits_of_shards",
    "splits_of_yaml",
]
