"""`mocha-pipe fewshot` on benchmarks from outside: classes found by name, reference settings, notes.

The detectors are stand-ins that find every true box, so that a wrong name can only come from what lies between.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from mocha_pipe.data.benchmarks import perseg
from mocha_pipe.data.benchmarks.handheld import CORE50
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.coarse import COARSE_NAMES
from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.pipeline.evaluation import fewshot as evaluation
from mocha_pipe.pipeline.evaluation import methods
from mocha_pipe.pipeline.evaluation.coarse import with_coarse_classes
from mocha_pipe.pipeline.report.page import write_html
from mocha_pipe.pipeline.settings.loading import load_config
from mocha_pipe.student.fewshot.episodes import source_regions
from mocha_pipe.student.fewshot.strangers import STRANGERS_FILE, save_strangers
from mocha_pipe.student.network.pool_pass import PoolPass

Command = Callable[..., Result]
BOX = "0.5 0.5 0.5 0.5"


@dataclass(frozen=True)
class Detector:
    """Stands in for a student."""

    class_names: tuple[str, ...]
    image_size: int = 64


class Finder:
    """Stands in for `RegionEmbedder`: finds every true box under its coarse class, and tells any two objects apart."""

    coarse: dict[str, str]
    confidences: list[float]

    def __init__(self, student: Detector, *, confidence: float, **_: object) -> None:
        self.class_names = student.class_names
        self.confidences.append(confidence)

    def embed_pool(self, source: DetectionSource, *, progress: bool) -> PoolPass:
        truth = source_regions(source)
        coarse = [self.class_names.index(self.coarse[source.class_names[number]]) for number in truth.personal]
        rows = np.eye(len(source.class_names), dtype=np.float32)[truth.personal]
        return PoolPass(
            detection_image=truth.image,
            detection_xyxy=truth.xyxy.astype(np.float32),
            detection_score=np.ones(len(rows), np.float32),
            detection_coarse=np.array(coarse, np.int64),
            detection_embedding=rows,
            region_embedding=rows,
        )


def write_scenes(root: Path, folder: str, ids: Sequence[int], copies: int, labels: str = "labels") -> None:
    for number in ids:
        for copy in range(copies):
            image, label = (root / folder / kind / f"{number:02}_{copy}" for kind in ("images", labels))
            image.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 16), (5 * number, 60 * copy, 99)).save(image.with_suffix(".png"))
            label.with_suffix(".txt").write_text(f"{number} {BOX}\n")


def write_photos(folder: Path, objects: Iterable[str]) -> None:
    for number, name in enumerate(objects):
        (folder / name).mkdir(parents=True)
        for copy in range(3):
            Image.new("RGB", (24, 16), (80 * number, 80 * copy, 99)).save(folder / name / f"{copy}.png")


@pytest.fixture(scope="module")
def perseg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("perseg") / "PerSeg"
    write_scenes(root, ".", range(39), 3)
    episodes = [
        {key: [f"{number:02}_{copy}" for number in range(39)] for key, copy in (("train", taught), ("val", taught + 1))}
        for taught in (0, 1)
    ]
    (root / "episodes.json").write_text(json.dumps(episodes))
    return root


@pytest.fixture
def run(no_page: None, tmp_path: Path, mark_distilled: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A completed distillation; the student knows the 31 classes, the base detector one more, in another order."""
    folder = tmp_path / "run"
    (folder / "student").mkdir(parents=True)
    for file in ("student/student.pt", "student/translation.safetensors", "base.pt"):
        (folder / file).write_text(file)
    # Closeness is 1 for an object and 0 for another one here.
    save_strangers(folder / "student", np.linspace(-0.9, 0.4, 500))
    mark_distilled(folder)
    detectors = {"student": Detector(COARSE_NAMES), "base.pt": Detector(("person", *COARSE_NAMES[::-1]))}
    monkeypatch.setattr(methods, "load_student", lambda path: detectors[path.name])
    monkeypatch.setattr(methods, "student_features", lambda path: "fine")
    monkeypatch.setattr(methods, "RegionEmbedder", Finder)
    monkeypatch.setattr(Finder, "confidences", [], raising=False)
    return folder


def fewshot(command: Command, run: Path, *arguments: object) -> Result:
    return command("fewshot", "--run", run, "--no-teacher", "--episodes", 2, "--json", *arguments)


def accuracies(result: Result, method: str) -> list[float]:
    assert result.exit_code == 0, result.stderr
    return [one["methods"][method]["accuracy"]["mean"] for one in json.loads(result.stdout)["results"]]


def notes(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("note: ")]


def test_a_published_benchmark_runs_on_a_detector_of_more_classes_in_any_order(
    command: Command, run: Path, perseg_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finder, "coarse", perseg.OBJECTS, raising=False)
    result = fewshot(command, run, "--benchmark", "perseg", "--data", perseg_folder)
    assert accuracies(result, "mocha") == [100.0]
    assert accuracies(result, "yolo") == [100.0]
    (figures,) = json.loads(result.stdout)["results"]
    assert (figures["benchmark"], figures["shots"], figures["episodes"]) == ("perseg", 1, 2)
    assert notes(result) == ["note: 1-shot episodes are those published with perseg"]
    assert Finder.confidences == [0.1, 0.1]
    for method in ("mocha", "yolo"):
        theirs = {name: figure["mean"] for name, figure in figures["reference"][method].items()}
        assert theirs == {"map50_95": pytest.approx(99.5), "image_accuracy": 100}, "the most that their mAP can be"
    shown = command(
        "fewshot", "--run", run, "--no-teacher", "--episodes", 2, "--benchmark", "perseg", "--data", perseg_folder
    )
    assert "as the paper's authors score" in shown.stdout


def test_shots_that_were_not_published_are_drawn_and_the_report_says_so(
    command: Command, run: Path, perseg_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finder, "coarse", perseg.OBJECTS, raising=False)
    monkeypatch.setattr(evaluation, "write_html", write_html)
    arguments = ("--benchmark", "perseg", "--data", perseg_folder, "--shots", 1, "--shots", 2, "--out", "out")
    result = fewshot(command, run, *arguments, "--confidence", 0.3)
    assert accuracies(result, "mocha") == [100.0, 100.0]
    said = ["1-shot episodes are those published with perseg", "2-shot episodes are drawn with seed 0"]
    assert notes(result) == [f"note: {line}" for line in said]
    assert all(line in Path("out/report.html").read_text() for line in said)
    assert Finder.confidences == [0.3, 0.3]


def test_a_folder_of_photographs_is_a_benchmark(
    command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {"my mug": "mug", "red mug": "mug", "my ball": "ball"}
    write_photos(tmp_path / "desk", objects)
    monkeypatch.setattr(Finder, "coarse", objects, raising=False)
    result = fewshot(command, run, "--benchmark", "desk", "--shots", 2)
    assert accuracies(result, "mocha") == [100.0]
    assert [line.partition(",")[0] for line in notes(result)] == ["note: no image of desk has a label file"]


def calibrated(result: Result) -> dict[str, float]:
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout)["results"][0]["unknown"]["calibrated"])


def test_the_threshold_of_the_student_is_measured_at_the_rate_that_is_asked_for(
    command: Command, run: Path, perseg_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finder, "coarse", perseg.OBJECTS, raising=False)
    question = ("--benchmark", "perseg", "--data", perseg_folder)
    first = calibrated(fewshot(command, run, *question))
    assert (first["rate"], first["false_accept"]["mean"], first["recall"]["mean"]) == (0.05, 0.0, 1.0)
    save_strangers(run / "student", np.linspace(1.1, 1.5, 500))
    again = calibrated(fewshot(command, run, *question, "--false-accept-rate", 0.99))
    assert again["recall"]["mean"] == 0, "other strangers, another answer"


def test_a_student_without_strangers_leaves_its_threshold_out_with_a_note(
    command: Command, run: Path, perseg_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finder, "coarse", perseg.OBJECTS, raising=False)
    file = run / "student" / STRANGERS_FILE
    file.unlink()
    result = fewshot(command, run, "--benchmark", "perseg", "--data", perseg_folder, "--shots", 1, "--shots", 2)
    assert notes(result)[2:] == [
        f"note: What the student's threshold accepts is left out: {file}: no such file; run `mocha-pipe distill` "
        "again, which measures it."
    ]
    for one in json.loads(result.stdout)["results"]:
        assert one["unknown"]["methods"]["mocha"]["auroc"]["mean"] == 1
        assert "calibrated" not in one["unknown"]


def test_objects_of_one_class_each_leave_unknown_ones_out_with_a_note(
    command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {"my mug": "mug", "my ball": "ball"}
    write_photos(tmp_path / "desk", objects)
    monkeypatch.setattr(Finder, "coarse", objects, raising=False)
    result = fewshot(command, run, "--benchmark", "desk", "--shots", 1, "--shots", 2)
    assert accuracies(result, "mocha") == [100.0, 100.0]
    assert all("unknown" not in one for one in json.loads(result.stdout)["results"])
    (note,) = (line for line in notes(result) if line.startswith("note: Unknown objects are left out: "))
    assert note.endswith("none can be held out, as no episode asks about two objects of one coarse class")


def test_reference_settings_are_defaults_that_flags_and_files_change(tmp_path: Path) -> None:
    def confidence(**values: object) -> float | None:
        return load_config(None, {"fewshot": values}).fewshot.confidence

    published = {"benchmark": Path("core50"), "benchmark_data": tmp_path}
    assert confidence(**published) == 0.001
    assert confidence(**{**published, "benchmark": Path("icubworld")}) == 0.001
    assert confidence(**{**published, "benchmark": Path("pod-dark")}) == 0.1
    assert confidence(**published, confidence=0.2) == 0.2
    assert confidence(benchmark=Path("core50")) == 0.1, "a folder of one's own that is called so"
    assert confidence() == 0.1
    assert load_config(None, {}).fewshot.episodes == 100


def test_coarse_classes_are_found_by_name(tmp_path: Path) -> None:
    write_scenes(tmp_path, "train", range(1), 2)
    benchmark = open_benchmark("core50", tmp_path)
    names = ("Person", *(name.capitalize() for name in benchmark.coarse_names[::-1]))
    found = with_coarse_classes(benchmark, names, "student", "train another")
    assert found.coarse_names == names
    assert [found.coarse_names[number].lower() for number in found.coarse_of] == list(CORE50.values())
    assert found.source is benchmark.source


def test_a_folder_is_what_the_longest_class_that_ends_its_name_says(tmp_path: Path) -> None:
    objects = ["Anna's teddy bear", "my cell phone", "my teddy", "polar bear"]
    for name in objects:
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / name / "a.png")
    benchmark = open_benchmark(tmp_path)
    names = ("bear", "cell phone", "teddy bear", "Teddy")
    found = with_coarse_classes(benchmark, names, "student", "train another")
    assert [names[coarse] for coarse in found.coarse_of] == ["teddy bear", "cell phone", "Teddy", "bear"]
    plain = with_coarse_classes(benchmark, ("bear", "phone", "teddy"), "student", "train another")
    assert [plain.coarse_names[coarse] for coarse in plain.coarse_of] == ["bear", "phone", "teddy", "bear"]
    (tmp_path / "coarse.yaml").write_text("Anna's teddy bear: bear\n", encoding="utf-8")
    said = open_benchmark(tmp_path)
    assert names[with_coarse_classes(said, names, "student", "train another").coarse_of[0]] == "bear"
    assert said.fingerprint() != benchmark.fingerprint()
    with pytest.raises(DatasetError, match="lacks phone; it knows bear, teddy"):
        with_coarse_classes(benchmark, ("bear", "teddy"), "student", "train another")


def test_a_base_detector_without_the_classes_is_refused(
    command: Command, run: Path, perseg_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detectors = {"student": Detector(COARSE_NAMES), "base.pt": Detector(("person", "dog", "cat", "chair", "clock"))}
    monkeypatch.setattr(methods, "load_student", lambda path: detectors[path.name])
    result = fewshot(command, run, "--benchmark", "perseg", "--data", perseg_folder)
    assert result.exit_code == 2
    assert result.stderr == (
        "error: base detector must know all coarse classes of the benchmark perseg, but lacks fruit, can, backpack, "
        "toy ... (9); it knows person, dog, cat, chair ... (5): name one trained on them with --base (see mocha-pipe "
        "pretrain)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--benchmark", "perseg"), "the benchmark perseg needs to know where it lies; name its folder with --data"),
        (
            ("--benchmark", "pod", "--data", "nowhere"),
            "nowhere: no such folder; name the one that holds pod with --data",
        ),
        (
            ("--data", "."),
            "--data is the folder of a published benchmark (perseg, pod, pod-crop-light, pod-crop-dark, "
            "pod-val, pod-light, pod-dark, pods, core50, icubworld), but --benchmark is work/miniature/benchmark; "
            "name one of them, or leave out --data where --benchmark is a folder itself",
        ),
    ],
)
def test_a_benchmark_that_cannot_be_found_is_one_line(
    command: Command, run: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = fewshot(command, run, *arguments)
    assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")


def test_import_of_open_images_says_what_came_and_what_to_do_next(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "oi"
    (source / "validation").mkdir(parents=True)
    Image.new("RGB", (24, 16)).save(source / "validation/0d4.jpg")
    (source / "class-descriptions-boxable.csv").write_text("/m/02jvh9,Mug\n")
    (source / "validation-annotations-bbox.csv").write_text(
        "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf,IsDepiction\n0d4,/m/02jvh9,0.1,0.9,0.1,0.9,0,0\n"
    )
    result = command("data", "import", "openimages", "oi", "my set")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "look at it: mocha-pipe data check 'my set/data.yaml'"
    assert command("data", "check", "my set/data.yaml").exit_code == 0
    copied = command("data", "import", "openimages", "oi", "copy", "--copy", "--json")
    assert json.loads(copied.stdout) == [
        {"split": "val", "images": 1, "boxes": 1, "missing_images": 0, "depictions": 0, "groups": 0}
    ]
    assert not (tmp_path / "copy/images/val/0d4.jpg").is_symlink()
    again = command("data", "import", "openimages", "oi", "copy")
    assert (again.exit_code, again.stderr) == (
        2,
        "error: copy: must be a new or empty folder, found something there; name another one\n",
    )
