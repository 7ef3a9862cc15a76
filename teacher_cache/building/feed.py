"""Crops of regions, cut on other threads while the teacher looks at the ones before.

An image is decoded once for all its rows of a shard. Decoding and resizing leave the interpreter's lock, so threads do.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError, printable
from mocha_pipe.data.images import read_picture
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.spec import TeacherSpec

BATCHES_AHEAD = 8
"""Batches handed to the teacher at once: it sorts them by length of prompt, so that few are padded."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionCrop:
    """One region as the teacher sees it, or the reason why there is nothing to see."""

    row: int
    pixels: NDArray[np.uint8] | None
    """(crop_size, crop_size, 3) RGB; None where the image cannot be decoded."""
    reason: str = ""

    def required(self) -> NDArray[np.uint8]:
        """The pixels; DatasetError with the reason where there are none."""
        if self.pixels is None:
            raise DatasetError(self.reason)
        return self.pixels


class CropFeed(AbstractContextManager["CropFeed"]):
    """Cuts crops ahead of their use. Use it as a context, to end its threads."""

    def __init__(self, source: DetectionSource, table: RegionTable, spec: TeacherSpec) -> None:
        """Start no work yet."""
        self._source, self._table, self._spec = source, table, spec
        self._pool = ThreadPoolExecutor(min(8, max(1, (os.cpu_count() or 1) // 2)), "crops")

    def __exit__(self, *_: object) -> None:
        """End the threads; work that has not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def windows(self, rows: NDArray[np.int64], size: int) -> Iterator[list[RegionCrop]]:
        """Crops of ascending rows in windows of `size`, the last one shorter; the first is begun at once.

        While a window is in use the next one is cut. Iterating raises DatasetNotFoundError where an image is gone.
        """
        images = self._table.image_of_rows(rows)
        starts = np.flatnonzero(np.diff(images, prepend=-1))
        groups = zip(images[starts].tolist(), np.split(rows, starts)[1:], strict=True)
        begun: deque[Future[list[RegionCrop]]] = deque()
        ahead = 0

        def begin() -> None:
            """Keep about `size` crops in work."""
            nonlocal ahead
            while ahead < size and (group := next(groups, None)):
                begun.append(self._pool.submit(self._cut, *group))
                ahead += len(group[1])

        def in_order() -> Iterator[RegionCrop]:
            nonlocal ahead
            while begun:
                crops = begun.popleft().result()
                ahead -= len(crops)
                begin()
                yield from crops

        begin()
        crops = in_order()
        return iter(lambda: list(islice(crops, size)), [])

    def _cut(self, image: int, rows: NDArray[np.int64]) -> list[RegionCrop]:
        record = self._source.records[image]
        try:
            picture = read_picture(record.path)
        except DatasetNotFoundError:
            raise
        except DatasetError as error:
            # Travels with the cache, to where this machine's folders say nothing.
            reason = str(error).replace(printable(record.path), record.name)
            return [RegionCrop(int(row), None, reason) for row in rows]
        margin, size = self._spec.crop_margin, self._spec.crop_size
        return [RegionCrop(int(row), cut_crop(picture, self._table.xyxy[row], margin, size)) for row in rows]
