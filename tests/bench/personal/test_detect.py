"""The measurement of detection at toy size: names and targets, and that both kinds find the same boxes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.inputs import BenchInputs
from bench.personal import detect
from bench.timing import Pairs


def test_detect_compares_a_personal_detector_with_its_own_yolo(
    inputs: BenchInputs,
    tmp_path: Path,
    tiny_detector: Path,
    in_this_process: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[tuple[Any, Any]] = []

    def take(pairs: Pairs, turn: int, plain: Callable[[], Any], personal: Callable[[], Any]) -> None:
        (theirs,), (ours,) = plain(), personal()
        assert isinstance(personal, partial)
        namer = personal.func.namer  # type: ignore[attr-defined]
        assert namer.may_name(ours.coarse.long().numpy()).all()
        found.append((theirs, ours))
        pairs.plain.append(2.0)
        pairs.personal.append(3.0 + turn)

    monkeypatch.setattr(Pairs, "take", take)
    monkeypatch.setattr(detect, "in_a_process", in_this_process)
    figures = detect.measure(tmp_path, model=str(tiny_detector), sizes=(64, 96), images=2, rounds=1, inputs=inputs)
    assert len(found) == 4
    for theirs, ours in found:
        assert len(theirs) == len(ours) == detect.BOXES
    assert {name: (figure.value, figure.target, figure.better) for name, figure in figures.items()} == {
        "detect_vs_predict_64px": (1.5, None, "lower"),
        "detect_vs_predict": (1.5, 1.10, "lower"),
    }
    assert figures["detect_vs_predict"].note == (
        "3000.0 / 2000.0 ms per image; tiny, 96 px, 4 boxes, 24 objects, one thread, CPU"
    )
    assert list(tmp_path.iterdir()) == []
