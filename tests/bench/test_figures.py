"""Figures: met or not, kept beside earlier ones, shown."""

import json
from pathlib import Path
from typing import Literal

import pytest

from bench.figures import Figure, keep, show


def figure(value: float, target: float = 2.0, better: Literal["higher", "lower"] = "higher") -> Figure:
    return Figure(value=value, target=target, better=better, note="a / b")


@pytest.mark.parametrize(
    ("value", "better", "met"),
    [(2.0, "higher", True), (1.9, "higher", False), (2.0, "lower", True), (2.1, "lower", False)],
)
def test_a_target_is_met_on_its_own_side(value: float, better: Literal["higher", "lower"], met: bool) -> None:
    assert figure(value, better=better).is_met is met


def test_figures_are_added_to_those_of_earlier_runs(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    keep(path, {"one": figure(1.0), "two": figure(2.0)})
    keep(path, {"two": figure(2.123456, better="lower")})
    content = json.loads(path.read_text())
    assert content["figures"] == {
        "one": {"value": 1.0, "target": 2.0, "better": "higher", "note": "a / b"},
        "two": {"value": 2.1235, "target": 2.0, "better": "lower", "note": "a / b"},
    }
    assert content["versions"]["python"]


def test_the_table_shows_value_target_and_whether_it_is_met(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    show({"quick": figure(3.0), "slow": figure(3.0, better="lower")})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "figure value target met what" in lines
    assert "quick 3 >= 2 yes a / b" in lines
    assert "slow 3 <= 2 no a / b" in lines


def test_the_name_of_a_figure_is_never_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    note = "many words that say what was measured against what, on which data"
    show({"a_name_of_some_length": Figure(value=1, target=1, better="higher", note=note)})
    assert "a_name_of_some_length" in capsys.readouterr().out
