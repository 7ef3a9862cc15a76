"""`python -m bench.photos`: what is kept, with stand-ins for all that takes long."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.photos import __main__ as command
from bench.photos import finding, recognition, training
from bench.photos.finding import Sight
from bench.photos.recipe import FEATURES, Study
from bench.photos.recognition import MOCHA
from mocha_pipe.pipeline.markers import read_json
from tests.bench.photos.conftest import draw_subjects
from tests.bench.photos.test_recognition import flat


def test_the_command_keeps_figures_table_and_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, root = tmp_path / "photographs", tmp_path / "work"
    draw_subjects(folder / "subjects")
    (folder / "subjects" / "coarse.yaml").write_text("(no yaml: at all\nred dog: dog\n")
    (folder / "weights").mkdir()
    (folder / "weights" / "yolo.pt").touch()
    studies: list[Study] = []
    rows = {"yolo": [flat(40, 50)], "teacher": [flat(80, 90)]} | {MOCHA[each]: [flat(70, 80)] for each in FEATURES}
    sights = [Sight(subject="red dog", names=("red dog",)), Sight(subject="red dog", names=())]
    monkeypatch.setattr(training, "train_students", studies.append)
    monkeypatch.setattr(recognition, "recognise", lambda *_: rows)
    monkeypatch.setattr(finding, "find_objects", lambda *_: (sights, []))
    asked = [str(folder), "--root", str(root), "--teacher", "some/teacher", "--seeds", "4", "--no-steps"]
    result = CliRunner().invoke(command.app, asked)
    assert result.exit_code == 0, result.output
    assert (studies[0].seeds, studies[0].teacher, studies[0].detector.name) == ((4,), "some/teacher", "yolo.pt")
    assert "1 lines are no 'object: class' and were ignored" in result.output
    assert "frozen_base_identical and joint_base_delta are left out" in result.output
    kept = read_json(tmp_path / "work.json")
    assert {name: figure["value"] for name, figure in kept["figures"].items()} == {
        "photo_gap_closed_1shot": 0.75, "photo_gap_closed_3shot": 0.75, "photo_found_1shot": 0.5,
        "photo_wrong_1shot": 0, "photo_found_1shot_by_class": 0.5, "photo_wrong_1shot_by_class": 0,
    }  # fmt: skip
    assert kept["table"]["teacher"]["open"]["3"]["mean"] == 90
    assert kept["subjects"] == {"red dog": {"found": 0.5, "wrong": 0, "missed": 0.5}}
    assert len(kept["notes"]) == 1
    assert (root / "failures.html").is_file()


def test_a_folder_must_hold_one_detector(tmp_path: Path) -> None:
    with pytest.raises(command.typer.BadParameter, match=r"must hold one detector \(\.pt\), found 0; name one with"):
        command.find_detector(tmp_path)
