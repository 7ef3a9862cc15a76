"""Texts from outside that no reader may stumble over."""

import re
from pathlib import Path

import pytest

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.parsing import is_path, is_text, load_yaml, parse_json, shown

DEEP = 100_000 * "["
DIGITS = 400 * "9"


def test_json_as_programs_write_it() -> None:
    assert parse_json("\ufeff[1]") == [1]
    assert parse_json(b"\xef\xbb\xbf[1, Infinity]") == [1, float("inf")]
    assert parse_json(f'{{"id": {100 * "9"}}}') == {"id": int(100 * "9")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "brackets in brackets, too many to follow"),
        ('{"a":' * 100_000, "brackets in brackets, too many to follow"),
        (f'{{"a": {DIGITS}}}', "a number of 400 digits"),
        (f"[-{5000 * '9'}]", "a number of 5001 digits"),
        ("{", r"Expecting property name .*"),
        (b"\xff\xff", r".*codec can't decode.*"),
    ],
    ids=str,
)
def test_json_that_is_none(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (3000 * "[", r"brackets in brackets, too many to follow"),
        (f"a: {5000 * '9'}", r".*4300 digits.*"),
        ("a: 2026-13-45", r"month must be in 1\.\.12"),
        ("a: !!bool maybe", r".+"),
        ("a: !!int ''", r".+"),
    ],
    ids=["deep", "digits", "date", "bool", "int"],
)
def test_yaml_with_a_value_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    told = f"^{re.escape(str(file))}: has a value that YAML cannot read \\({reason}\\); mend or quote it$"
    with pytest.raises(DatasetError, match=told):
        load_yaml(file)


def test_yaml_keys_are_texts(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(f"? 0x{5000 * 'f'}\n: a\nyes: b\n2: c\n")
    assert load_yaml(file) == {"a number of 20000 bits": "a", "True": "b", "2": "c"}


def test_what_a_message_shows_is_short() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    wide = [[[["x"] * 100] * 100] * 100] * 100
    for value in (deep, wide, 1000 * "x", int("0x" + 5000 * "f", 16), {str(n): n for n in range(100)}):
        assert len(shown(value)) <= 400
        assert "\n" not in shown(value)
    assert shown({"id": "1", "name": "ball"}) == "{'id': '1', 'name': 'ball'}"
    assert shown("a\nb") == r"'a\nb'"


def test_keys_of_merged_maps_may_be_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("base: &base {a: 1, b: 2}\nown:\n  <<: *base\n  a: 3\n")
    assert load_yaml(file)["own"] == {"a": 3, "b": 2}


@pytest.mark.parametrize("text", ["", " ", "a\nb", "a\0b", "a\x1bb", "a\tb", "a\x85b", "\ud800", 3, None])
def test_what_is_no_name(text: object) -> None:
    assert not is_text(text)


def test_what_is_no_path() -> None:
    assert is_path("images/" + 255 * "x")
    assert not is_path("images/" + 300 * "x")
    assert not is_path(128 * "é")
    assert not is_path("a\0")
