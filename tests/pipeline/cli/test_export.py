"""`mocha-pipe export`: what it writes and says, on a tiny student."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import onnxruntime
import pytest
from typer.testing import Result

from mocha_pipe.data.files import write_json
from mocha_pipe.student.personal.profile import student_digest

Command = Callable[..., Result]


@pytest.fixture
def folder(random_student: Path) -> Path:
    return random_student


def about(path: Path) -> dict[str, str]:
    return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map


def test_it_writes_the_file_and_says_what_it_takes(command: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "device/mine.onnx"
    result = command(
        "export", "--student", folder, "--out", out, "--imgsz", 96, "--learner", "gallery", "--false-accept-rate", 0.1
    )
    assert result.exit_code == 0
    assert about(out) | {"thresholds": ""} == {
        "format": "mocha-pipe-3", "student": student_digest(folder), "class_names": '["mug", "boot"]',
        "image_size": "96", "features": "fine", "learner": "gallery", "false_accept_rate": "0.1", "thresholds": "",
        "promise": "0.1 for up to 10 competing objects; 0.0099 is the lowest, for one object",
    }  # fmt: skip
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["image", "96", "x", "96,", "letterboxed"] in lines
    assert ["classes", "mug,", "boot"] in lines
    assert ["learner", "gallery"] in lines
    assert ["the", "same", "as", "JSON", "mine.onnx.json"] in lines
    assert json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))["learner"] == "gallery"
    assert "0.1 for up to 10 competing objects" in " ".join(result.stdout.split())
    assert ["student", student_digest(folder)[:12]] in lines
    threshold = json.loads(about(out)["thresholds"])[0]
    assert f"closeness {threshold:.3f} where one object competes" in result.stdout


def test_without_options_it_takes_the_last_student_and_writes_beside_it(
    command: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def export_student(student: Path, out: Path, **options: Any) -> dict[str, Any]:
        asked.append((student, out, options))
        out.touch()
        told = {"thresholds": [0.5], "image_size": 64, "class_names": [], "student": "ab"}
        return told | dict.fromkeys(("learner", "promise"), "")

    monkeypatch.setattr("mocha_pipe.student.personal.export.export_student", export_student)
    marker = {"stage": "distill", "config": {}, "inputs": {}, "outputs": {"student": "student"}, "versions": {}}
    write_json(folder.parent / "complete.json", {**marker, "seconds": 1})
    write_json(tmp_path / "root/last-distill.json", {"run": str(folder.parent)})
    for file_format, name in (("onnx", "student.onnx"), ("torchscript", "student.torchscript")):
        assert command("export", "--root", tmp_path / "root", "--format", file_format).exit_code == 0
        options = {"file_format": file_format, "image_size": None, "learner": None, "false_accept_rate": 0.05}
        assert asked.pop() == (folder, folder / name, options)


def test_a_mistake_is_one_line(command: Command, folder: Path, tmp_path: Path) -> None:
    result = command("export", "--student", folder, "--format", "coreml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: --format must be one of onnx, torchscript; found 'coreml'.\n"
    assert not (folder / "student.coreml").exists()
    result = command("export", "--root", tmp_path)
    assert result.exit_code == 2
    assert "name a student's folder with --student" in result.stderr
