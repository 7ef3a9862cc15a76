"""Names: one spelling for what looks alike, and one part of a path whatever they hold."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocha_pipe.data.names import as_typed, file_part, is_shown, longest_ending, one_line, one_spelling


def test_one_spelling() -> None:
    assert one_spelling("cafe\u0301") == one_spelling("caf\u00e9") == "caf\u00e9"


def test_what_is_shown() -> None:
    assert is_shown("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 我的 👩\u200d👧 её")
    assert not any(map(is_shown, ("a\n", "\x1b[31m", "\u202egpj.exe", "\ud800", "a\tb")))


@pytest.mark.parametrize("name", ["my mug", "Anna's mug", "café", "我的杯子", "mug [1]", ".5 litres"[1:]])
def test_most_names_stay_as_they_are(name: str) -> None:
    assert file_part(name) == name


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc", "..", ".", "", ".hidden", "a/b", "a\\b", "con", "NUL.txt", "c:x", "x" * 300, "é" * 300, "a\0b"],
)
def test_others_become_one_part_of_a_path(name: str, tmp_path: Path) -> None:
    part = file_part(name)
    made = tmp_path / part
    made.mkdir()
    assert made.resolve().parent == tmp_path.resolve()
    assert len(part.encode()) <= 130
    assert not part.startswith(".")


@given(st.text())
def test_any_text_is_one_part_and_a_part_stays_itself(name: str) -> None:
    part = file_part(name)
    assert part not in ("", ".", "..")
    assert not set(part) & set('/\\:*?"<>|\0')
    assert file_part(part) == part


def test_two_names_never_become_one() -> None:
    assert len({file_part(name) for name in ("a/b", "a:b", "a_b", "a\\b", "a?b")}) == 5


COCO = ["bear", "teddy bear", "dog", "hot dog", "glass", "wine glass", "cell phone", "phone stand", "tv", "Café table"]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("my teddy bear", "teddy bear"),
        ("My_Teddy-Bear 2", "teddy bear"),
        ("polar bear", "bear"),
        ("teddy", None),
        ("my hot dog", "hot dog"),
        ("shot dog", "dog"),
        ("Anna's wine glass", "wine glass"),
        ("my cell phone", "cell phone"),
        ("my phone", None),
        ("kitchen tv", "tv"),
        ("my cafe\u0301 table", "Café table"),
        ("123", None),
        ("bear trap", None),
    ],
)
def test_the_longest_class_that_ends_a_name(name: str, ending: str | None) -> None:
    assert longest_ending(name, COCO) == ending
    assert longest_ending(name, reversed(COCO)) == ending


def test_of_classes_that_are_alike_the_one_that_is_spelt_so() -> None:
    assert longest_ending("my mug 2", ["mug 1", "mug 2"]) == "mug 2"
    assert longest_ending("my mug", ["mug 1", "mug 2"]) == "mug 1"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("my caf\u00e9 \u6211 %d.jpg", "my caf\u00e9 \u6211 %d.jpg"),
        ("caf\udce9.jpg", r"caf\xe9.jpg"),
        ("a\nb\t.jpg", r"a\nb\t.jpg"),
        ("\x1b[31mred.jpg", r"\x1b[31mred.jpg"),
        ("x\u202egpj.exe", r"x\u202egpj.exe"),
    ],
)
def test_any_name_is_shown_on_one_line(name: str, shown: str) -> None:
    assert one_line(name) == shown


def test_a_name_as_a_command_takes_it() -> None:
    assert [as_typed(name) for name in ("mug", "Anna's mug", "-mug", "- x")] == [
        "mug", "'Anna'\"'\"'s mug'", "-- -mug", "-- '- x'",
    ]  # fmt: skip
