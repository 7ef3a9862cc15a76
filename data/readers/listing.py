"""Images that the splits of a data.yaml name: those below folders, and those in list files.

An image keeps the path on which it was found, as for ultralytics: its label file is looked for beside that path, also
where a folder on the way is a link.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mocha_pipe.data.errors import DatasetError, printable
from mocha_pipe.data.images import IMAGE_SUFFIXES
from mocha_pipe.data.readers.layout import YoloLayout, is_windows_path, with_slashes
from mocha_pipe.data.types import Problem, error, warning

_DEEP = 8  # folders that may stand before the part of an entry which is there
_SHOWN = 300  # characters of a path that a list names
_NOT_LABELS = {"classes.txt", "train.txt", "val.txt", "test.txt"}  # which tools write beside label files


class FoundImages(NamedTuple):
    """Images that a split names."""

    root: Path
    """The layout's root, or where images lie outside it, the folder that holds both."""
    images: dict[str, Path]
    """By their names below the root."""
    problems: list[Problem]


def find_images(layout: YoloLayout, split: str) -> FoundImages:
    """Images of the split, and what is wrong with its list files.

    Raises:
        DatasetNotFoundError, DatasetError: As `YoloLayout.places`, or a list file is no text.
    """
    problems: list[Problem] = []
    paths: dict[str, None] = {}
    repeated: list[str] = []
    for place in layout.places(split):
        if place.is_dir():
            found: Iterable[str] = map(str, walk_images(place))
        else:
            listed, missing = _read_list(place)
            found = (_inside(path, layout.root) for path in listed)
            problems += missing
        for path in found:
            if path in paths:
                repeated.append(path)
            paths[path] = None
    if repeated:
        count = f"{len(repeated)} image{'s are' if len(repeated) > 1 else ' is'} listed more than once"
        first = os.path.relpath(repeated[0], layout.root)
        problems.append(warning(f"{layout.file}: {split}", f"{count} and used once, the first is {first}"))
    root = layout.root
    if not all(_is_below(path, root) for path in paths):
        root = Path(os.path.commonpath([str(root), *{os.path.dirname(path) for path in paths}]))  # noqa: PTH120
    above = len(os.path.join(root, ""))  # noqa: PTH118
    images = {printable(path[above:].replace(os.sep, "/")): Path(path) for path in paths}
    return FoundImages(root, images, problems)


def walk_images(folder: Path) -> Iterator[Path]:
    """Images below a folder, as ultralytics' glob sees them: links are followed, hidden files and folders are not.

    A link is not followed back into a folder on the way to it.
    """
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not _leads_back(folder, parent, name)]
        for name in files:
            if not name.startswith(".") and _has_image_suffix(name):
                yield Path(parent, name)


def unread_labels(folder: Path, read: Collection[str]) -> list[str]:
    """Label files below a folder that are not empty and belong to no image; `read` are those that do."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (os.path.join(parent, name) for name in files if name.endswith(".txt") and name not in _NOT_LABELS)  # noqa: PTH118
        unread = [path for path in paths if path not in read and not os.path.basename(path).startswith(".")]  # noqa: PTH119
        found += [path for path in unread if os.path.isfile(path) and os.path.getsize(path)]  # noqa: PTH113, PTH202
    return found


def _leads_back(top: Path, parent: str, name: str) -> bool:
    """Whether a folder is a link to one that the walk came through, or to what holds that."""
    link = Path(parent, name)
    if not link.is_symlink():
        return False
    target = link.resolve()
    way = [place for place in (link.parent, *link.parent.parents) if place.is_relative_to(top)]
    return any(place.resolve().is_relative_to(target) for place in way)


def _read_list(file: Path) -> tuple[list[str], list[Problem]]:
    """Images that a list file names, as absolute paths, and a problem where some are not there.

    `./` is the list's folder; other relative entries start at the working folder.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: is no list of image paths in UTF-8; name a folder or a .txt list") from None
    paths, missing, others = [], [], list[tuple[int, str]]()
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not _has_image_suffix(entry):
            others += [(number, entry)] if entry and not entry.startswith("#") else []
            continue
        for written in dict.fromkeys((entry, with_slashes(entry))):
            start = file.parent if written.startswith("./") else Path.cwd()
            path = os.path.normpath(os.path.join(start, written))  # noqa: PTH118
            if os.path.exists(path):  # noqa: PTH110
                paths.append(path)
                break
        else:
            missing.append((number, entry, path))
    problems = [_no_images(file, others, is_all=not paths and not missing)] if others else []
    if not missing:
        return paths, problems
    count = f"{len(missing)} of {len(missing) + len(paths)} images are not there"
    number, entry, looked = missing[0]
    remedy = _remedy(file, entry, looked, set(paths))
    return paths, [*problems, error(f"{file}:{number}", f"{count}, the first is '{entry[:_SHOWN]}', {remedy}")]


def _no_images(file: Path, lines: list[tuple[int, str]], *, is_all: bool) -> Problem:
    """Lines that `yolo train` passes over without a word: an error where there are no others."""
    number, entry = lines[0]
    found = f"{len(lines)} line{'s end' if len(lines) > 1 else ' ends'} in no suffix of an image"
    left = f"{found} and {'are' if len(lines) > 1 else 'is'} left out, the first is '{entry[:_SHOWN]}'"
    told = f"{left}; a line is the path of one image and nothing else, such as ./images/a.jpg"
    return (error if is_all else warning)(f"{file}:{number}", told)


def _remedy(file: Path, entry: str, looked: str, listed: Collection[str]) -> str:
    """Where an entry of a list was looked for, and a remedy that was tried on it."""
    if is_windows_path(entry):
        return "a path of another machine, which runs Windows; write where the pictures lie on this one"
    rule = "" if entry.startswith((".", "/")) else "; entries without './' start at the working folder"
    parts = with_slashes(entry).removeprefix("./").split("/")
    beside = ("/".join(parts[skipped:]) for skipped in range(min(len(parts), _DEEP)))
    unlisted = (path for path in beside if path and os.path.normpath(file.parent / path) not in listed)
    there = next((path for path in unlisted if os.path.exists(file.parent / path)), None)  # noqa: PTH110
    remedy = f"write './{there}', and the others alike" if there else "put them there or remove them from the list"
    return f"looked for {looked[:_SHOWN]}{rule}; {remedy}"


def _inside(path: str, root: Path) -> str:
    """The path of a list's entry, below the root where links lead there."""
    if _is_below(path, root):
        return path
    folder, name = os.path.split(path)
    resolved = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
    return resolved if _is_below(resolved, root) else path


def _is_below(path: str, root: Path) -> bool:
    return path.startswith(os.path.join(root, ""))  # noqa: PTH118


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
