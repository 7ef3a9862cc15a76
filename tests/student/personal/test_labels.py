"""Labels in any script: with a font that has the letters, else with a warning that says what to install."""

import warnings
from collections.abc import Callable
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from mocha_pipe.data.errors import MochaWarning
from mocha_pipe.student.personal import labels
from mocha_pipe.student.personal.predictor import PersonalResults

CUP = "我的杯子"


@pytest.fixture
def make_font(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a font in which each of some letters is a filled square."""

    def make(name: str, letters: str) -> Path:
        pen = TTGlyphPen(None)
        for number, point in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
            (pen.lineTo if number else pen.moveTo)(point)
        pen.closePath()
        square, nothing = pen.glyph(), TTGlyphPen(None).glyph()
        names = [f"g{ord(letter):x}" for letter in letters]
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder([".notdef", *names])
        builder.setupCharacterMap(dict(zip(map(ord, letters), names, strict=True)))
        builder.setupGlyf({".notdef": nothing, **dict.fromkeys(names, square)})
        builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
        builder.setupHorizontalHeader(ascent=900, descent=-100)
        builder.setupNameTable({"familyName": name, "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        builder.save(tmp_path / f"{name}.ttf")
        return tmp_path / f"{name}.ttf"

    return make


def have(monkeypatch: pytest.MonkeyPatch, *fonts: Path) -> None:
    monkeypatch.setattr(labels, "system_fonts", lambda: fonts)


def test_the_font_with_the_most_letters_is_taken(
    make_font: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    some, all_of_them = make_font("some", CUP[:2]), make_font("all", CUP + " ()mug")
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    have(monkeypatch, broken, some, all_of_them)
    assert labels.best_font(frozenset(CUP + " (mug)")) == all_of_them
    have(monkeypatch, some)
    assert labels.best_font(frozenset("моя кружка, كوبي, mug")) is None, "matplotlib's has these"
    with pytest.warns(MochaWarning) as told:
        assert labels.best_font(frozenset(CUP)) == some
    assert str(told[0].message) == (
        f"no font here has the letters {''.join(sorted(CUP[2:]))}, which are drawn as empty boxes: install one that "
        "has, such as Noto (Debian and Ubuntu: apt install fonts-noto-core fonts-noto-cjk)"
    )


def drawn(name: str) -> np.ndarray:
    result = PersonalResults(
        np.full((120, 200, 3), 90, np.uint8), "a.jpg", {0: "mug", 1: name}, torch.tensor([[10, 60, 90, 110, 0.9, 1]]),
        coarse=torch.tensor([0.0]), certainty=torch.tensor([0.99]),
    )  # fmt: skip
    return np.asarray(result.plot(conf=False))


def test_results_are_drawn_with_it(make_font: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters that are squares fill a label; empty boxes of a font without them do not."""
    have(monkeypatch)
    with pytest.warns(MochaWarning):
        empty = drawn(CUP)
    have(monkeypatch, make_font("all", CUP + " ()mug"))
    with warnings.catch_warnings(action="error"):
        letters = drawn(CUP)
        drawn("my mug")

    def ink(picture: np.ndarray) -> int:
        """Pixels of the label that are neither its ground nor the photo."""
        return int(((picture != 90).any(axis=2) & (picture != labels.colors(1, True)).any(axis=2)).sum())

    assert ink(letters) > 1.5 * ink(empty) > 0


def test_a_plain_label_is_drawn_alike_before_and_after_another(
    make_font: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, make_font("all", CUP))
    pictures = []
    for order in (("mug", CUP), (CUP, "mug")):
        annotator = labels.Annotator(np.zeros((80, 300, 3), np.uint8), example=CUP)
        for label in order:
            left = 10 if label == "mug" else 160
            annotator.box_label([left, 40, left + 90, 70], label, (255, 0, 0))
        pictures.append(np.asarray(annotator.result())[:, :150])
    np.testing.assert_array_equal(*pictures)


def test_a_plain_label_needs_no_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "system_fonts", lambda: pytest.fail("fonts were looked for"))
    drawn("my mug")
    drawn("Mütze")
