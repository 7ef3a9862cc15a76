"""What the packages hand to each other: images with boxes, personal benchmarks, problems, distillation targets."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.errors import in_print
from mocha_pipe.data.files import bytes_digest


class ImageFile(Protocol):
    """What holds an image's bytes: a path, or a member of a tar (data/shards/tars.py)."""

    @property
    def suffix(self) -> str:
        """Such as `.jpg`."""
        ...

    def read_bytes(self) -> bytes:
        """The bytes."""
        ...

    def __fspath__(self) -> str:
        """What messages call the file."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageRecord:
    """One image and its ground-truth boxes."""

    path: ImageFile
    """The image file, or its place in a tar."""
    name: str
    """POSIX path relative to the source's root, `printable`; unique within a source."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    xyxy: NDArray[np.float64]  # (n, 4)
    """Corners in pixels, x right and y down, clipped to the image."""
    class_ids: NDArray[np.int64]  # (n,)
    """Index into the source's class names."""
    readable: bool = True
    """False where the file is there but cannot be decoded; its size is then 1 x 1 where nothing else tells it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something in a data set that breaks a rule or deserves a look; made by `error` and `warning`."""

    severity: Literal["error", "warning"]
    where: str
    """File, and line or field where known."""
    message: str
    """One line: rule, what was found, remedy."""
    unreadable: bool = False
    """Whether the problem is an image file that is there and cannot be decoded."""


def error(where: object, message: str, *, unreadable: bool = False) -> Problem:
    """A problem that stops every stage."""
    return Problem(severity="error", where=in_print(where), message=in_print(message), unreadable=unreadable)


def warning(where: object, message: str) -> Problem:
    """A problem that the reader deals with as the message says."""
    return Problem(severity="warning", where=in_print(where), message=in_print(message))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DetectionSource:
    """One split of a detection data set."""

    root: Path
    """Folder that the names of the records are relative to."""
    split: str
    class_names: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    """Sorted by name."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the split. A reader returns errors too; a source that `open_source` returned has none."""

    @property
    def num_regions(self) -> int:
        """Ground-truth boxes over all images."""
        return sum(len(record.class_ids) for record in self.records)

    def fingerprint(self) -> str:
        """Digest of class names, image names and sizes, boxes (1/100 px) and class ids; image content is not read."""
        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=16)
        for record in self.records:
            digest.update(f"{record.name} {record.width} {record.height} ".encode())
            digest.update(np.rint(record.xyxy * 100).astype("<i8").tobytes())
            digest.update(record.class_ids.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedEpisode:
    """One draw of support and query as a benchmark's authors made it; indexes of records.

    Its repr enters `PersonalBenchmark.fingerprint`, so the names of class and fields must stay.
    """

    train: tuple[int, ...]
    """Support images in the authors' order; every object is in as many as the episode has shots, or more."""
    val: tuple[int, ...]
    """Query images; none of them is a support image."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PersonalBenchmark:
    """Scenes with personal objects ("my mug") that a detector knows only as a coarse class ("mug").

    Legend: P = personal objects.
    """

    name: str
    source: DetectionSource
    """Class names and ids are the personal objects."""
    coarse_names: tuple[str, ...]
    """Classes that a detector must know, at least."""
    coarse_of: NDArray[np.int64]  # (P,)
    """Index into `coarse_names` per personal object."""
    by_name: frozenset[int] = frozenset()
    """Objects whose coarse class nobody said: it is the longest class name of the detector that ends the object's name,
    and `coarse_of` has its last word until a detector is known."""
    support: tuple[tuple[int, ...], ...] | None = None
    """Per object the records that may be support images; where None, every record that shows the object."""
    query: tuple[int, ...] | None = None
    """Records that may be query images; where None, every record."""
    published: Mapping[int, tuple[PublishedEpisode, ...]] = field(default_factory=dict)
    """Shots -> the authors' own episodes, which are taken in place of seeded ones."""
    notes: tuple[str, ...] = ()
    """What a reader of the benchmark's figures should know."""

    def fingerprint(self) -> str:
        """Digest of labels, coarse classes, possible support and query, and episodes; image content is not read."""
        episodes = sorted((shots, *drawn) for shots, drawn in self.published.items())
        parts = (self.source.fingerprint(), self.coarse_names, self.coarse_of.tolist(), self.support, self.query)
        guessed = (sorted(self.by_name),) if self.by_name else ()
        return bytes_digest(repr((*parts, episodes, *guessed)).encode())


class RegionTargets(Protocol):
    """Distillation targets of regions, looked up by row of a region table."""

    dim: int
    """Width of a target."""
    set_aside: NDArray[np.int64]
    """Rows that have no target (their image could not be embedded), ascending."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:  # (n,) -> (n, dim)
        """Targets of the given rows, in their order."""
        ...
