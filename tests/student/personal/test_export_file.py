"""What `export_student` writes and says, and what it refuses."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import onnxruntime
import pytest
import torch

from mocha_pipe.student.errors import StudentModelNotFoundError
from mocha_pipe.student.fewshot.strangers import (
    CalibrationError,
    accept_above,
    certainty,
    load_strangers,
    save_strangers,
)
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.student.personal import export as export_module
from mocha_pipe.student.personal.export import FILE_FORMATS, ExportError, accept_thresholds, export_student
from mocha_pipe.student.personal.profile import student_digest
from tests.student.personal.conftest import CLASSES, RATE, STRANGERS

# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_says_what_it_is(folder: Path, exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    about = session.get_modelmeta().custom_metadata_map
    assert about == {
        "format": "mocha-pipe-3",
        "student": student_digest(folder),
        "class_names": '["mug", "ball", "boot"]',
        "image_size": "96",
        "features": "fine",
        "learner": "conditional",
        "false_accept_rate": "0.3",
        "promise": "0.3 for up to 600 competing objects; 0.0005 is the lowest, for one object",
        "thresholds": json.dumps(accept_thresholds(load_strangers(folder), RATE)),
    }
    inputs = {entry.name: (entry.shape, entry.type) for entry in session.get_inputs()}
    assert inputs == {
        "image": ([1, 3, 96, 96], "tensor(float)"),
        "area": ([4], "tensor(float)"),
        "prototypes": (["prototypes", 24], "tensor(float)"),
        "coarse": (["prototypes"], "tensor(int64)"),
        "objects": (["prototypes"], "tensor(int64)"),
        "threshold": (["prototypes"], "tensor(float)"),
        "confidence": ([1], "tensor(float)"),
        "regions": (["regions", 4], "tensor(float)"),
    }
    outputs = {entry.name: (entry.shape, entry.type) for entry in session.get_outputs()}
    assert outputs == {
        "boxes": (["detections", 4], "tensor(float)"),
        "scores": (["detections"], "tensor(float)"),
        "classes": (["detections"], "tensor(int64)"),
        "personal": (["detections"], "tensor(int64)"),
        "closeness": (["detections"], "tensor(float)"),
        "embeddings": (["detections", 24], "tensor(float)"),
        "region_embeddings": (["regions", 24], "tensor(float)"),
    }


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_exporting_is_quiet_and_leaves_nothing_that_names_a_folder_of_this_machine(
    made: Path, folder: Path, form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    export_student(folder, tmp_path / "student", file_format=form, false_accept_rate=RATE)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    beside = ["student.json"] * (form == "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student", *beside]
    written = (tmp_path / "student").read_bytes()
    if form == "onnx":
        assert written == (made / "v8.onnx").read_bytes(), "the file repeats bitwise"
    else:
        with zipfile.ZipFile(tmp_path / "student") as archive:
            written = b"".join(archive.read(name) for name in archive.namelist())
    for place in (Path(export_module.__file__).parents[1], Path(torch.__file__).parents[1], tmp_path):
        assert str(place).encode() not in written


def test_beside_the_file_lies_what_it_says_and_what_other_rates_take(made: Path, exported: Path) -> None:
    about = json.loads((made / "v8.onnx.json").read_text(encoding="utf-8"))
    told = onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map
    assert {name: about[name] if about[name] == text else json.loads(text) for name, text in told.items()} == {
        name: about[name] for name in told
    }
    assert (about["image_size"], about["class_names"], about["embedding_dim"]) == (96, ["mug", "ball", "boot"], 24)
    rates = ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.3", "0.5"]
    assert list(about["thresholds_by_rate"]) == list(about["promises"]) == rates
    for rate, thresholds in about["thresholds_by_rate"].items():
        assert thresholds == accept_thresholds(load_strangers(made / "v8"), float(rate))
    assert about["thresholds_by_rate"]["0.3"] == about["thresholds"]
    assert about["promises"]["0.01"].startswith("0.01 for up to 20 competing objects")
    assert set(about) - set(told) == {"embedding_dim", "thresholds_by_rate", "promises", "strangers"}


def test_how_sure_a_name_is_can_be_told_from_the_file_beside(made: Path) -> None:
    strangers = json.loads((made / "v8.onnx.json").read_text(encoding="utf-8"))["strangers"]
    assert strangers["count"] == len(STRANGERS)
    closeness = np.linspace(-1, 1, 77)
    share = np.searchsorted(strangers["quantiles"], closeness) / len(strangers["quantiles"])
    np.testing.assert_allclose(share, certainty(closeness, load_strangers(made / "v8")), rtol=0, atol=2e-3)


def test_a_student_without_strangers_has_no_quantiles(folder: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "student"
    shutil.copytree(folder, lonely)
    save_strangers(lonely, np.zeros(0))
    about = export_student(lonely, tmp_path / "lonely.onnx")
    assert about["thresholds"] == [-1.0] * 500
    beside = json.loads((tmp_path / "lonely.onnx.json").read_text(encoding="utf-8"))
    assert beside["strangers"] == {"count": 0, "quantiles": []}


def test_the_student_keeps_its_own_card(folder: Path, tmp_path: Path) -> None:
    """Where a file is exported by default; the card there is called student.json."""
    own = tmp_path / "student"
    shutil.copytree(folder, own)
    export_student(own, own / "student.onnx")
    assert load_student(own).class_names == CLASSES
    assert (own / "student.onnx.json").is_file()


def test_thresholds_are_those_of_one_two_three_prototypes() -> None:
    strangers = np.linspace(0, 1, 100)  # 0.1 accepts 10 of them, shared by two 5, by ten 1, by eleven none
    thresholds = accept_thresholds(strangers, 0.1)
    assert thresholds[:10] == [accept_above(strangers, 0.1, objects) for objects in range(1, 11)]
    assert thresholds[10:] == [1.0] * 490


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_only_an_exported_file_is_replaced(folder: Path, made: Path, tmp_path: Path) -> None:
    for name in ("photo.onnx", "empty.onnx", "folder.onnx"):
        path = tmp_path / name
        if name == "folder.onnx":
            path.mkdir()
        else:
            path.write_bytes(b"years of work" * (name == "photo.onnx"))
        with pytest.raises(ExportError) as refused:
            export_student(folder, path)
        assert str(refused.value) == (
            f"{path}: was not written by `mocha-pipe export`, and would be replaced; name another file with --out"
        )
    assert (tmp_path / "photo.onnx").read_bytes() == b"years of work"
    (tmp_path / "new.onnx.json").write_text('{"years": "of work"}')
    with pytest.raises(ExportError, match=re.escape(f"{tmp_path / 'new.onnx.json'}: was not written by")):
        export_student(folder, tmp_path / "new.onnx")
    assert not (tmp_path / "new.onnx").exists()
    export_student(folder, tmp_path / "new.torchscript", file_format="torchscript")
    for name in (*(f"v8.{form}" for form in FILE_FORMATS), "v8.onnx.json"):
        export_module.require_replaceable(made / name)
    (tmp_path / "old.onnx").write_bytes(b"mocha-pipe-2")
    export_module.require_replaceable(tmp_path / "old.onnx")


def test_an_unknown_format_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as raised:
        export_student(folder, tmp_path / "student.engine", file_format="engine")
    assert str(raised.value) == "--format must be one of onnx, torchscript; found 'engine'."


def test_a_learner_that_cannot_be_exported_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as raised:
        export_student(folder, tmp_path / "student.onnx", learner="tuned")
    rule = "--learner must be one that can be exported, conditional, gallery, protonet, simpleshot"
    assert str(raised.value) == f"{rule}; found 'tuned'."


def test_a_missing_package_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError) as raised:
        export_student(folder, tmp_path / "student.onnx")
    assert str(raised.value) == (
        "--format onnx needs the package onnx, found none; run: pip install 'mocha-pipe[onnx]'"
    )


def test_only_a_distilled_student_can_be_exported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentModelNotFoundError, match="name the folder of a distilled student"):
        export_student(folder / "student.pt", tmp_path / "student.onnx")


def test_a_rate_that_the_strangers_cannot_keep_is_said_in_the_file(folder: Path, tmp_path: Path) -> None:
    about = export_student(folder, tmp_path / "student.torchscript", file_format="torchscript", false_accept_rate=1e-4)
    assert about["promise"].startswith("not 0.0001: 0.0005 is the lowest, for one object, with 1999 strangers")
    assert about["thresholds"] == [pytest.approx(STRANGERS.max())] * 500
    with pytest.raises(CalibrationError, match="above 0 and below 1"):
        export_student(folder, tmp_path / "other.onnx", false_accept_rate=5)
    assert not (tmp_path / "other.onnx").exists()
