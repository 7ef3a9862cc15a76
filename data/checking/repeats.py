"""Finds pictures that a data set has more than once, by their digests."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.boxes import in_hundredths
from mocha_pipe.data.types import ImageFile, ImageRecord, Problem, warning


@dataclass(slots=True)
class _Pair:
    """Pictures that were seen before: how many, and the first of them."""

    count: int
    first: ImageFile
    other: ImageFile


@dataclass(slots=True)
class Repeats:
    """Collects pictures split by split."""

    _seen: dict[str, dict[str, tuple[ImageFile, bytes]]] = field(default_factory=dict)
    """By split and digest: the first such picture, and its boxes."""
    _pairs: dict[tuple[str, str], _Pair] = field(default_factory=dict)
    """By the split of the picture, and that in which it was seen before."""
    _regions: dict[str, set[bytes]] = field(default_factory=dict)
    """Different regions of each split, until there are two."""

    def add(self, split: str, record: ImageRecord, digest: str) -> None:
        """One picture of a split."""
        boxes = _boxes(record)
        for other, pictures in {**self._seen, split: self._seen.get(split, {})}.items():
            file, drawn = pictures.get(digest, (None, boxes))
            if file is not None and (other != split or drawn != boxes):
                self._pairs.setdefault((split, other), _Pair(0, record.path, file)).count += 1
        self._seen.setdefault(split, {}).setdefault(digest, (record.path, boxes))
        regions = self._regions.setdefault(split, set())
        if len(regions) < 2:
            regions |= {digest.encode() + row.tobytes() for row in _rows(record)}

    def distinct_regions(self, split: str) -> int:
        """How many boxes of different content, place or class a split has; counted up to 2."""
        return min(2, len(self._regions.get(split, ())))

    def problems(self, split: str) -> list[Problem]:
        """Warnings about the pictures of a split."""
        found = []
        for (of, other), pair in self._pairs.items():
            if of != split:
                continue
            many = f"{pair.count} picture{'s are' if pair.count > 1 else ' is'}"
            if other == split:
                what = f"there twice with other boxes, such as {pair.other}; keep one of each"
            else:
                what = f"in '{other}' too, such as {pair.other}; figures say little where they were measured on both"
            found.append(warning(pair.first, f"{many} {what}"))
        return found


def _boxes(record: ImageRecord) -> bytes:
    """Boxes and classes, whatever their order."""
    rows = _rows(record)
    return rows[np.lexsort(rows.T)].tobytes()


def _rows(record: ImageRecord) -> NDArray[np.int64]:  # (n, 5)
    """Class and corners in 1/100 px of each box."""
    return np.column_stack([record.class_ids, in_hundredths(record.xyxy)]).astype(np.int64)
