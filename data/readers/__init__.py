"""Readers of data set layouts.

A reader turns one split into a `SplitReading`: the records that are fine and every problem of the others. It raises
only where there is nothing to read (no file, no key, no image), so `open_source` and `data check` share one code path.
"""

from data.readers.coco import read_coco, split_of_coco_file
from data.readers.reading import SplitReading
from data.readers.yolo import read_yolo, splits_of_yaml

__all__ = ["SplitReading", "read_coco", "read_yolo", "split_of_coco_file", "splits_of_yaml"]
