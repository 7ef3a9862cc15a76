"""The comparison of `detect` with the documented program at toy size, and what counts as equal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.personal import shapes
from bench.personal.shapes import SHAPES, Found, equal
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.student.personal.detector import PersonalDetector


def test_every_shape_is_compared(
    toy_copy: RunConfig, in_this_process: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    load = PersonalDetector.load

    def low(*arguments: object, **options: object) -> PersonalDetector:
        return load(*arguments, confidence=0.002, **options)

    monkeypatch.setattr(PersonalDetector, "load", low)
    monkeypatch.setattr(shapes, "in_a_process", in_this_process)
    document = shapes._documented().replace("confidence=0.25", "confidence=0.002")
    assert "0.002" in document
    monkeypatch.setattr(shapes, "_documented", lambda: document)

    def both(one: Found, other: Found) -> bool:
        seen.append((len(one.names), len(other.names)))
        return equal(one, other)

    monkeypatch.setattr(shapes, "equal", both)
    figures = shapes.measure(tmp_path, config=toy_copy, pictures=6)
    assert len(seen) == len(SHAPES) == 6
    assert all(one == other for one, other in seen)
    figure = figures["detect_vs_export_equal"]
    assert (figure.value, figure.target, figure.better) == (6, 6.0, "higher")
    assert figure.note.startswith("of 6 pictures in 6 shapes: ")


def test_equal_means_the_same_boxes_of_the_same_names() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10.4], [5, 5, 9, 9]])
    one = Found(boxes, [("my mug", "mug"), ("mug", "mug"), ("mug", "mug")])
    assert equal(one, Found(boxes[::-1] + 0.3, one.names[::-1]))
    assert not equal(one, Found(boxes + np.array([0, 0, 0, 0.6]), one.names))
    assert not equal(one, Found(boxes, one.names[::-1]))
    assert not equal(one, Found(boxes[:2], one.names[:2]))
    twice = Found(boxes[[0, 0]], one.names[1:])
    assert not equal(twice, Found(boxes[[0, 2]], one.names[1:]))
    nothing = Found(np.zeros((0, 4)), [])
    assert equal(nothing, nothing)
