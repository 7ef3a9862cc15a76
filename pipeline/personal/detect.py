"""What a student finds in images, videos and streams, by the names of a user's objects: frame by frame, and drawn."""

import logging
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocha_pipe.data.images import IMAGE_SUFFIXES
from mocha_pipe.data.names import one_line
from mocha_pipe.pipeline.errors import StageMissingError
from mocha_pipe.pipeline.personal.personalize import PROFILE_FILE

if TYPE_CHECKING:
    from mocha_pipe.student.personal.detector import PersonalDetector
    from mocha_pipe.student.personal.predictor import PersonalResults


@dataclass(frozen=True, kw_only=True)
class FoundObject:
    """One detection."""

    xyxy: tuple[float, ...]
    """Corners in pixels of the image."""
    name: str
    """The personal name, or the coarse class where the object is none of the user's."""
    personal: bool
    coarse: str
    """What the detector says, which need not be what the object was learnt as."""
    confidence: float
    """The detector's, 0..1."""
    certainty: float
    """Of a personal name: the share of strangers that look less like the object, 0..1; 0 without one."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An image, or a frame of a video or stream."""

    source: str
    number: int
    """Counted from 0 within its source."""
    width: int
    height: int
    seconds: float
    """Time that it took, reading and drawing aside."""
    found: tuple[FoundObject, ...]

    def to_json(self) -> dict[str, Any]:
        """What `mocha-pipe detect --json` prints on one line."""
        boxes = [
            {
                "xyxy": [round(side, 2) for side in found.xyxy], "name": found.name, "personal": found.personal,
                "class": found.coarse, "confidence": round(found.confidence, 4), "certainty": round(found.certainty, 4),
            }
            for found in self.found
        ]  # fmt: skip
        told = {"source": self.source, "frame": self.number, "width": self.width, "height": self.height}
        return {**told, "seconds": round(self.seconds, 4), "boxes": boxes}

    def describe(self) -> str:
        """Where it is, and in words what was found: the user's objects with class and certainty, then the others."""
        place = Path(self.source)
        title = one_line(place.name)
        if place.suffix.lower() not in IMAGE_SUFFIXES:
            title += f" frame {self.number}"
        mine = sorted((found for found in self.found if found.personal), key=lambda found: -found.certainty)
        others = Counter(found.name for found in self.found if not found.personal)
        words = [f"{found.name} ({found.coarse}, {found.certainty:.1%})" for found in mine]
        words += [name if count == 1 else f"{count} x {name}" for name, count in others.most_common()]
        return f"{title}: {', '.join(words) or 'nothing'}"


def find_profile(root: Path, named: Path | None) -> Path:
    """The profile that was named, else the one under the root.

    Raises:
        StageMissingError: there is none.
    """
    path = named or root / PROFILE_FILE
    if not path.is_file():
        raise StageMissingError(
            f"{path}: no profile of your objects is there; learn an object with mocha-pipe personalize 'my mug' PHOTO, "
            "or name another file with --profile"
        )
    return path


def detect(
    detector: "PersonalDetector", sources: Sequence[str], save: Path | None = None
) -> Generator[Frame, None, None]:
    """Detect and name, one frame after the other; a camera goes on until nobody asks for the next.

    What cannot be read, among other files, is left out, and a warning at the end says so.

    Args:
        detector: student and profile.
        sources: images, folders, globs and videos, or alone a camera index, the URL of a stream or a list of sources.
        save: folder for a picture of each image and a video of each video or stream. Drawings of an earlier run give
            way to those of the same name; whatever else lies there stays.

    Raises:
        SourceError: a source cannot be read, or nothing in it.
        SavingError: a drawing cannot be written.
    """
    from mocha_pipe.student.personal.media.files import SourceError
    from mocha_pipe.student.personal.media.sources import open_loader
    from mocha_pipe.student.training.resumable import quiet_ultralytics

    drawing: dict[str, Any] = {}
    if save:
        place = save.resolve()
        drawing = {"save": True, "project": str(place.parent), "name": place.name, "exist_ok": True}
    seen: Counter[str] = Counter()
    with quiet_ultralytics(), _warnings_on_stderr():
        loader = open_loader(sources)
        with closing(detector(loader, stream=True, **drawing)) as results:
            for result in results:
                yield _frame(result, seen[result.path])
                seen[result.path] += 1
    if not seen:
        what = sources[0] if len(sources) == 1 else f"{len(sources)} sources"
        raise SourceError(f"{what}: no image in it could be decoded; look at the files, or name others")


def _frame(result: "PersonalResults", number: int) -> Frame:
    boxes = result.boxes
    columns = (boxes.xyxy, boxes.cls, boxes.conf, result.is_personal, result.coarse, result.certainty)
    found = [
        FoundObject(
            xyxy=tuple(xyxy), name=result.names[int(name)], personal=personal, coarse=result.names[int(coarse)],
            confidence=confidence, certainty=certainty,
        )
        for xyxy, name, confidence, personal, coarse, certainty in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]  # fmt: skip
    height, width = result.orig_shape
    seconds = sum(result.speed.values()) / 1000
    return Frame(source=result.path, number=number, width=width, height=height, seconds=seconds, found=tuple(found))


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Send ultralytics' log to stderr: stdout is for the frames alone."""
    from ultralytics.utils import LOGGER

    streams = {handler: handler.stream for handler in LOGGER.handlers if isinstance(handler, logging.StreamHandler)}
    for handler in streams:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in streams.items():
            handler.setStream(stream)
