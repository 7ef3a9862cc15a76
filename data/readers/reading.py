"""What every reader returns, and what readers share: problems, image inspection, a guard against climbing out."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from mocha_pipe.data.types import ImageRecord, Problem


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SplitReading:
    """One split as read: the records that are fine and all problems found."""

    root: Path
    """Folder that the names of the records are relative to."""
    split: str
    class_names: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    """Sorted by name."""
    problems: tuple[Problem, ...]


def error(where: str | Path, message: str) -> Problem:
    """A problem that stops every stage."""
    return Problem(severity="error", where=str(where), message=message)


def warning(where: str | Path, message: str) -> Problem:
    """A problem that the reader deals with as the message says."""
    return Problem(severity="warning", where=str(where), message=message)


def name_inside(path: Path, root: Path) -> str | None:
    """POSIX path of a file relative to `root` (a resolved folder), or None where it lies outside, links followed.

    Only the file's folder is resolved: a picture that is itself a link keeps its place.
    """
    folder = _resolved(os.fspath(Path.cwd() / path.parent))
    if not folder.is_relative_to(root):
        return None
    return (folder / path.name).relative_to(root).as_posix()


@functools.lru_cache(maxsize=4096)
def _resolved(folder: str) -> Path:
    return Path(folder).resolve()
