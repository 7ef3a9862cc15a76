"""Crops of regions, cut on other threads while the teacher looks at the ones before.

An image is decoded once for all its rows of a shard. Decoding and resizing leave the interpreter's lock, so threads do.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.images import read_image
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.spec import TeacherSpec

BATCHES_AHEAD = 8
"""Batches handed to the teacher at once: it sorts them by length of prompt, so that few are padded."""
_Group = tuple[int, NDArray[np.int64]]  # an image and its rows


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


class CropFeed:
    """Cuts crops ahead of their use. Close it, or use it as a context, to end its threads."""

    def __init__(self, source: DetectionSource, table: RegionTable, spec: TeacherSpec) -> None:
        """Start no work yet."""
        self._source, self._table, self._spec = source, table, spec
        self._pool = ThreadPoolExecutor(min(8, max(1, (os.cpu_count() or 1) // 2)), "crops")

    def __enter__(self) -> "CropFeed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; work that has not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def windows(self, rows: NDArray[np.int64], size: int) -> Iterator[list[RegionCrop]]:
        """Crops of ascending rows in windows of `size`, the last one shorter; the first is begun at once.

        While a window is in use the next one is cut. Iterating raises DatasetNotFoundError where an image is gone.
        """
        crops = iter(_Stream(self._begin, _by_image(self._table, rows), ahead=size))
        return iter(lambda: list(islice(crops, size)), [])

    def _begin(self, image: int, rows: NDArray[np.int64]) -> Future[list[RegionCrop]]:
        return self._pool.submit(self._cut, image, rows)

    def _cut(self, image: int, rows: NDArray[np.int64]) -> list[RegionCrop]:
        try:
            pixels = read_image(self._source.records[image].path)
        except DatasetNotFoundError:
            raise
        except DatasetError as error:
            return [RegionCrop(int(row), None, str(error)) for row in rows]
        margin, size = self._spec.crop_margin, self._spec.crop_size
        return [RegionCrop(int(row), cut_crop(pixels, self._table.xyxy[row], margin, size)) for row in rows]


class _Stream:
    """Crops in order, about `ahead` of them in work at any time, from the moment it is made."""

    def __init__(self, submit: Callable[..., Future[list[RegionCrop]]], groups: Iterator[_Group], ahead: int) -> None:
        self._submit, self._groups, self._ahead = submit, groups, ahead
        self._queue: deque[tuple[Future[list[RegionCrop]], int]] = deque()
        self._num_queued = 0
        self._top_up()

    def __iter__(self) -> Iterator[RegionCrop]:
        while self._queue:
            future, count = self._queue.popleft()
            crops = future.result()
            self._num_queued -= count
            self._top_up()
            yield from crops

    def _top_up(self) -> None:
        while self._num_queued < self._ahead and (group := next(self._groups, None)) is not None:
            self._queue.append((self._submit(*group), len(group[1])))
            self._num_queued += len(group[1])


def _by_image(table: RegionTable, rows: NDArray[np.int64]) -> Iterator[_Group]:
    """Image index and its rows, in the order of the rows."""
    images = table.image_of_rows(rows)
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    yield from zip(images[starts].tolist(), np.split(rows, starts)[1:], strict=True)
