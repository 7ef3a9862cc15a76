"""Names of classes: texts that can be told apart, and one list for splits that list them differently."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.names import one_spelling
from mocha_pipe.data.parsing import is_text, shown, texts_of_yaml
from mocha_pipe.data.types import DetectionSource, Problem, warning


def check_names(file: Path, names: Sequence[object], key: str = "names") -> tuple[str, ...]:
    """The class names under a key of a data.yaml, if each can be told from the others.

    Raises:
        DatasetError: One is empty or no text that can be written, or two are equal.
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if not isinstance(name, str) or not is_text(name):
            rule = "be free of control characters" if isinstance(name, str) and name.strip() else "be a text"
            found = f"the name of class {number} in '{key}:' must {rule}, found {shown(name)}"
            raise DatasetError(f"{file}: {found}; give it one")
        if (before := first.setdefault(one_spelling(name.strip()), number)) != number:
            twice = f"classes {before} and {number} are both called {shown(name)} in '{key}:'"
            raise DatasetError(f"{file}: {twice}; give each a name of its own")
    return tuple(map(str, names))


def differ_in_capitals(file: Path, names: Sequence[str]) -> list[Problem]:
    """A warning of each class whose name is that of another but for capitals: exports of several projects have them."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(one_spelling(name.strip()).casefold(), name), name) for name in names]
    rule = "differ in capitals alone; where they are one thing, make them one class"
    return [warning(file, f"classes {shown(one)} and {shown(two)} {rule}") for one, two in pairs if one != two]


def names_as_written(file: Path, names: Mapping[object, object], key: str = "names") -> list[object]:
    """The names under a key of a data.yaml, where yaml took some for something else than text: 7 is '7' again.

    Raises:
        DatasetError: One would be another text than is written, as yes (True), 007 (7) or an unquoted nothing.
    """
    if all(isinstance(name, str) for name in names.values()):
        return list(names.values())
    written = texts_of_yaml(file)[key]
    texts = list(written.values() if isinstance(written, dict) else written)
    if len(texts) != len(names):  # keys that yaml merged
        texts = [None] * len(names)
    for (number, name), text in zip(names.items(), texts, strict=True):
        if isinstance(name, list | dict):
            raise DatasetError(
                f"{file}: name {shown(number)} of '{key}:' must be a text, found {shown(name)}; write one"
            )
        if not isinstance(name, str) and shown(name) != text:
            told = "" if text is None else f" ({text or 'nothing'})"
            read = f"yaml reads name {shown(number)} of '{key}:'{told} as {shown(name)}"
            raise DatasetError(f"{file}: the name of a class must be a text, but {read}; write it in quotes")
    return [name if isinstance(name, str) else shown(name) for name in names.values()]


def widest_names(lists: Mapping[Path, tuple[str, ...]]) -> tuple[str, ...]:
    """The names of the split that has those of all others too.

    Raises:
        DatasetError: There is no such split.
    """
    widest = max(lists, key=lambda file: len(lists[file]))
    for file, names in lists.items():
        if missing := sorted(set(names) - set(lists[widest])):
            here, there = shown(missing), shown(sorted(set(lists[widest]) - set(names)))
            raise DatasetError(
                f"{file}: the splits must have the same categories: {here} are here alone, {there} are in "
                f"{widest} alone; make the categories of both json equal"
            )
    return lists[widest]


def with_names(source: DetectionSource, names: tuple[str, ...], file: Path, *, listed: str) -> DetectionSource:
    """A split that has some of a data set's classes, with the ids of them all.

    Args:
        source: As a reader returned it.
        names: Classes of the data set as a whole.
        file: What the split was read from.
        listed: Where the names are listed, and after a semicolon how that can be mended; for errors.

    Raises:
        DatasetError: The split has a class that is not among them.
    """
    if source.class_names == names:
        return source
    place, _, remedy = listed.rpartition("; ")
    if not set(source.class_names) <= set(names):
        differ = f"categories {shown(list(source.class_names))} differ from {place} {shown(list(names))}"
        raise DatasetError(f"{file}: {differ}; {remedy}")
    ids = np.array([names.index(name) for name in source.class_names], np.int64)
    mapped = f"categories {shown(list(source.class_names))} are mapped by name to {shown(list(names))} of {place}"
    return replace(
        source,
        class_names=names,
        records=tuple(replace(record, class_ids=ids[record.class_ids]) for record in source.records),
        problems=(*source.problems, warning(file, mapped)),
    )
