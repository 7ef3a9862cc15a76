"""Which images and videos are named by paths, folders, globs and lists.

A path that exists is meant, whatever its name looks like: `2024`, `screen`, `trip [1]`.
"""

import csv
import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS

from mocha_pipe.data.errors import MochaError, first_line
from mocha_pipe.student.personal.media.loader import LeftOut

_LISTS = {".txt", ".csv"}


class SourceError(MochaError, OSError):
    """What should be looked at cannot be read."""


class _NothingThereError(SourceError):
    """A file or folder is there and holds nothing to look at."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(_cannot_be_read(source, reason))
        self.reason = reason


class Media(NamedTuple):
    """What sources come to."""

    files: list[str]
    """Images and videos as absolute paths, in the order of the sources; of a folder first images, then videos."""
    left_out: list[LeftOut]
    """Sources beside others that hold neither."""


def unreadable(source: object, reason: str) -> SourceError:
    """The error of a source that cannot be opened."""
    return SourceError(_cannot_be_read(source, reason))


def find_media(sources: Sequence[str]) -> Media:
    """The images and videos that paths and globs mean.

    Raises:
        SourceError: one of them does not exist, or none of them holds any.
    """
    return _find(sources, may_list=len(sources) == 1)


def exists(path: Path) -> bool:
    """Whether there is such a file or folder."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no disk takes, or a folder that may not be looked into
        return False


def _find(sources: Sequence[str], *, may_list: bool) -> Media:
    media = Media([], [])
    for source in sources:
        try:
            media.files.extend(_files_of(source, may_list=may_list))
        except _NothingThereError as nothing:
            if len(sources) == 1:
                raise
            media.left_out.append(LeftOut(source, nothing.reason))
    if not media.files:
        reasons = "; ".join(f"{source}: {reason}" for source, reason in media.left_out[:3])
        raise unreadable(f"what {len(sources)} sources name", reasons)
    return media


def _files_of(source: str, *, may_list: bool) -> list[str]:
    if not source.strip():  # which Path takes for the working folder
        raise unreadable(repr(source), "it names nothing; `.` is the working folder")
    path = Path(source).absolute()
    if exists(path):
        if path.is_dir():
            return _in_folder(source, path)
        if path.suffix.lower() in _LISTS and may_list and path.is_file():
            return _find(_listed(source, path), may_list=False).files
        if not _kind(path) or not path.is_file():
            raise _NothingThereError(source, f"No images or videos found in {source}")
        return [str(path)]
    if matches := _matches(source):
        files = [file for match in matches for file in ([match] if match.is_file() else _media_in(match))]
        if found := [str(file) for file in dict.fromkeys(files) if _kind(file)]:
            return found
        raise _NothingThereError(
            source, f"No images or videos found in {source}, which {len(matches)} files or folders match"
        )
    if glob.has_magic(source):
        raise unreadable(source, f"No images or videos found in {source}, which nothing matches")
    raise unreadable(source, f"{source} does not exist")


def _in_folder(source: str, folder: Path) -> list[str]:
    try:
        if found := _media_in(folder):
            return [str(file) for file in found]
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(source, error.strerror or first_line(error)) from error
    if not inside:
        raise _NothingThereError(source, f"No images or videos found in {source}, the folder is empty")
    deeper = [entry.name for entry in inside if entry.is_dir()]
    kinds = Counter(entry.suffix or entry.name for entry in inside if not entry.is_dir())
    words = [f"{len(deeper)} folder{'s' * (len(deeper) > 1)} such as {deeper[0]}"] if deeper else []
    words += [f"{count} {kind}" for kind, count in kinds.most_common(3)]
    raise _NothingThereError(source, f"No images or videos found in {source}, which holds {', '.join(words)}")


def _media_in(folder: Path) -> list[Path]:
    """Of a folder alone, first images, then videos; what begins with a dot is hidden."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file())
    return [entry for kind in ("image", "video") for entry in entries if _kind(entry) == kind]


def _kind(path: Path) -> str | None:
    """`image` or `video` by the file's name, None where it is neither."""
    suffix = path.suffix[1:].lower()
    return "image" if suffix in IMG_FORMATS else "video" if suffix in VID_FORMATS else None


def _matches(pattern: str) -> list[Path]:
    """What a glob means. Its parts that exist are names: `trip [1]/*.jpg` looks into the folder `trip [1]`."""
    path = Path(pattern)
    fixed, rest = Path(path.anchor), list(path.parts[1 if path.anchor else 0 :])
    while rest and exists(fixed / rest[0]):
        fixed /= rest.pop(0)
    literal = [part.replace("[", "[[]") for part in rest]
    for parts in (rest, literal):  # in `trip [1]*` a bracket is part of a name
        pattern = str(Path(*parts)) if parts else ""
        named = glob.glob(pattern, root_dir=fixed, recursive=True)  # noqa: PTH207  (Path's begins at a folder)
        if found := [path for name in sorted(named) if exists(path := (fixed / name).absolute())]:
            return found
    return []


def _listed(source: str, path: Path) -> list[str]:
    """Sources that a file lists, relative to the working folder, or else to that of the file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(source, first_line(error)) from error
    if path.suffix.lower() == ".csv":
        rows = list(csv.reader(lines))
        lines = [field for row in rows[rows[:1] == [["source"]] :] for field in row]
    sources = [line.strip() for line in lines if line.strip()]
    if not sources:
        raise _NothingThereError(source, f"No images or videos found in {source}, the list is empty")
    return [each if exists(Path(each)) or _matches(each) else str(path.parent / each) for each in sources]


def _cannot_be_read(source: object, reason: str) -> str:
    return (
        f"{source} cannot be read ({reason}): name an image, a folder or a glob of images, a video, the index of a "
        "camera or the URL of a stream"
    )
