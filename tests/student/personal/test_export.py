"""Exported students against the embedder and the namer, and where none of our packages is installed."""

import contextlib
import io
import json
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import torchvision  # noqa: F401  (its operations, for torch.jit.load)
from numpy.typing import NDArray
from PIL import Image
from ultralytics.utils.ops import scale_boxes

from mocha_pipe.data.boxes import box_iou
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.prototypes import make_learner
from mocha_pipe.student.fewshot.strangers import accept_above
from mocha_pipe.student.network.embedder import RegionEmbedder, picture_area
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.student.personal.detector import PersonalDetector
from mocha_pipe.student.personal.export import ABOUT_FILE, FILE_FORMATS, export_student
from mocha_pipe.student.personal.graph import PersonalDetections
from mocha_pipe.student.personal.profile import Profile, student_digest
from tests.shared import ROOT
from tests.student.personal.conftest import CLASSES, PICTURES, SIZE, SIZES, STRANGERS, WIDTH, letterboxed
from tests.student.personal.wanted import Runner, Wanted, assert_equal_to_pytorch, onnx_runner, want

DOCUMENT = ROOT / "docs/onnx.md"
FAINT = {"confidence": np.array([0.02], np.float32)}
FITS = len(SIZES) - 1
"""A picture that needs no resizing, which another library would do otherwise."""


def torchscript_runner(path: Path) -> Runner:
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        module = torch.jit.load(path)
    order = ("image", "area", "prototypes", "coarse", "objects", "threshold", "confidence", "regions")

    def run(inputs: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        with torch.no_grad():
            return [answer.numpy() for answer in module(*(torch.from_numpy(inputs[name].copy()) for name in order))]

    return run


# --- equality ---------------------------------------------------------------------------------------------------------


def test_onnx_equals_pytorch_on_a_hundred_pictures(wanted: Wanted, run: Runner) -> None:
    compared = np.concatenate([wanted.rows(image) for image in range(PICTURES)])
    assert len(compared) > 500
    assert set(wanted.personal[compared]) == {UNKNOWN, 0, 1, 2, 3}
    assert_equal_to_pytorch(run, wanted, PICTURES)


@pytest.mark.parametrize(
    ("name", "learner", "asked", "size"),
    [
        ("v8-paper", "gallery", 310, 320),
        ("v8-deep", "simpleshot", None, SIZE),
        ("v8-reference", "gallery", None, SIZE),
        ("11", "protonet", None, SIZE),
        ("26", "simpleshot", 64, 64),
    ],
)
def test_every_family_set_of_features_learner_and_size_equals_pytorch(
    made: Path, pictures: DetectionSource, name: str, learner: str, asked: int | None, size: int, tmp_path: Path
) -> None:
    about = export_student(made / name, tmp_path / "student.onnx", learner=learner, image_size=asked)
    assert about["image_size"] == size, "rounded up to the stride"
    told = onnxruntime.InferenceSession(tmp_path / "student.onnx").get_modelmeta().custom_metadata_map
    assert told["class_names"] == ('["cup", "ball", "böot"]' if name == "v8-paper" else json.dumps(CLASSES))
    wanted, run = want(made / name, pictures, learner, size), onnx_runner(tmp_path / "student.onnx")
    assert_equal_to_pytorch(run, wanted, len(pictures.records))
    if size > 300:
        image = np.random.default_rng(0).random((1, 3, size, size), np.float32)
        area = np.array([0, 0, size, size], np.float32)
        nameless = {"threshold": np.full(len(wanted.profile.learner.coarse_), 2, np.float32)}
        all_of_them = {"image": image, "area": area, "confidence": np.zeros(1, np.float32), **nameless}
        assert len(PersonalDetections(*run(wanted.inputs(0) | all_of_them)).boxes) == 300, "at most"


@pytest.mark.parametrize("learner", ["simpleshot", "gallery"])
def test_where_all_objects_compete_the_file_says_what_detection_says(
    folder: Path, pictures: DetectionSource, learner: str, tmp_path: Path
) -> None:
    """Objects learnt under another class than they are seen as, or under none; things boxed under several classes."""
    export_student(folder, tmp_path / "student.onnx", learner=learner, false_accept_rate=0.5)
    run = onnx_runner(tmp_path / "student.onnx")
    found = RegionEmbedder(load_student(folder), image_size=SIZE, confidence=0.1).embed_pool(pictures)
    profile = Profile.empty(student_digest(folder), CLASSES, learner=learner)
    for number, rows in enumerate(([0, 1], [30], [60, 61, 62])):
        seen_as = (found.detection_coarse[rows] + 1 + np.arange(len(rows))) % 4
        profile = profile.add(f"thing {number}", found.detection_embedding[rows], seen_as)
    detector = PersonalDetector.load(folder, false_accept_rate=0.5, confidence=0.1)
    detector.profile = profile
    taught, classes_of, twice = profile.learner, {}, 0
    compete = 3 if learner == "simpleshot" else 6
    for record in pictures.records:
        (result,) = detector(record.path)
        inputs = {
            "image": letterboxed(record.path, SIZE),
            "area": picture_area((SIZE, SIZE), (record.height, record.width)).astype(np.float32),
            "prototypes": taught.compared(), "coarse": taught.coarse_, "objects": taught.personal_,
            "threshold": np.full(len(taught.coarse_), accept_above(STRANGERS, 0.5, compete), np.float32),
            "confidence": np.array([0.1], np.float32), "regions": np.zeros((0, 4), np.float32),
        }  # fmt: skip
        answer = PersonalDetections(*run(inputs))
        boxes = scale_boxes((SIZE, SIZE), answer.boxes.copy(), (record.height, record.width))
        names = np.append(taught.personal_, UNKNOWN)[answer.personal]
        ours = np.column_stack([boxes, answer.classes, np.where(names == UNKNOWN, answer.classes, 3 + names)])
        theirs = np.column_stack([result.boxes.xyxy, result.coarse, result.boxes.cls])
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)
        detector.namer, namer = None, detector.namer
        twice += len(detector(record.path)[0]) - len(result)
        detector.namer = namer
        for name, coarse in zip(names, answer.classes, strict=True):
            classes_of.setdefault(int(name), set()).add(int(coarse))
    assert twice > 0, "some things were boxed under two classes"
    assert any(len(classes) > 1 for name, classes in classes_of.items() if name != UNKNOWN), "names beyond a class"
    assert len(classes_of) > 2


def test_torchscript_equals_pytorch_and_says_the_same_about_itself(wanted: Wanted, made: Path, exported: Path) -> None:
    assert_equal_to_pytorch(torchscript_runner(made / "v8.torchscript"), wanted, 20)
    extra = {ABOUT_FILE: ""}
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        torch.jit.load(made / "v8.torchscript", _extra_files=extra)
    assert json.loads(extra[ABOUT_FILE]) == onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_without_objects_and_without_detections_the_answer_is_empty(
    made: Path, run: Runner, wanted: Wanted, form: str
) -> None:
    run = run if form == "onnx" else torchscript_runner(made / "v8.torchscript")
    usual = wanted.inputs(0)
    nothing = {name: usual[name][:0] for name in ("prototypes", "coarse", "objects", "threshold")}
    for inputs in (usual | nothing, usual | nothing | {"confidence": np.ones(1, np.float32)}):
        answer = PersonalDetections(*run(inputs))
        assert len(answer.boxes) == (len(wanted.rows(0)) if inputs["confidence"] < 1 else 0)
        assert (answer.personal == UNKNOWN).all()
        assert (answer.closeness == -1).all()
    blind = PersonalDetections(*run(usual | {"confidence": np.ones(1, np.float32)}))
    assert [answer.shape for answer in blind] == [(0, 4), (0,), (0,), (0,), (0,), (0, WIDTH), (0, WIDTH)]


def test_a_prototype_more_is_an_input_and_its_threshold_decides(run: Runner, wanted: Wanted) -> None:
    usual = wanted.inputs(0)
    before = PersonalDetections(*run(usual))
    shown = np.flatnonzero(before.personal == UNKNOWN)[0]
    for threshold, name in ((0.9, len(usual["coarse"])), (1.1, UNKNOWN)):
        more = {
            "prototypes": np.append(usual["prototypes"], before.embeddings[[shown]], axis=0),
            "coarse": np.append(usual["coarse"], before.classes[[shown]]),
            "objects": np.append(usual["objects"], 99),
            "threshold": np.append(usual["threshold"], np.float32(threshold)),
        }
        after = PersonalDetections(*run(usual | more))
        assert after.personal[shown] == name
        assert after.closeness[shown] == pytest.approx(1, abs=1e-5)
        assert (after.boxes == before.boxes).all()


def test_boxes_overlap_only_where_their_classes_differ(run: Runner, wanted: Wanted) -> None:
    answer = PersonalDetections(*run(wanted.inputs(0) | FAINT))
    overlap = np.triu(box_iou(answer.boxes, answer.boxes), 1)
    same = answer.classes[:, None] == answer.classes
    assert overlap[same].max() <= 0.7
    assert overlap[~same].max() > 0.7


def test_features_come_from_the_area_alone(run: Runner, wanted: Wanted) -> None:
    usual = wanted.inputs(0) | FAINT
    whole, part = (np.array([0, 0, 96, bottom], np.float32) for bottom in (96, 70))
    inside, beyond = (PersonalDetections(*run(usual | {"area": area})) for area in (part, whole))
    outside = beyond.boxes[:, 3] > 70
    assert 0 < outside.sum() < len(outside)
    moved = np.abs(inside.embeddings - beyond.embeddings).max(axis=1) > 1e-3
    np.testing.assert_array_equal(moved, outside)
    np.testing.assert_array_equal(inside.boxes, beyond.boxes)


# --- where nothing of ours is -----------------------------------------------------------------------------------------

WITHOUT_US = """
import sys

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Gone())
exec(compile(sys.stdin.read(), "program", "exec"), {})
"""
GONE = "torch,torchvision,ultralytics,mocha_pipe,safetensors,onnx,scipy,cv2,PIL"


CHECK = """
import sys
for name in sys.argv[1].split(","):
    try:
        __import__(name)
    except ModuleNotFoundError:
        print(name)
"""


def programs() -> list[str]:
    """Those of the document: detect, draw, and learn."""
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def device(exported: Path, wanted: Wanted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies on a device, and what its camera sees."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "student.onnx").write_bytes(exported.read_bytes())
    wanted.profile.save(folder / "profile.safetensors")
    Profile.empty(wanted.profile.student, CLASSES).save(folder / "empty.safetensors")
    np.save(folder / "frame.npy", read_image(wanted.source.records[FITS].path))
    return folder


@pytest.fixture(scope="module")
def detect(wanted: Wanted) -> str:
    """The first program, with the confidence that its picture needs here."""
    return programs()[0].replace("0.25", repr(wanted.confidence[FITS]))


@pytest.fixture(scope="module")
def printed(device: Path, detect: str) -> list[list[str]]:
    """What a device prints: names, what it does after learning, names by an empty profile, packages that it lacks."""
    again = "print(names[personal[detect(np.load('frame.npy'))[3][0]]], thresholds.max() < 1)"
    empty = detect.replace("profile.safetensors", "empty.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, GONE], cwd=device, capture_output=True, text=True, check=False,
        input="\nprint('--')\n".join([detect, f"{programs()[2]}\n{again}", empty, CHECK]),
    )  # fmt: skip
    assert done.stderr == ""
    return [part.splitlines() for part in done.stdout.split("--\n")]


def test_the_documented_program_runs_without_torch_and_finds_the_same(printed: list[list[str]], wanted: Wanted) -> None:
    rows, expected = wanted.rows(FITS), []
    for row in rows[np.argsort(-wanted.found.detection_score[rows])]:
        personal, coarse = wanted.personal[row], wanted.found.detection_coarse[row]
        own = CLASSES[coarse]
        name = own if personal == UNKNOWN else f"{wanted.profile.names[personal]} ({own})"
        box = wanted.found.detection_xyxy[row].round().astype(int)
        expected.append(" ".join([name, f"{wanted.found.detection_score[row]:.2f}", *map(str, box)]))
    assert printed[0] == expected
    assert set(wanted.personal[rows]) > {UNKNOWN}


def test_the_packages_are_really_gone(printed: list[list[str]]) -> None:
    assert printed[3] == GONE.split(",")


def test_the_documented_program_draws_what_it_found(
    device: Path, detect: str, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(device)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(f"{detect}\n{programs()[1]}", {})
    rows = wanted.rows(FITS)
    left, top, _, bottom = wanted.found.detection_xyxy[rows[wanted.personal[rows] != UNKNOWN][0]]
    row, column = round((top + bottom) / 2), round(left)
    drawn = np.array(Image.open(device / "found.png"))
    assert (drawn[row, column : column + 2] == 255).all()
    assert (drawn != np.load(device / "frame.npy")).any(axis=2).mean() < 0.9, "the picture is still there"


def test_the_documented_program_learns_an_object(printed: list[list[str]]) -> None:
    assert printed[1] == ["my new mug True"]


def test_the_documented_program_takes_a_profile_without_objects(printed: list[list[str]]) -> None:
    assert len(printed[2]) == len(printed[0])
    assert {line.split()[0] for line in printed[2]} <= set(CLASSES)


def test_the_documented_program_takes_a_class_with_more_objects_than_there_are_thresholds(
    device: Path, wanted: Wanted, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = json.loads(onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map["thresholds"])
    vectors = np.random.default_rng(0).standard_normal((len(many) + 1, WIDTH))
    profile = Profile.empty(wanted.profile.student, CLASSES)
    learnt = make_learner("conditional").learn(vectors, np.zeros(len(vectors), int), np.arange(len(vectors)))
    names, nothing = tuple(f"mug {number}" for number in range(len(vectors))), profile.lessons
    replace(profile, names=names, learner=learnt, lessons=nothing).save(device / "many.safetensors")
    monkeypatch.chdir(device)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(programs()[0].replace("profile.safetensors", "many.safetensors"), {})
    assert said.getvalue()


@pytest.mark.parametrize("learner", ["simpleshot", "gallery"])
def test_the_documented_program_compares_as_the_learner_does(learner: str) -> None:
    """The part that takes a profile's rows."""
    function = re.search(r"def compared.*?\n\n", programs()[0], flags=re.DOTALL)
    profile = Profile.empty("digest", CLASSES, learner=learner)
    for number in range(4):
        photos = np.random.default_rng(number).standard_normal((3, WIDTH))
        profile = profile.add(f"thing {number}", photos, np.array([0, number % 3, 3]))
    here: dict[str, Any] = {"np": np, "about": {"learner": learner}, **profile.learner.tensors()}
    exec(function[0], here)
    vectors, compete = here["compared"]()
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, profile.learner.compared(), atol=1e-6)
    np.testing.assert_array_equal(compete, profile.learner.candidates(profile.learner.coarse_))


def test_the_documented_resizing_is_opencvs() -> None:
    """To the last bit where OpenCV computes as here; elsewhere it may round otherwise."""
    function = re.search(r"def resized.*?\n\n", programs()[0], flags=re.DOTALL)
    here: dict[str, Any] = {"np": np}
    exec(function[0], here)
    for shape in ((37, 101), (64, 96), (2, 300)):
        picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        for rows, columns in ((96, 64), (20, 30), (37, 101), (32, 48), (32, 96), (128, 192), (1, 1)):
            expected = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)
            difference = here["resized"](picture, rows, columns).astype(int) - expected
            assert np.abs(difference).max() <= (platform.machine() not in {"x86_64", "AMD64"})
