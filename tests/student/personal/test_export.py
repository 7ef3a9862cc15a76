"""Exported students against the embedder and the namer, and where none of our packages is installed."""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from ultralytics.data.augment import LetterBox
from ultralytics.utils.ops import scale_boxes

from mocha_pipe.data.boxes import box_iou
from mocha_pipe.data.images import read_image
from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.student.choices import FeatureSet
from mocha_pipe.student.errors import StudentModelNotFoundError
from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.prototypes import LEARNERS
from mocha_pipe.student.fewshot.strangers import CalibrationError, accept_above, load_strangers, save_strangers
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.embedder import RegionEmbedder, picture_area
from mocha_pipe.student.network.features import region_features, tap
from mocha_pipe.student.network.pool_pass import PoolPass
from mocha_pipe.student.network.student_files import load_student, save_student
from mocha_pipe.student.personal import export as export_module
from mocha_pipe.student.personal.export import ABOUT_FILE, FILE_FORMATS, ExportError, accept_thresholds, export_student
from mocha_pipe.student.personal.graph import PersonalDetections
from mocha_pipe.student.personal.naming import Namer
from mocha_pipe.student.personal.profile import Profile, student_digest
from tests.shared import ROOT

DOCUMENT = ROOT / "docs/onnx.md"
CLASSES = ("cup", "ball", "böot")
RATE = 0.3
FAINTEST = 0.4
LEAST, MOST = 5, 12  # detections of an image that are compared
FAINT = {"confidence": np.array([0.02], np.float32)}
STRANGERS = np.linspace(-1, 1, 1999)
SIZES = [(90, 60), (64, 64), (37, 101), (200, 80), (96, 70)]  # width, height; the last fits as it is

Runner = Callable[[dict[str, NDArray[np.generic]]], Sequence[NDArray[np.generic]]]


def letterboxed(path: Path, size: int) -> NDArray[np.float32]:
    pixels = LetterBox((size, size), auto=False)(image=read_image(path))
    return pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255


def spread_scores(model: DistillModel, images: torch.Tensor) -> None:
    """Scores over all of 0..1, most of them low, and boxes of some cells, so that neighbours overlap."""
    head = model.model[-1]
    for scores, sides in zip(head.cv3, head.cv2, strict=True):
        scores[-1].bias.data.zero_()
        if head.reg_max > 1:
            sides[-1].bias.data = -torch.arange(head.reg_max).repeat(4).float() / 5
    with torch.no_grad():
        found = model(images)[1]
    logits = found.get("one2many", found)["scores"]
    for level in head.cv3:
        level[-1].weight.data *= 1.5 / logits.std()
        level[-1].bias.data -= 3 + 1.5 * logits.mean() / logits.std()


def make_student(
    config: str, folder: Path, source: DetectionSource, size: int, *, features: FeatureSet = "fine"
) -> Path:
    """A student that nothing was taught; on images of this source its features are of size one, its scores spread."""
    torch.manual_seed(0)
    model = DistillModel(config, num_classes=len(CLASSES), features=features, target_dim=24)
    model.names = dict(enumerate(CLASSES))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            layer.momentum = None  # statistics of what passes now
            if layer.affine:  # nearly linear: random layers at full size blow up rounding, as trained ones do not
                torch.nn.init.constant_(layer.weight, 0.1)
    images = torch.from_numpy(np.concatenate([letterboxed(record.path, size) for record in source.records[:16]]))
    model.train()
    with torch.no_grad(), tap(model, features) as maps:
        model(images)
        corners = torch.rand(64, 2, 2).sort(dim=1).values.flatten(1)
        model.translation(region_features(maps, torch.arange(64) % len(images), corners))
    spread_scores(model.eval(), images)
    save_student(model, folder, image_size=size, meta={})
    save_strangers(folder, STRANGERS)
    return folder


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What PyTorch finds in a source, and the names that the namer gives."""

    source: DetectionSource
    size: int
    confidence: list[float]
    """For each image, so that it has a handful of detections and none of their scores is near."""
    found: PoolPass
    """With these and fainter ones."""
    profile: Profile
    personal: NDArray[np.int64]
    closeness: NDArray[np.float64]

    def rows(self, image: int) -> NDArray[np.int64]:
        """Of `found`: what is above the confidence."""
        return np.flatnonzero(
            (self.found.detection_image == image) & (self.found.detection_score > self.confidence[image])
        )

    def inputs(self, image: int) -> dict[str, NDArray[np.generic]]:
        record, learner = self.source.records[image], self.profile.learner
        counts = np.bincount(learner.coarse_)[learner.coarse_]
        thresholds = [accept_above(STRANGERS, RATE, count) for count in counts.tolist()]
        return {
            "image": letterboxed(record.path, self.size),
            "area": picture_area((self.size, self.size), (record.height, record.width)).astype(np.float32),
            "prototypes": learner.prototypes_, "coarse": learner.coarse_,
            "threshold": np.array(thresholds, np.float32),
            "confidence": np.array([self.confidence[image]], np.float32),
        }  # fmt: skip


def want(folder: Path, source: DetectionSource, learner: str = "conditional") -> Wanted:
    """Two objects of each class but the last are detections of the source, seen once or twice."""
    student = load_student(folder)
    found = RegionEmbedder(student, image_size=student.image_size, confidence=FAINTEST).embed_pool(source)
    profile = Profile.empty(student_digest(folder), CLASSES, learner=learner)
    for coarse, name in enumerate(CLASSES[:-1]):
        rows = np.flatnonzero(found.detection_coarse == coarse)
        last = rows[found.detection_image[rows] == found.detection_image[rows[-1]]]
        for number, shown in enumerate((last[:1], rows[:2])):
            profile = profile.add(f"{name} {number}", found.detection_embedding[shown], np.full(len(shown), coarse))
    rows, _ = profile.learner.nearest(found.detection_embedding, found.detection_coarse)
    personal, _ = Namer(profile, STRANGERS, RATE)(found.detection_embedding, found.detection_coarse)
    scores = [found.detection_score[found.detection_image == image] for image in range(len(source.records))]
    return Wanted(
        source=source, size=student.image_size, confidence=[between_scores(own) for own in scores], found=found,
        profile=profile, personal=personal, closeness=profile.learner.closeness(found.detection_embedding, rows),
    )  # fmt: skip


def between_scores(scores: NDArray[np.float32]) -> float:
    """A confidence in the widest gap after the LEAST to MOST best scores, for NMS keeps what it had when more come."""
    if len(scores) <= LEAST:
        return FAINTEST
    gap = LEAST + np.diff(scores[LEAST - 1 : MOST + 1]).argmin()
    return float(scores[gap - 1 : gap + 1].mean())


def onnx_runner(path: Path) -> Runner:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda inputs: session.run(list(PersonalDetections._fields), inputs)


def torchscript_runner(path: Path) -> Runner:
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        module = torch.jit.load(path)
    order = ("image", "area", "prototypes", "coarse", "threshold", "confidence")

    def run(inputs: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        with torch.no_grad():
            return [answer.numpy() for answer in module(*(torch.from_numpy(inputs[name].copy()) for name in order))]

    return run


def assert_equal_to_pytorch(run: Runner, wanted: Wanted) -> None:
    """The same boxes, scores, classes, embeddings, names and closeness, in the same order."""
    found = wanted.found
    for image, record in enumerate(wanted.source.records):
        answer, here = PersonalDetections(*run(wanted.inputs(image))), wanted.rows(image)
        assert len(answer.boxes) == len(here)
        boxes = scale_boxes((wanted.size, wanted.size), answer.boxes.copy(), (record.height, record.width))
        # Scores equal to within rounding may change places, and clipped to the picture two boxes may be one.
        apart = np.abs(boxes[:, None] - found.detection_xyxy[here]).max(axis=2, initial=0)
        apart += 1e3 * np.abs(answer.scores[:, None] - found.detection_score[here])
        here = here[np.where(answer.classes[:, None] == found.detection_coarse[here], apart, np.inf).argmin(axis=1)]
        assert len(set(here)) == len(here)
        assert (np.diff(answer.scores) <= 0).all()
        np.testing.assert_allclose(boxes, found.detection_xyxy[here], rtol=0, atol=1e-3)
        np.testing.assert_allclose(answer.scores, found.detection_score[here], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(answer.classes, found.detection_coarse[here])
        np.testing.assert_allclose(answer.embeddings, found.detection_embedding[here], rtol=0, atol=1e-3)
        names = np.append(wanted.profile.learner.personal_, UNKNOWN)[answer.personal]
        np.testing.assert_array_equal(names, wanted.personal[here])
        np.testing.assert_allclose(answer.closeness, np.maximum(wanted.closeness[here], -1), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> DetectionSource:
    root = tmp_path_factory.mktemp("world") / "miniature"
    make_miniature(
        root, WorldSize(train_scenes=1, val_scenes=100, objects_per_shape=2, scenes_per_object=1), progress=False
    )
    return open_source(root / "data.yaml", "val")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DetectionSource:
    """Random blocks in five sizes."""
    folder, rng, records = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for width, height in SIZES:
        path = folder / f"{width}.png"
        blocks = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        blocks.resize((width, height), Image.Resampling.NEAREST).save(path)
        nothing = {"xyxy": np.zeros((0, 4)), "class_ids": np.zeros(0, np.int64)}
        records.append(ImageRecord(path=path, name=path.name, width=width, height=height, **nothing))
    return DetectionSource(root=folder, split="test", class_names=CLASSES, records=tuple(records))


@pytest.fixture(scope="module")
def folders(
    tiny_models: dict[str, str], pictures: DetectionSource, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Folder of a tiny student, made when it is first asked for."""
    made: dict[tuple[str, FeatureSet], Path] = {}

    def make(family: str, features: FeatureSet = "fine") -> Path:
        if (family, features) not in made:
            folder = tmp_path_factory.mktemp(family) / "student"
            made[family, features] = make_student(tiny_models[family], folder, pictures, 96, features=features)
        return made[family, features]

    return make


@pytest.fixture(scope="module")
def folder(folders: Callable[..., Path]) -> Path:
    return folders("v8")


@pytest.fixture(scope="module")
def wanted(folder: Path, pictures: DetectionSource) -> Wanted:
    return want(folder, pictures)


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    export_student(folder, path, false_accept_rate=RATE)
    return path


@pytest.fixture(scope="module")
def scripted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchscript") / "student.torchscript"
    export_student(folder, path, file_format="torchscript", false_accept_rate=RATE)
    return path


# --- equality ---------------------------------------------------------------------------------------------------------


def test_onnx_equals_pytorch_on_a_hundred_scenes(scenes: DetectionSource, tmp_path: Path) -> None:
    folder = make_student("yolov8n.yaml", tmp_path / "student", scenes, 160)
    wanted = want(folder, scenes)
    compared = np.concatenate([wanted.rows(image) for image in range(100)])
    assert len(compared) > 500
    assert set(wanted.personal[compared]) == {UNKNOWN, 0, 1, 2, 3}
    export_student(folder, tmp_path / "student.onnx")
    assert_equal_to_pytorch(onnx_runner(tmp_path / "student.onnx"), wanted)


@pytest.mark.parametrize(("family", "features"), [("v8", "fine"), ("v8", "paper"), ("11", "fine"), ("26", "fine")])
def test_every_family_of_detectors_and_set_of_features_equals_pytorch(
    folders: Callable[..., Path], pictures: DetectionSource, family: str, features: FeatureSet, tmp_path: Path
) -> None:
    folder = folders(family, features)
    export_student(folder, tmp_path / "student.onnx")
    assert_equal_to_pytorch(onnx_runner(tmp_path / "student.onnx"), want(folder, pictures))


@pytest.mark.parametrize("learner", [name for name in LEARNERS if name != "conditional"])
def test_every_learner_equals_pytorch(folder: Path, pictures: DetectionSource, learner: str, tmp_path: Path) -> None:
    export_student(folder, tmp_path / "student.onnx", learner=learner)
    assert_equal_to_pytorch(onnx_runner(tmp_path / "student.onnx"), want(folder, pictures, learner))


def test_torchscript_equals_pytorch_and_says_the_same_about_itself(
    wanted: Wanted, exported: Path, scripted: Path
) -> None:
    assert_equal_to_pytorch(torchscript_runner(scripted), wanted)
    extra = {ABOUT_FILE: ""}
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        torch.jit.load(scripted, _extra_files=extra)
    assert json.loads(extra[ABOUT_FILE]) == onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_without_objects_and_without_detections_the_answer_is_empty(
    exported: Path, scripted: Path, wanted: Wanted, form: str
) -> None:
    run = onnx_runner(exported) if form == "onnx" else torchscript_runner(scripted)
    usual = wanted.inputs(0)
    nothing = {name: usual[name][:0] for name in ("prototypes", "coarse", "threshold")}
    for inputs in (usual | nothing, usual | nothing | {"confidence": np.ones(1, np.float32)}):
        answer = PersonalDetections(*run(inputs))
        assert len(answer.boxes) == (len(wanted.rows(0)) if inputs["confidence"] < 1 else 0)
        assert (answer.personal == UNKNOWN).all()
        assert (answer.closeness == -1).all()
    blind = PersonalDetections(*run(usual | {"confidence": np.ones(1, np.float32)}))
    assert [answer.shape for answer in blind] == [(0, 4), (0,), (0,), (0,), (0,), (0, 24)]


def test_a_prototype_more_is_an_input_and_its_threshold_decides(exported: Path, wanted: Wanted) -> None:
    run, usual = onnx_runner(exported), wanted.inputs(0)
    before = PersonalDetections(*run(usual))
    shown = np.flatnonzero(before.personal == UNKNOWN)[0]
    for threshold, name in ((0.9, len(usual["coarse"])), (1.1, UNKNOWN)):
        more = {
            "prototypes": np.append(usual["prototypes"], before.embeddings[[shown]], axis=0),
            "coarse": np.append(usual["coarse"], before.classes[[shown]]),
            "threshold": np.append(usual["threshold"], np.float32(threshold)),
        }
        after = PersonalDetections(*run(usual | more))
        assert after.personal[shown] == name
        assert after.closeness[shown] == pytest.approx(1, abs=1e-5)
        assert (after.boxes == before.boxes).all()


def test_boxes_overlap_only_where_their_classes_differ(exported: Path, wanted: Wanted) -> None:
    answer = PersonalDetections(*onnx_runner(exported)(wanted.inputs(0) | FAINT))
    overlap = np.triu(box_iou(answer.boxes, answer.boxes), 1)
    same = answer.classes[:, None] == answer.classes
    assert overlap[same].max() <= 0.7
    assert overlap[~same].max() > 0.7


def test_features_come_from_the_area_alone(exported: Path, wanted: Wanted) -> None:
    run, usual = onnx_runner(exported), wanted.inputs(0) | FAINT
    whole, part = (np.array([0, 0, 96, bottom], np.float32) for bottom in (96, 70))
    inside, beyond = (PersonalDetections(*run(usual | {"area": area})) for area in (part, whole))
    outside = beyond.boxes[:, 3] > 70
    assert 0 < outside.sum() < len(outside)
    moved = np.abs(inside.embeddings - beyond.embeddings).max(axis=1) > 1e-3
    np.testing.assert_array_equal(moved, outside)
    np.testing.assert_array_equal(inside.boxes, beyond.boxes)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_says_what_it_is(folder: Path, exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    about = session.get_modelmeta().custom_metadata_map
    assert about == {
        "format": "mocha-pipe-1",
        "student": student_digest(folder),
        "class_names": '["cup", "ball", "böot"]',
        "image_size": "96",
        "features": "fine",
        "learner": "conditional",
        "false_accept_rate": "0.3",
        "thresholds": json.dumps(accept_thresholds(load_strangers(folder), RATE)),
    }
    inputs = {entry.name: (entry.shape, entry.type) for entry in session.get_inputs()}
    assert inputs == {
        "image": ([1, 3, 96, 96], "tensor(float)"),
        "area": ([4], "tensor(float)"),
        "prototypes": (["prototypes", 24], "tensor(float)"),
        "coarse": (["prototypes"], "tensor(int64)"),
        "threshold": (["prototypes"], "tensor(float)"),
        "confidence": ([1], "tensor(float)"),
    }
    outputs = {entry.name: (entry.shape, entry.type) for entry in session.get_outputs()}
    assert outputs == {
        "boxes": (["detections", 4], "tensor(float)"),
        "scores": (["detections"], "tensor(float)"),
        "classes": (["detections"], "tensor(int64)"),
        "personal": (["detections"], "tensor(int64)"),
        "closeness": (["detections"], "tensor(float)"),
        "embeddings": (["detections", 24], "tensor(float)"),
    }


def test_another_image_size_is_rounded_up_to_the_stride_and_gives_300_detections_at_most(
    folder: Path, wanted: Wanted, tmp_path: Path
) -> None:
    about = export_student(folder, tmp_path / "student.onnx", image_size=310)
    assert about["image_size"] == "320"
    image = np.random.default_rng(0).random((1, 3, 320, 320), np.float32)
    inputs = {"image": image, "area": np.array([0, 0, 320, 320], np.float32), "confidence": np.zeros(1, np.float32)}
    answer = PersonalDetections(*onnx_runner(tmp_path / "student.onnx")(wanted.inputs(0) | inputs))
    assert len(answer.boxes) == 300


def test_the_file_repeats_bitwise(folder: Path, exported: Path, tmp_path: Path) -> None:
    export_student(folder, tmp_path / "student.onnx", false_accept_rate=RATE)
    assert (tmp_path / "student.onnx").read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_exporting_is_quiet_and_leaves_one_file_that_names_no_folder_of_this_machine(
    folder: Path, form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    export_student(folder, tmp_path / "student", file_format=form)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    written = (tmp_path / "student").read_bytes()
    if form == "torchscript":
        with zipfile.ZipFile(tmp_path / "student") as archive:
            written = b"".join(archive.read(name) for name in archive.namelist())
    for place in (Path(export_module.__file__).parents[1], Path(torch.__file__).parents[1], tmp_path):
        assert str(place).encode() not in written


def test_thresholds_are_those_of_one_two_three_prototypes() -> None:
    strangers = np.linspace(0, 1, 100)  # 0.1 accepts 10 of them, shared by two 5, by ten 1, by eleven none
    thresholds = accept_thresholds(strangers, 0.1)
    assert thresholds == [accept_above(strangers, 0.1, objects) for objects in range(1, 11)]
    assert len(accept_thresholds(np.linspace(0, 1, 10_000), 0.1)) == 100


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


def run_without_us(program: str, folder: Path, gone: str = GONE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_US, gone], input=program, cwd=folder, capture_output=True, text=True, check=False
    )


def programs() -> list[str]:
    """Those of the document: detect, draw, and learn."""
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def device(exported: Path, wanted: Wanted, tmp_path: Path) -> Path:
    """What lies on a device: the last picture, which needs no resizing, is what its camera sees."""
    (tmp_path / "student.onnx").write_bytes(exported.read_bytes())
    wanted.profile.save(tmp_path / "profile.safetensors")
    np.save(tmp_path / "frame.npy", read_image(wanted.source.records[-1].path))
    return tmp_path


def test_the_documented_program_runs_without_torch_and_finds_the_same(device: Path, wanted: Wanted) -> None:
    detect, _, _ = programs()
    done = run_without_us(detect.replace("0.25", repr(wanted.confidence[-1])), device)
    assert done.stderr == ""
    rows, expected = wanted.rows(len(SIZES) - 1), []
    for row in rows[np.argsort(-wanted.found.detection_score[rows])]:
        personal, coarse = wanted.personal[row], wanted.found.detection_coarse[row]
        name = CLASSES[coarse] if personal == UNKNOWN else wanted.profile.names[personal]
        box = wanted.found.detection_xyxy[row].round().astype(int)
        expected.append(" ".join([name, f"{wanted.found.detection_score[row]:.2f}", *map(str, box)]))
    assert done.stdout.splitlines() == expected
    assert set(wanted.personal[rows]) > {UNKNOWN}


def test_the_packages_are_really_gone(device: Path) -> None:
    done = run_without_us("import onnxruntime, torch", device)
    assert "ModuleNotFoundError: torch" in done.stderr
    done = run_without_us("from mocha_pipe.student import errors", device)
    assert "ModuleNotFoundError: mocha_pipe" in done.stderr


def test_the_documented_program_draws_what_it_found(device: Path, wanted: Wanted) -> None:
    detect, draw, _ = programs()
    program = "\n".join([detect.replace("0.25", repr(wanted.confidence[-1])), draw])
    done = run_without_us(program, device, GONE.removesuffix(",PIL"))
    assert done.stderr == ""
    rows = wanted.rows(len(SIZES) - 1)
    left, top, _, bottom = wanted.found.detection_xyxy[rows[wanted.personal[rows] != UNKNOWN][0]]
    row, column = round((top + bottom) / 2), round(left)
    drawn = np.array(Image.open(device / "found.png"))
    assert (drawn[row, column : column + 2] == 255).all()
    assert (drawn != np.load(device / "frame.npy")).any(axis=2).mean() < 0.9, "the picture is still there"


def test_the_documented_program_learns_an_object(device: Path, wanted: Wanted) -> None:
    detect, _, learn = programs()
    again = "print(names[personal[detect(np.load('frame.npy'))[3][0]]], thresholds.max() < 1)"
    program = "\n".join([detect.replace("0.25", repr(wanted.confidence[-1])), learn, again])
    done = run_without_us(program, device)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "my new mug True"


def test_the_documented_program_takes_a_profile_without_objects(device: Path, wanted: Wanted) -> None:
    Profile.empty(wanted.profile.student, CLASSES).save(device / "profile.safetensors")
    done = run_without_us(programs()[0].replace("0.25", repr(wanted.confidence[-1])), device)
    assert done.stderr == ""
    assert {line.split()[0] for line in done.stdout.splitlines()} <= set(CLASSES)


def test_the_documented_resizing_is_opencvs_to_within_one_level() -> None:
    function = re.search(r"def resized.*?\n\n", programs()[0], flags=re.DOTALL)
    here: dict[str, Any] = {"np": np}
    exec(function[0], here)
    picture = np.random.default_rng(0).integers(0, 256, (37, 101, 3), dtype=np.uint8)
    for rows, columns in ((96, 64), (20, 30), (37, 101), (1, 1)):
        expected = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)
        difference = here["resized"](picture, rows, columns).astype(int) - expected
        assert np.abs(difference).max() <= 1


# --- refusals ---------------------------------------------------------------------------------------------------------


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


def test_a_rate_that_the_strangers_cannot_keep_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="needs 9999 or more regions"):
        export_student(folder, tmp_path / "student.onnx", false_accept_rate=0.0001)
    assert not list(tmp_path.iterdir())
