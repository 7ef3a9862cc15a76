"""What a profile was taught, photo by photo, so that one photo counts once wherever it is met again (numpy only).

Legend: N lessons, D width of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.boxes import box_iou

SAME_BOX_IOU = 0.9
"""Boxes that overlap more are one: two devices box a thing within a pixel of each other."""
UNKNOWN_PHOTO = ""
"""In place of a digest: versions that kept only the mean of an object's photos did not know them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lessons:
    """A row for each photo of each object."""

    vectors: NDArray[np.float32]  # (N, D)
    """As `PrototypeLearner.absorb` takes them."""
    coarse: NDArray[np.int64]  # (N,)
    personal: NDArray[np.int64]  # (N,)
    counts: NDArray[np.int64]  # (N,)
    """Photos that the row is the mean of: 1, unless an earlier version kept nothing else."""
    boxes: NDArray[np.float32]  # (N, 4)
    """xyxy in pixels of the upright photo; zeros where unknown."""
    photos: tuple[str, ...]  # N
    """Digest of each photo's file, or `UNKNOWN_PHOTO`."""

    @classmethod
    def of(
        cls,
        vectors: NDArray[np.float32],
        coarse: NDArray[np.integer],
        personal: NDArray[np.integer],
        counts: NDArray[np.integer] | None = None,
        boxes: NDArray[np.floating] | None = None,
        *,
        photos: Sequence[str] = (),
    ) -> "Lessons":
        """Lessons of which photos and boxes, or counts, may be unknown."""
        count = len(vectors)
        return cls(
            vectors=vectors,
            coarse=np.asarray(coarse, np.int64),
            personal=np.asarray(personal, np.int64),
            counts=np.ones(count, np.int64) if counts is None else np.asarray(counts, np.int64),
            boxes=np.zeros((count, 4), np.float32) if boxes is None else np.asarray(boxes, np.float32),
            photos=tuple(photos) or (UNKNOWN_PHOTO,) * count,
        )

    def __len__(self) -> int:
        return len(self.photos)

    def learnt(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What `PrototypeLearner.absorb` takes."""
        return self.vectors, self.coarse, self.personal, self.counts

    def row(self, index: int) -> "Lessons":
        """One of them."""
        return self.rows(np.array([index]))

    def rows(self, wanted: NDArray[np.integer] | NDArray[np.bool_]) -> "Lessons":
        """Some of them, by index or mask."""
        photos = tuple(np.array(self.photos, object)[wanted].tolist())
        return Lessons(**{name: value[wanted] for name, value in self._columns().items()}, photos=photos)

    def repeats(self, more: "Lessons", *, unknown_too: bool) -> NDArray[np.bool_]:  # (M,)
        """Which of more lessons are of a photo and box that their object was learnt from before, or earlier among them.

        Args:
            more: lessons of the same objects and width.
            unknown_too: whether equal rows of unknown photos are one as well, as they are where two profiles meet.
        """
        again = np.zeros(len(more), np.bool_)
        for index in range(len(more)):
            lesson = more.row(index)
            among = more.rows(np.arange(len(more)) < index)
            again[index] = any(
                len(known) and known._is(lesson, unknown_too=unknown_too and known is self).any()
                for known in (self, among)
            )
        return again

    def taught(self, more: "Lessons") -> "Lessons":
        """With more lessons; one of a photo that its object was learnt from before takes the place of that one."""
        known = self if len(self) else more.rows(np.zeros(0, np.int64))
        for index in range(len(more)):
            lesson = more.row(index)
            places = np.flatnonzero(known._is(lesson, unknown_too=False))
            known = known._replaced(int(places[0]), lesson) if len(places) else known.joined(lesson)
        return known

    def _is(self, lesson: "Lessons", *, unknown_too: bool) -> NDArray[np.bool_]:  # (N,)
        """Which are of the same object and photo as this one."""
        own = self.personal == lesson.personal[0]
        photos = np.array(self.photos, object)
        if lesson.photos[0] != UNKNOWN_PHOTO:
            same = (photos == lesson.photos[0]) & (box_iou(self.boxes, lesson.boxes)[:, 0] > SAME_BOX_IOU)
        else:
            same = np.zeros(len(self), np.bool_)
        if unknown_too:
            unknown = (photos == UNKNOWN_PHOTO) | (lesson.photos[0] == UNKNOWN_PHOTO)
            equal = (self.vectors == lesson.vectors).all(axis=1)
            same |= unknown & equal & (self.coarse == lesson.coarse[0]) & (self.counts == lesson.counts[0])
        return np.asarray(own & same)

    def joined(self, more: "Lessons") -> "Lessons":
        """With more lessons, whatever they are of."""
        if not len(self):
            return more
        mine, theirs = self._columns(), more._columns()
        columns = {name: np.concatenate([mine[name], theirs[name]]) for name in mine}
        return Lessons(**columns, photos=(*self.photos, *more.photos))

    def _replaced(self, place: int, lesson: "Lessons") -> "Lessons":
        columns = {name: value.copy() for name, value in self._columns().items()}
        for name, value in lesson._columns().items():
            columns[name][place] = value[0]
        photos = list(self.photos)
        photos[place] = lesson.photos[0]
        return Lessons(**columns, photos=tuple(photos))

    def _columns(self) -> dict[str, Any]:
        """All but the photos."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "photos"}
