"""The measurement of exported students at toy size: names and targets, and that both kinds find the same boxes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.personal import export
from bench.timing import Pairs


def test_export_compares_equal_boxes(
    tmp_path: Path, tiny_detector: Path, in_this_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[int] = []

    def take(pairs: Pairs, turn: int, plain: Callable[[], np.ndarray], personal: Callable[[], np.ndarray]) -> None:
        ours = personal()
        assert len(ours) == export.BOXES
        np.testing.assert_allclose(ours, plain(), rtol=0, atol=1e-2)
        rounds.append(turn)
        pairs.plain.append(2.0)
        pairs.personal.append(3.0)

    monkeypatch.setattr(Pairs, "take", take)
    monkeypatch.setattr(export, "in_a_process", in_this_process)
    figures = export.measure(tmp_path, model=str(tiny_detector), sizes=(96,), rounds=2)
    assert rounds == [0, 1]
    assert {name: (figure.value, figure.target, figure.better) for name, figure in figures.items()} == {
        "onnx_vs_yolo_onnx": (1.5, 1.10, "lower")
    }
    assert "tiny, 96 px, NMS in both, 10 boxes, 10 objects, one thread, CPU" in figures["onnx_vs_yolo_onnx"].note
    assert list(tmp_path.iterdir()) == []
