"""What differs between two region tables, in plain words: images first, then the boxes of those that are the same."""

from collections import Counter
from itertools import zip_longest

import numpy as np

from mocha_pipe.data.regions import RegionTable


def table_differences(cached: RegionTable, expected: RegionTable) -> list[str]:
    """How the table of a cache departs from the expected one; empty when they hold the same regions in one order.

    Images are matched by name, boxes of an unchanged image by their place. Only images that differ are looked into.
    """
    phrases = _class_differences(cached.class_names, expected.class_names)
    mine = {name: index for index, name in enumerate(cached.image_names)}
    theirs = {name: index for index, name in enumerate(expected.image_names)}
    common = [(mine[name], theirs[name]) for name in mine.keys() & theirs.keys()]
    changed = [pair for pair in common if cached.image_digests[pair[0]] != expected.image_digests[pair[1]]]
    boxes = np.zeros(3, np.int64)
    for pair in set(common) - set(changed):
        boxes += _box_differences(cached, expected, *pair)
    relabelled, added, removed = boxes.tolist()
    counted = [
        (relabelled, "region", "relabelled"),
        (added, "box", "added"),
        (removed, "box", "removed"),
        (len(changed), "image", "changed"),
        (len(theirs.keys() - mine.keys()), "image", "added"),
        (len(mine.keys() - theirs.keys()), "image", "removed"),
    ]
    found = [f"{number} {_plural(noun, number)} {what}" for number, noun, what in counted if number]
    if found:
        here = f"{len(cached)} {_plural('region', len(cached))}"
        phrases.append(f"{', '.join(found)} (cache has {here}, expected {len(expected)})")
    elif not phrases and cached.keys.tolist() != expected.keys.tolist():
        phrases.append("the same regions in another order")
    return phrases


def _box_differences(cached: RegionTable, expected: RegionTable, mine: int, theirs: int) -> tuple[int, int, int]:
    """How many boxes of one image that both tables hold were relabelled, added and removed."""
    here = slice(cached.first_row[mine], cached.first_row[mine + 1])
    there = slice(expected.first_row[theirs], expected.first_row[theirs + 1])
    if cached.keys[here].tobytes() == expected.keys[there].tobytes():
        return 0, 0, 0
    old, new = (
        Counter(
            (*box, table.class_names[class_id])
            for box, class_id in zip(table.xyxy[rows].tolist(), table.class_ids[rows].tolist(), strict=True)
        )
        for table, rows in ((cached, here), (expected, there))
    )
    gone = Counter(box[:4] for box in (old - new).elements())
    come = Counter(box[:4] for box in (new - old).elements())
    both = (gone & come).total()
    return both, come.total() - both, gone.total() - both


def _class_differences(cached: tuple[str, ...], expected: tuple[str, ...]) -> list[str]:
    for class_id, (name, other) in enumerate(zip_longest(cached, expected)):
        if name != other:
            return [f"class {class_id} differs: cache has {_quoted(name)}, expected {_quoted(other)}"]
    return []


def _quoted(name: str | None) -> str:
    return "none" if name is None else repr(name)


def _plural(noun: str, number: int) -> str:
    if number == 1:
        return noun
    return f"{noun}es" if noun.endswith("x") else f"{noun}s"
