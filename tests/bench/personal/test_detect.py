"""The measurement of detection at toy size: names and targets, and that both kinds find the same boxes."""

from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split
from ultralytics import YOLO

from bench.inputs import BenchInputs
from bench.personal import detect
from mocha_pipe.data.images import read_image


def test_detect_has_its_figures(inputs: BenchInputs, tmp_path: Path, tiny_detector: Path) -> None:
    figures = detect.measure(tmp_path, model=str(tiny_detector), sizes=(64, 96), images=3, rounds=2, inputs=inputs)
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "detect_vs_predict_64px": (None, "lower"),
        "detect_vs_predict": (1.10, "lower"),
    }
    assert all(figure.value > 1 for figure in figures.values())
    assert "tiny, 96 px, 4 boxes, 24 objects" in figures["detect_vs_predict"].note
    assert list(tmp_path.iterdir()) == []


def test_every_image_has_its_boxes_and_all_can_get_a_name(
    inputs: BenchInputs, tmp_path: Path, tiny_detector: Path
) -> None:
    detector = detect._make_detector(inputs, tmp_path / "student", str(tiny_detector))
    yolo = YOLO(tmp_path / "student" / "student.pt")
    assert detector.namer is not None
    for record in inputs.source.records[:4]:
        picture = read_image(record.path)
        arguments = detect._few_boxes(yolo, picture, 96)
        plain, mine = yolo.predict(picture, **arguments)[0], detector(picture, **arguments)[0]
        assert len(plain) == len(mine) == detect.BOXES
        assert detector.namer.may_name(mine.coarse.long().numpy()).all()
