"""What a COCO json holds, as many tools write it: lists of images, annotations and categories, and their ids."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from posixpath import normpath
from typing import Any, NamedTuple
from urllib.parse import unquote

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.names import one_spelling
from mocha_pipe.data.parsing import is_text, parse_json, shown
from mocha_pipe.data.readers.class_names import differ_in_capitals
from mocha_pipe.data.types import Problem, error, warning

_WHOLE = re.compile(r"-?[0-9]{1,40}(\.0+)?")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://(?:[^/@]*@)?([^?#]*)", re.IGNORECASE)  # not what may be a password, nor a token
_LISTS = (
    ({"image_id", "bbox", "score"}, "a list of a detector's results"),
    ({"image", "annotations"}, "a CreateML json"),
    ({"data"}, "Label Studio's own json"),
)
_MAPS = (
    ({"shapes"}, "a labelme json of one image"),
    ({"_via_img_metadata"}, "a project of VIA"),
    ({"items", "categories"}, "Datumaro's own json"),
    ({"samples"}, "FiftyOne's own json"),
    ({"size", "objects"}, "Supervisely's own json of one image"),
)
_BOXLESS = (
    ("segments_info", "a panoptic json, whose annotations are segments"),
    ("caption", "a captions json, whose annotations are sentences"),
)


class CocoContent(NamedTuple):
    """The three lists."""

    images: list[Any]
    annotations: list[Any]
    categories: list[Any]


class Categories(NamedTuple):
    """The classes of one json, in the order of their categories' ids."""

    class_of: dict[int, int]
    """Id of a category -> index of its name."""
    names: tuple[str, ...]
    problems: tuple[Problem, ...]


def load_content(file: Path) -> CocoContent:
    """The lists of a COCO detection json.

    Raises:
        DatasetError: It is no json, or another kind of json, which is named where it is known.
    """
    packed = file.read_bytes()
    if packed[:2] == b"\x1f\x8b":
        raise DatasetError(f"{file}: is compressed with gzip; unpack it: gunzip -c IN > OUT.json")
    try:
        content = parse_json(packed)
    except ValueError as reason:
        raise DatasetError(f"{file}: is not valid JSON ({reason}); export it again") from None
    if other := _other_kind(content):
        raise DatasetError(f"{file}: is {other}; export it as COCO detection, which has boxes (instances_*.json)")
    lists = {}
    for key in CocoContent._fields:
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list):
            raise DatasetError(f"{file}: COCO json needs the list '{key}', found none; export it as COCO detection")
        lists[key] = found
    return CocoContent(**lists)


def _other_kind(content: object) -> str | None:
    """What a json is called that is no COCO detection json, where that can be told."""
    known, entry = (_LISTS, _first(content)) if isinstance(content, list) else (_MAPS, content)
    if not isinstance(entry, dict):
        return None
    if isinstance(entry.get("images"), list):  # COCO of one kind or another
        if "annotations" not in entry:
            return "an image-info json, which has images and no annotations"
        annotation = _first(entry["annotations"])
        if not isinstance(annotation, dict) or annotation.get("bbox"):
            return None
        return next((name for key, name in _BOXLESS if key in annotation), None)
    if entry and all(isinstance(one, dict) and "regions" in one for one in entry.values()):
        return "a json of VIA, as makesense.ai writes it too"
    return next((name for keys, name in known if keys <= entry.keys()), None)


def _first(entries: object) -> object:
    return entries[0] if isinstance(entries, list) and entries else None


def whole_number(value: object) -> int | None:
    """An id as a number where it is one: also 1.0, as pandas writes it, and '1'."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def read_id(entry: Mapping[str, Any], key: str, known: Collection[int] | None = None, within: str = "") -> int | str:
    """The number under a key, or what is wrong with it.

    Args:
        entry: Of one of the lists.
        key: Such as `image_id`.
        known: Where given, the number must be one of these.
        within: The list that has these.
    """
    if (number := whole_number(entry.get(key))) is None:
        return f"{key} must be a whole number, found {shown(entry.get(key))}"
    if known is not None and number not in known:
        return f"{key} {number} is not in '{within}'"
    return number


def read_categories(file: Path, content: CocoContent) -> Categories:
    """The classes of a json. Categories of one name are one class if no more than one of them is in use.

    Raises:
        DatasetError: There is none, one has no number or no name, or two share their number or name.
    """
    names: dict[int, str] = {}
    spelt: dict[str, str] = {}
    for entry in content.categories:
        number = whole_number(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not is_text(entry.get("name")):
            rule = "a category is {'id': whole number, 'name': text}"
            raise DatasetError(f"{file}: {rule}, found {shown(entry)}; mend it")
        if number in names:
            raise DatasetError(f"{file}: category id {number} is there twice; give each category an id of its own")
        names[number] = spelt.setdefault(one_spelling(entry["name"].strip()), entry["name"])
    if not names:
        raise DatasetError(f"{file}: 'categories' is empty; add one {{'id': 1, 'name': ...}} per class")
    ordered = tuple(dict.fromkeys(names[number] for number in sorted(names)))
    problems = differ_in_capitals(file, ordered)
    if len(ordered) < len(names):
        used = {whole_number(entry.get("category_id")) for entry in content.annotations if isinstance(entry, dict)}
        problems += [_same_name(file, name, names, used) for name in ordered if [*names.values()].count(name) > 1]
    index = {name: number for number, name in enumerate(ordered)}
    return Categories({number: index[name] for number, name in names.items()}, ordered, tuple(problems))


def _same_name(file: Path, name: str, names: Mapping[int, str], used: Collection[int | None]) -> Problem:
    """The warning of categories that have one name, as where an exporter adds one for the whole project.

    Raises:
        DatasetError: Several of them have annotations.
    """
    ids = [number for number in sorted(names) if names[number] == name]
    both = f"categories {' and '.join(map(str, ids))} are all called {shown(name)}"
    if len([number for number in ids if number in used]) > 1:
        raise DatasetError(f"{file}: {both}; give each a name of its own")
    return warning(file, f"{both} and are taken for one class, as only one of them is in use")


class Entries(NamedTuple):
    """The usable entries of 'images', and what is wrong with the others."""

    images: dict[int, Mapping[str, Any]]
    """By id; their `file_name` is in POSIX form."""
    refused: set[int]
    """Ids of the others, as far as they have one."""
    problems: list[Problem]


def read_images(file: Path, entries: list[Any]) -> Entries:
    """Image entries where each is the only one of its id and name."""
    images: dict[int, Mapping[str, Any]] = {}
    refused = set[int]()
    problems = []
    names = set[str]()
    for index, entry in enumerate(entries):
        found = _read_image(entry)
        if isinstance(found, str):
            wrong = found
        else:
            number, name = found
            if number not in images and name not in names:
                images[number] = {**entry, "file_name": name}
                names.add(name)
                continue
            twice = f"id {number}" if number in images else f"file_name {shown(name)}"
            wrong = f"image {twice} is there twice; keep one entry per image"
        problems.append(error(f"{file}: images[{index}]", wrong))
        if isinstance(entry, dict) and (known := whole_number(entry.get("id"))) is not None:
            refused.add(known)
    return Entries(images, refused, problems)


def _read_image(entry: Any) -> tuple[int, str] | str:
    """Id and file name of an entry, or what is wrong with it. LVIS has a URL whose last two parts are the name.

    Of a `file_name` that is a URL host and path remain.
    """
    if not isinstance(entry, dict) or "id" not in entry:
        return f"an image is {{'id': whole number, 'file_name': path}}, found {shown(entry)}; mend it"
    name = entry.get("file_name")
    if name is None and isinstance(entry.get("coco_url"), str):
        name = "/".join(entry["coco_url"].split("/")[-2:])
    if not is_text(name):
        return f"an image is {{'id': whole number, 'file_name': path}}, found {shown(entry)}; mend it"
    number = read_id(entry, "id")
    if isinstance(number, str):
        return f"{number}; mend it"
    if url := _URL.match(str(name)):
        name = unquote(url[1])
        if not is_text(name):
            return f"an image is {{'id': whole number, 'file_name': path}}, found {shown(url[1])}; mend it"
    return number, normpath(str(name).replace("\\", "/"))
