"""The measurement of exported students at toy size: names and targets, and that both kinds find the same boxes."""

from pathlib import Path

import numpy as np

from bench.personal import export
from bench.personal.random_student import make_student


def test_export_has_its_figures(tmp_path: Path, tiny_detector: Path) -> None:
    figures = export.measure(tmp_path, model=str(tiny_detector), sizes=(64, 96), rounds=3)
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "onnx_vs_yolo_onnx_64px": (None, "lower"),
        "onnx_vs_yolo_onnx": (1.10, "lower"),
    }
    assert all(figure.value > 0 for figure in figures.values())
    assert "NMS in both; tiny, 96 px, 10 boxes, 10 objects, one thread, CPU" in figures["onnx_vs_yolo_onnx"].note
    assert list(tmp_path.iterdir()) == []


def test_both_find_the_same_boxes(tmp_path: Path, tiny_detector: Path) -> None:
    make_student(tmp_path / "student", str(tiny_detector), class_names=export.CLASS_NAMES, width=512)
    personal, plain = (call() for call in export.sessions(tmp_path / "student", 96))
    assert len(personal) == export.BOXES
    np.testing.assert_allclose(personal, plain, rtol=0, atol=1e-2)
