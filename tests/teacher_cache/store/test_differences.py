from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.regions import RegionTable, recompute_keys
from mocha_pipe.teacher_cache.store.differences import table_differences

CLASS_NAMES = ("mug", "key ring", "plush toy")
BOXES = [(0.0, 0.0, 10.0, 10.0), (5.0, 5.0, 20.0, 25.5), (1.25, 2.5, 30.0, 12.0)]
Region = tuple[int, int]
"""Number of a box and a class id."""
Images = Mapping[str, tuple[int, Sequence[Region]]]
"""By name: a number that stands for the content, and the regions in their order."""


def make_table(images: Images, class_names: tuple[str, ...] = CLASS_NAMES) -> RegionTable:
    names = sorted(images)
    digests = tuple(f"{images[name][0]:032x}" for name in names)
    regions = [(digest, *region) for name, digest in zip(names, digests, strict=True) for region in images[name][1]]
    table = RegionTable(
        class_names=class_names,
        image_names=tuple(names),
        image_digests=digests,
        image_sizes=np.full((len(names), 2), 40, np.int32),
        first_row=np.cumsum([0, *(len(images[name][1]) for name in names)]),
        xyxy=np.array([BOXES[box] for _, box, _ in regions], np.float32).reshape(-1, 4),
        class_ids=np.array([class_id for *_, class_id in regions], np.int32),
        keys=np.zeros(len(regions), "S32"),
    )
    return replace(table, keys=recompute_keys(table))


def reference(cached: Images, expected: Images) -> dict[str, int]:
    """The same counts, one region after the other."""
    counts = dict.fromkeys(("relabelled", "added", "removed"), 0)
    counts["images changed"] = sum(name in expected and cached[name][0] != expected[name][0] for name in cached)
    counts["images added"] = sum(name not in cached for name in expected)
    counts["images removed"] = sum(name not in expected for name in cached)
    for name in cached:
        if name not in expected or cached[name][0] != expected[name][0]:
            continue
        old, new = list(cached[name][1]), list(expected[name][1])
        for region in list(old):  # what is in both goes first
            if region in new:
                old.remove(region)
                new.remove(region)
        for region in list(old):  # then a box that is in both, under another class
            partner = next((other for other in new if other[0] == region[0]), None)
            if partner:
                old.remove(region)
                new.remove(partner)
                counts["relabelled"] += 1
        counts["removed"] += len(old)
        counts["added"] += len(new)
    return counts


def in_words(counts: Mapping[str, int], cached: int, expected: int) -> list[str]:
    nouns = {
        "relabelled": ("region", "regions", "relabelled"),
        "added": ("box", "boxes", "added"),
        "removed": ("box", "boxes", "removed"),
        "images changed": ("image", "images", "changed"),
        "images added": ("image", "images", "added"),
        "images removed": ("image", "images", "removed"),
    }
    phrases = [f"{counts[key]} {nouns[key][counts[key] > 1]} {nouns[key][2]}" for key in nouns if counts[key]]
    here = "1 region" if cached == 1 else f"{cached} regions"
    return [f"{', '.join(phrases)} (cache has {here}, expected {expected})"] if phrases else []


regions = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=5)
data_sets = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 1), regions), max_size=4)


@settings(max_examples=50)
@given(data_sets, data_sets)
def test_counts_equal_a_plain_reference(cached: Images, expected: Images) -> None:
    mine, theirs = make_table(cached), make_table(expected)
    phrases = in_words(reference(cached, expected), len(mine), len(theirs))
    if not phrases and mine.digest != theirs.digest:
        phrases = ["the same regions in another order"]
    assert table_differences(mine, theirs) == phrases


@settings(max_examples=25)
@given(data_sets)
def test_a_table_does_not_differ_from_itself(images: Images) -> None:
    assert table_differences(make_table(images), make_table(dict(reversed(images.items())))) == []


@settings(max_examples=25)
@given(data_sets, data_sets)
def test_the_other_way_round_is_added_for_removed(one: Images, other: Images) -> None:
    there, back = reference(one, other), reference(other, one)
    for name in ("", "images "):
        assert (there[f"{name}added"], there[f"{name}removed"]) == (back[f"{name}removed"], back[f"{name}added"])
    forth = table_differences(make_table(one), make_table(other))
    assert bool(forth) == bool(table_differences(make_table(other), make_table(one)))


def many(count: int) -> dict[str, tuple[int, list[Region]]]:
    return {f"{number:03d}": (number, [(0, 0), (1, 1)]) for number in range(count)}


def test_relabelled_regions_and_changed_images() -> None:
    cached = many(20)
    expected = {**cached, **{name: (cached[name][0], [(0, 2), (1, 0)]) for name in ("000", "003", "004", "010")}}
    expected |= {name: (cached[name][0], [(0, 0), (1, 0)]) for name in ("001", "002", "005", "019")}
    expected |= {name: (999, cached[name][1]) for name in ("007", "008", "009")}
    assert table_differences(make_table(cached), make_table(expected)) == [
        "12 regions relabelled, 3 images changed (cache has 40 regions, expected 40)"
    ]


CASES: dict[str, tuple[Images, Images, str]] = {
    "a relabelled region": (
        {"a": (1, [(0, 0)])},
        {"a": (1, [(0, 1)])},
        "1 region relabelled (cache has 1 region, expected 1)",
    ),
    "a moved box": (
        {"a": (1, [(0, 0), (1, 1)])},
        {"a": (1, [(0, 0), (2, 1)])},
        "1 box added, 1 box removed (cache has 2 regions, expected 2)",
    ),
    "added boxes": (
        {"a": (1, [(0, 0)])},
        {"a": (1, [(1, 0), (0, 0), (2, 2)])},
        "2 boxes added (cache has 1 region, expected 3)",
    ),
    "a removed box": (
        {"a": (1, [(0, 0), (1, 0)])},
        {"a": (1, [(1, 0)])},
        "1 box removed (cache has 2 regions, expected 1)",
    ),
    "one of two equal boxes": (
        {"a": (1, [(0, 0), (0, 0)])},
        {"a": (1, [(0, 0)])},
        "1 box removed (cache has 2 regions, expected 1)",
    ),
    "an image with its boxes": (
        {"a": (1, [(0, 0)])},
        {"a": (1, [(0, 0)]), "b": (2, [(1, 1)])},
        "1 image added (cache has 1 region, expected 2)",
    ),
    "a background image": (
        {"a": (1, []), "b": (2, [])},
        {"a": (1, [])},
        "1 image removed (cache has 0 regions, expected 0)",
    ),
    "a changed image, whatever its boxes": (
        {"a": (1, [(0, 0), (1, 1)])},
        {"a": (2, [(2, 2)])},
        "1 image changed (cache has 2 regions, expected 1)",
    ),
    "boxes in another order": (
        {"a": (1, [(0, 0), (1, 1)])},
        {"a": (1, [(1, 1), (0, 0)])},
        "the same regions in another order",
    ),
}


@pytest.mark.parametrize(("cached", "expected", "words"), CASES.values(), ids=CASES)
def test_words(cached: Images, expected: Images, words: str) -> None:
    assert table_differences(make_table(cached), make_table(expected)) == [words]


def test_class_names_come_first() -> None:
    images = {"a": (1, [(0, 0)])}
    table = make_table(images)
    renamed = make_table(images, ("cup", "key ring", "plush toy"))
    assert table_differences(table, renamed) == [
        "class 0 differs: cache has 'mug', expected 'cup'",
        "1 region relabelled (cache has 1 region, expected 1)",
    ]
    fewer = replace(table, class_names=("mug", "key ring"))
    assert table_differences(table, fewer) == ["class 2 differs: cache has 'plush toy', expected none"]
    assert table_differences(fewer, table) == ["class 2 differs: cache has none, expected 'plush toy'"]


def test_only_the_boxes_of_images_that_differ_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the answer does not take minutes on a million regions."""
    from mocha_pipe.teacher_cache.store import differences

    cached = many(50)
    expected = {**cached, "030": (cached["030"][0], [(0, 0), (1, 2)])}
    counted: list[object] = []
    counter = differences.Counter

    def count(*arguments: object) -> object:
        counted.append(arguments)
        return counter(*arguments)

    monkeypatch.setattr(differences, "Counter", count)
    assert table_differences(make_table(cached), make_table(expected)) == [
        "1 region relabelled (cache has 100 regions, expected 100)"
    ]
    assert len(counted) == 4
