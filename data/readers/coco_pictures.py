"""Where the pictures of a COCO json lie: beside it as tools lay them out, at absolute paths, or under other folders."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice, product
from pathlib import Path
from posixpath import isabs
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import unquote

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.parsing import shown
from mocha_pipe.data.types import Problem, error, warning

_MOST_ASKED = 100  # pictures that are looked for in every folder that happens to lie beside the json
_MOST_PARTS = 4  # that are kept of a name whose first parts lead elsewhere
# %20 of a browser is a space on disk, and an accent that was typed on a Mac is two characters there.
_SPELLINGS: tuple[Callable[[str], str], ...] = (str, unquote, partial(normalize, "NFC"), partial(normalize, "NFD"))


class Pictures(NamedTuple):
    """The folder of the pictures, and what they are called there."""

    folder: Path
    """Resolved."""
    names: dict[int, str]
    """POSIX path below the folder, by the image's id; whether the file is there remains to be seen."""
    problems: list[Problem]


def split_of_coco_file(file: Path) -> str:
    """Split in a file name: instances_train2017.json -> train2017."""
    return file.stem.rsplit("_", 1)[-1]


def find_pictures(file: Path, written: Mapping[int, str]) -> Pictures:
    """Find the folder that a json's `file_name`s start from.

    Tried in this order, and the first that finds a picture is it: the names below one of `_places`, or below the only
    folder beside them that has one; names that are absolute paths; the last parts of the names, as far as these tell
    all pictures apart, below one of `_places`, as written or in one of `_SPELLINGS`.

    Args:
        file: The json.
        written: `file_name` with `/`, by the image's id; one or more.

    Raises:
        DatasetNotFoundError: No picture is there.
        DatasetError: Several folders beside the json have one.
    """
    places = [*dict.fromkeys(_places(file))]
    below = {number: name for number, name in written.items() if not _leads_elsewhere(name)}
    if (folder := _holding(places, below.values()) or _only_folder(file, places, below.values())) is not None:
        outside = [name for number, name in written.items() if number not in below]
        rule = "leaves the image folder; write a path inside it"
        return Pictures(folder, below, [error(file, f"file_name {shown(name)} {rule}") for name in outside])
    if there := {number: name for number, name in written.items() if isabs(name) and os.path.isfile(name)}:  # noqa: PTH113
        return _at_absolute_paths(file, written, there)
    for kept, spell in product(range(_MOST_PARTS, 0, -1), _SPELLINGS):
        tails = {number: _tail(spell(name), kept) for number, name in written.items()}
        unique = len(set(tails.values())) == len(tails)
        if unique and (folder := _holding(places, tails.values())) is not None:
            return Pictures(folder, tails, [_moved(file, written, tails, folder)])
    name, here = shown(next(iter(written.values()))), file.parent.resolve()
    *folders, last = ("images", "data", *_folders_of_split(file))
    looked = f"looked in {here} and {here.parent}, and there in {', '.join(folders)} and {last}"
    raise DatasetNotFoundError(
        f"{file}: none of {len(written)} images found, such as {name}, {looked}; put them in one of these"
    )


def spelt_on_disk(folder: Path, name: str, taken: Collection[str]) -> str:
    """A name as the file is called that is there: as written, or spelt otherwise where no other image is called so."""
    names = (spell(name) for spell in _SPELLINGS)
    there = (one for one in names if (one == name or one not in taken) and os.path.isfile(folder / one))  # noqa: PTH113
    return next(there, name)


def _places(file: Path) -> Iterator[Path]:
    """Folders in which tools put the pictures of a json, those of the json's own split before those of all splits."""
    here, names = file.parent.resolve(), _folders_of_split(file)
    yield from (here, here / "images", here / "data")
    yield from (root / name for root in (here.parent, here) for name in names)
    yield from (here.parent / "images", here.parent / "data", here.parent)


def _folders_of_split(file: Path) -> list[str]:
    """What tools call the folder of one split, by the words in the json's name."""
    words = [split_of_coco_file(file), *re.split(r"[_.-]", file.stem)]
    splits = [word for word in dict.fromkeys(words) if word]
    return [f"{above}{split}" for split in splits for above in ("", "images/", "data/")]


def _leads_elsewhere(name: str) -> bool:
    return name == ".." or name.startswith(("../", "/"))


def _holding(places: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first folder that holds one of the names, resolved."""
    names = list(names)
    for place in places:
        # Not by pathlib, for which a name that is too long, or a folder that is locked, is an error.
        if os.path.isdir(place) and any(os.path.isfile(place / name) for name in names):  # noqa: PTH112, PTH113
            return place.resolve()
    return None


def _only_folder(file: Path, places: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The one folder beside the json, or beside its folder, that holds one of the names.

    Raises:
        DatasetError: There are several.
    """
    names, here = [*islice(names, _MOST_ASKED)], file.parent.resolve()
    for parent in (here, here.parent):
        try:
            beside = sorted(parent / name for name in os.listdir(parent) if not name.startswith("."))  # noqa: PTH208
        except OSError:
            continue
        found = [place for place in beside if place not in places and _holding([place], names) is not None]
        if len(found) > 1:
            both = f"pictures of this json lie in {found[0]} and in {found[1]}"
            raise DatasetError(f"{file}: {both}; put the json beside its own")
        if found:
            return found[0].resolve()
    return None


def _at_absolute_paths(file: Path, written: Mapping[int, str], there: Mapping[int, str]) -> Pictures:
    """Pictures at absolute paths, below the folder that all of them share."""
    folder = Path(os.path.commonpath([Path(name).parent for name in there.values()]))
    names = {number: Path(name).relative_to(folder).as_posix() for number, name in there.items()}
    problems = []
    if lacking := [name for number, name in written.items() if number not in there]:
        count = f"{len(lacking)} of {len(written)} images are missing, the first is {shown(lacking[0])}"
        problems = [error(file, f"{count}, while others have absolute paths; put them there")]
    return Pictures(folder.resolve(), names, problems)


def _tail(name: str, kept: int) -> str:
    """The last parts of a name."""
    return "/".join([part for part in name.split("/") if part not in ("", "..")][-kept:])


def _moved(file: Path, written: Mapping[int, str], tails: Mapping[int, str], folder: Path) -> Problem:
    number, name = next((number, name) for number, name in written.items() if name != tails[number])
    return warning(
        file, f"file_name leads elsewhere, such as {shown(name)}; taken for {shown(tails[number])} in {folder}"
    )
