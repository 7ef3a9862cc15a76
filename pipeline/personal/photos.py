"""Where an object is in photos, and what the student makes of it there.

A box is x, y, width, height in pixels of the upright photo, x and y of its left top corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.boxes import box_iou, xywh_to_xyxy
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError, MochaError
from mocha_pipe.data.images import image_digest, inspect_image
from mocha_pipe.data.names import one_spelling
from mocha_pipe.data.types import DetectionSource, ImageRecord

if TYPE_CHECKING:
    from mocha_pipe.student.network.pool_pass import PoolPass
    from mocha_pipe.student.network.student_files import Student

_SAME_OBJECT = 0.5  # IoU from which two boxes are one thing
_RIVAL = 0.5  # share of the best confidence from which another object could as well be meant
_MOST_CANDIDATES = 5

Box = tuple[float, float, float, float]


class PersonalizeError(MochaError, ValueError):
    """It is not clear what is to be learnt, or from where."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """A detection of the object, as a later detection would have it."""

    xyxy: Box
    coarse: int
    embedding: NDArray[np.float32]  # (D,)

    @property
    def xywh(self) -> tuple[int, int, int, int]:
        """The box as `--box` takes it, in whole pixels."""
        return _xywh(self.xyxy)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """The object in one photo."""

    photo: Path
    xyxy: Box
    """Corners in pixels of the upright photo."""
    coarse: int
    """The student's class; the number of its classes where there is none."""
    seen: tuple[Seen, ...]
    """The detector's boxes of the object here: those that overlap it by half or more, the best first."""
    confidence: float | None
    """The detector's, 0..1; None where the user drew the box."""
    embedding: NDArray[np.float32]  # (D,)
    digest: str
    """Of the photo's file."""

    @property
    def said(self) -> tuple[int, ...]:
        """Classes under which the detector boxes the object here."""
        return tuple(dict.fromkeys(seen.coarse for seen in self.seen))

    @property
    def xywh(self) -> tuple[int, int, int, int]:
        """The box as `--box` takes it, in whole pixels."""
        return _xywh(self.xyxy)


def find_object(
    student: "Student",
    photos: Sequence[Path],
    *,
    boxes: Sequence[str],
    class_name: str | None,
    confidence: float,
    device: str,
    by_class: bool = True,
) -> list[Shown]:
    """Find the object in every photo, with one pass of the student over each.

    Without a box the object is the most confident detection, unless another object (IoU below 0.5) has half of its
    confidence or more. With a box its class is that of the detection which overlaps it best, at an IoU of 0.5 or more;
    where none does, it has no class, if it can be learnt without.

    Args:
        student: detector and translation.
        photos: image files.
        boxes: `x,y,w,h` of the object in each photo, or none.
        class_name: the object's class: only its detections count, and a box is of it.
        confidence: detections need more than this.
        device: torch device.
        by_class: whether the object is only looked for under its class, so that it needs one.

    Raises:
        DatasetError, DatasetNotFoundError: a photo is missing or damaged.
        PersonalizeError: a box is wrong, or it is not clear which object is meant in some photos; the text lists the
            candidates in each.
    """
    from mocha_pipe.student.network.embedder import RegionEmbedder

    if boxes and len(boxes) != len(photos):
        raise PersonalizeError(
            f"--box must stand once for each photo, in their order, or not at all; found {len(boxes)} for "
            f"{len(photos)} photo{'s' * (len(photos) > 1)}; learn photos one after the other where some need none"
        )
    drawn: Sequence[str | None] = boxes or [None] * len(photos)
    records = [_record(photo, box) for photo, box in zip(photos, drawn, strict=True)]
    classes = [one_spelling(name) for name in student.class_names]
    wanted = None if class_name is None else one_spelling(class_name)
    if wanted not in (None, *classes):
        known = ", ".join(student.class_names)
        raise PersonalizeError(f"--class must be one of the student's, {known}; found {class_name!r}")
    coarse = None if wanted is None else classes.index(wanted)
    embedder = RegionEmbedder(student, image_size=student.image_size, confidence=confidence, device=device)
    source = DetectionSource(root=Path(), split="photos", class_names=student.class_names, records=tuple(records))
    found = embedder.embed_pool(source)
    choose = _drawn if boxes else _detected
    shown, unclear = [], []
    for index, record in enumerate(records):
        try:
            shown.append(choose(found, index, record, coarse, student.class_names, by_class))
        except PersonalizeError as error:
            unclear.append(str(error))
    if unclear:
        raise PersonalizeError("\n".join(unclear))
    return shown


def _record(photo: Path, box: str | None) -> ImageRecord:
    """The photo with its box, if it has one."""
    if photo.is_dir():
        raise DatasetNotFoundError(f"{photo}: a photo is an image file, found a folder; name the photos in it")
    if not photo.is_file():
        raise DatasetNotFoundError(f"{photo}: a photo is an image file, found none of this name; name one that exists")
    size, problems = inspect_image(photo)
    if size is None:
        raise DatasetError(f"{problems[0].where}: {problems[0].message}")
    width, height = size
    xyxy = xywh_to_xyxy([] if box is None else [_parse_box(box)])
    if (xyxy < 0).any() or (xyxy > [width, height, width, height]).any():
        raise PersonalizeError(
            f"{photo}: a box must lie inside the photo, {width} x {height} pixels when upright, found --box {box}; "
            "write left,top,width,height"
        )
    return ImageRecord(
        path=photo, name=str(photo), width=width, height=height, xyxy=xyxy, class_ids=np.zeros(len(xyxy), np.int64)
    )


def _parse_box(text: str) -> Box:
    """Left, top, width and height of `10,20,30,40` in pixels."""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        x = y = width = height = np.nan
    if not (np.isfinite([x, y, width, height]).all() and width >= 1 and height >= 1):
        raise PersonalizeError(
            f"a box is left,top,width,height in pixels, 1 or more wide and high, found {text!r}; write it as "
            "--box 10,20,30,40"
        )
    return x, y, width, height


def _drawn(
    found: "PoolPass", index: int, record: ImageRecord, coarse: int | None, class_names: Sequence[str], by_class: bool
) -> Shown:
    """The object where the user drew a box; every record has one."""
    here = np.flatnonzero(found.detection_image == index)
    overlap = box_iou(found.detection_xyxy[here], record.xyxy)[:, 0]
    best = np.argsort(-overlap, kind="stable")
    seen = _seen(found, here[best[overlap[best] >= _SAME_OBJECT]])
    if coarse is None:
        if by_class and not seen:
            raise PersonalizeError(
                f"{record.name}: a box has the class of a detection that overlaps it by half or more, found none; name "
                f"it with --class, one of {', '.join(class_names)}"
            )
        coarse = seen[0].coarse if seen else len(class_names)
    left, top, right, bottom = record.xyxy[0].tolist()
    return Shown(
        photo=Path(record.name), xyxy=(left, top, right, bottom), coarse=coarse, seen=seen, confidence=None,
        embedding=found.region_embedding[index], digest=image_digest(record.path),
    )  # fmt: skip


def _detected(
    found: "PoolPass", index: int, record: ImageRecord, coarse: int | None, class_names: Sequence[str], by_class: bool
) -> Shown:
    """The object that the detector found."""
    rows = np.flatnonzero(found.detection_image == index)  # most confident first
    if coarse is not None:
        rows = rows[found.detection_coarse[rows] == coarse]
    if not len(rows):
        what = f"no {class_names[coarse]}" if coarse is not None else "nothing"
        kind = f" and what it is with --class, one of {', '.join(class_names)}" if by_class else ""
        raise PersonalizeError(
            f"{record.name}: the detector finds {what} here; say where the object is with --box left,top,width,height "
            f"(the photo is {record.width} x {record.height} pixels){kind}"
        )
    xyxy, score = found.detection_xyxy[rows], found.detection_score[rows]
    others = (box_iou(xyxy, xyxy[:1])[:, 0] < _SAME_OBJECT) & (score >= _RIVAL * score[0])
    if others.any():
        candidates = [
            f"  --box {','.join(map(str, _xywh(xyxy[row])))}  {class_names[found.detection_coarse[rows[row]]]}, "
            f"confidence {score[row]:.2f}"
            for row in [0, *np.flatnonzero(others)[: _MOST_CANDIDATES - 1]]
        ]
        raise PersonalizeError(
            "\n".join([f"{record.name}: more than one object could be meant; say which with one of", *candidates])
        )
    (own,) = _seen(found, rows[:1])
    return Shown(
        photo=Path(record.name), xyxy=own.xyxy, coarse=own.coarse, seen=(own,), confidence=float(score[0]),
        embedding=own.embedding, digest=image_digest(record.path),
    )  # fmt: skip


def _seen(found: "PoolPass", rows: NDArray[np.integer]) -> tuple[Seen, ...]:
    """These detections."""
    columns = (found.detection_xyxy[rows].tolist(), found.detection_coarse[rows].tolist(), rows.tolist())
    return tuple(
        Seen(xyxy=(left, top, right, bottom), coarse=coarse, embedding=found.detection_embedding[row])
        for (left, top, right, bottom), coarse, row in zip(*columns, strict=True)
    )


def _xywh(xyxy: Sequence[float] | NDArray[np.floating]) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(float(side)) for side in xyxy)
    return left, top, max(right - left, 1), max(bottom - top, 1)
