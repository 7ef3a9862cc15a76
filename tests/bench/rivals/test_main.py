"""The rivals' table from a real run at toy size, and its accuracies against the few-shot evaluation and by hand."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import numpy as np
import pytest
import ultralytics
from rich.console import Console
from typer.testing import CliRunner

from bench.inputs import shipped_teacher
from bench.rivals import __main__ as rivals
from bench.rivals import yoloe
from bench.rivals.__main__ import legend, measure, region_accuracy, rivals_table
from bench.rivals.contestants import BASE_GALLERY, CLIP_GALLERY, OURS, STUDENT_GALLERY, YOLOE, Race, Speed
from bench.teachers.visual_alone import num_visual_weights
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.images import read_image
from mocha_pipe.pipeline.errors import StageMissingError
from mocha_pipe.pipeline.evaluation.fewshot import drawn_episodes
from mocha_pipe.pipeline.evaluation.methods import pool_passes
from mocha_pipe.pipeline.markers import Completion, read_completion, read_json
from mocha_pipe.pipeline.run.inputs import DISTILL, last_distillation
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.student.fewshot.episodes import Question, evaluate_episodes, source_regions
from mocha_pipe.student.fewshot.metrics import NamedBoxes
from mocha_pipe.teacher_cache.crops import cut_crop

ROWS = [OURS, STUDENT_GALLERY, BASE_GALLERY, CLIP_GALLERY, YOLOE]


@pytest.fixture(scope="module")
def run(toy_config: RunConfig) -> Completion:
    return read_completion(last_distillation(toy_config.root), stage=DISTILL, command="")


@dataclass
class Measured:
    """A whole measurement without weights for YOLOE, and what it was made from."""

    report: dict[str, Any]
    race: Race
    features: Any


@pytest.fixture(scope="module")
def measured(toy_config: RunConfig, tiny_yoloe: Path, in_this_process: Callable[..., Any]) -> Measured:
    seen: list[Any] = []

    def race(name: str, work: Callable[..., Any], asked: Race) -> Any:
        seen.append(asked)
        return in_this_process(name, work, asked)

    features = rivals._features
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yoloe, "MODEL", str(tiny_yoloe))
        patch.setattr(rivals, "in_a_process", race)
        patch.setattr(rivals, "_features", lambda *asked: seen.append(features(*asked)) or seen[0])
        report = measure(toy_config, None, images=2, rounds=1)
    return Measured(report, race=seen[1], features=seen[0])


@pytest.fixture
def report(measured: Measured) -> dict[str, Any]:
    """A report that a test may change."""
    return deepcopy(measured.report)


@pytest.fixture(scope="module")
def expected(toy_config: RunConfig, run: Completion) -> dict[tuple[str, int], float]:
    """Region accuracies by the few-shot evaluation; CLIP's by plain loops over `visual` of the whole teacher."""
    settings = replace(toy_config.fewshot, teacher=False)
    assert settings.benchmark is not None
    benchmark, passes, _ = pool_passes(settings, run, open_benchmark(settings.benchmark))
    regions, teacher, vectors = source_regions(benchmark.source), shipped_teacher(), []
    for image, box in zip(regions.image, regions.xyxy, strict=True):
        pixels = read_image(benchmark.source.records[image].path)
        crop = cut_crop(pixels, box, teacher.spec.crop_margin, teacher.spec.crop_size)
        vector = teacher.embed([crop], ["thing"]).visual[0]
        vectors.append(vector / np.linalg.norm(vector))
    found = {}
    for shots in settings.shots:
        episodes = drawn_episodes(benchmark, settings, shots)
        for name, method, learner in (
            (OURS, "mocha", "conditional"), (STUDENT_GALLERY, "mocha", "gallery"), (BASE_GALLERY, "yolo", "gallery"),
        ):  # fmt: skip
            scores = evaluate_episodes(benchmark, episodes, {method: passes[method]}, learner=learner)
            found[name, shots] = scores[method].region_accuracy.mean()
        shares = []
        for episode in episodes:
            asked = [row for row in range(len(vectors)) if regions.image[row] in episode.query]
            photos = episode.support.ravel()
            nearest = [photos[np.argmax([vectors[row] @ vectors[photo] for photo in photos])] for row in asked]
            shares.append(100 * (regions.personal[nearest] == regions.personal[asked]).mean())
        found[CLIP_GALLERY, shots] = np.mean(shares)
    return found


def test_every_rival_that_embeds_has_its_region_accuracy(
    report: dict[str, Any], expected: dict[tuple[str, int], float]
) -> None:
    assert list(report["rivals"]) == ROWS
    for (name, shots), accuracy in expected.items():
        figure = report["rivals"][name]["accuracy"][str(shots)]
        assert figure["mean"] == pytest.approx(accuracy), (name, shots)
        assert figure["ci95"][0] <= figure["mean"] <= figure["ci95"][1]


def test_yoloe_without_weights_has_speed_and_no_accuracy(report: dict[str, Any]) -> None:
    assert report["rivals"][YOLOE]["accuracy"] is None
    assert report["yoloe"] is None
    for row in report["rivals"].values():
        assert set(row["ms"]) == {"enrol", "find"}
        assert min(row["ms"].values()) > 0


def test_sizes_are_those_of_the_files_a_device_needs(report: dict[str, Any], run: Completion, tiny_yoloe: Path) -> None:
    student = run.folder / "student"
    own = (student / "student.pt").stat().st_size + (student / "translation.safetensors").stat().st_size
    base = run.path("base").stat().st_size
    clip = base + 2 * num_visual_weights(shipped_teacher())
    of_yoloe = 2 * sum(weight.numel() for weight in ultralytics.YOLOE(tiny_yoloe).model.parameters())
    sizes = [own, own, base, clip, of_yoloe]
    assert [report["rivals"][name]["megabytes"] for name in ROWS] == [round(size / 1e6, 2) for size in sizes]


def test_the_table_fits_a_terminal_and_says_what_is_missing(report: dict[str, Any]) -> None:
    wide = {"mean": 83.04, "ci95": [81.2, 100.0]}
    for row in report["rivals"].values():
        row = (
            row
            if row["accuracy"] is None
            else row.update(accuracy={"1": wide, "5": wide}, ms={"enrol": 1234.56, "find": 23.4})
        )
    console = Console(width=80, record=True)
    console.print(rivals_table(report))
    lines = console.export_text().splitlines()
    shown = {name: next(line for line in lines if line.strip().startswith(name)) for name in ROWS}
    assert all(shown[name].count("83.0 [81.2, 100.0]") == 2 for name in ROWS[:4])
    assert "1234.6" in shown[OURS]
    assert shown[YOLOE].count("no weights given") == 2
    assert max(map(len, legend(report))) <= 100
    assert legend(report)[4] == (
        "YOLOE: yoloe-v8s.yaml with random weights, for mechanics and speed only; give weights with --yoloe"
    )


def test_weights_give_yoloe_an_accuracy(
    toy_config: RunConfig, measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Given:
        bytes = 3_210_000

        def __init__(self, weights: Path | None, **_: Any) -> None:
            assert weights == tmp_path / "yoloe.pt"

    def race(_name: str, _work: object, asked: Race) -> dict[str, Speed]:
        assert asked.yoloe == tmp_path / "yoloe.pt"
        return {name: Speed(enrol=1.0, find=2.0) for name in ROWS}

    monkeypatch.setattr(rivals, "_features", lambda *_: measured.features)
    monkeypatch.setattr(rivals, "PromptedDetector", Given)
    monkeypatch.setattr(rivals, "accuracies", lambda detector, source, questions: np.full(len(questions), 12.5))
    monkeypatch.setattr(rivals, "in_a_process", race)
    found = measure(toy_config, tmp_path / "yoloe.pt")
    row = found["rivals"][YOLOE]
    assert row["accuracy"] == {"1": {"mean": 12.5, "ci95": [12.5, 12.5]}, "2": {"mean": 12.5, "ci95": [12.5, 12.5]}}
    assert row["megabytes"] == 3.21
    assert legend(found)[4] == (
        f"YOLOE: {tmp_path}/yoloe.pt; several photos of an object are the mean of their prompt embeddings"
    )


def test_lessons_are_the_first_episodes_photos(toy_config: RunConfig, measured: Measured) -> None:
    assert toy_config.fewshot.benchmark is not None
    benchmark = open_benchmark(toy_config.fewshot.benchmark)
    first = drawn_episodes(benchmark, toy_config.fewshot, 1)[0]
    regions, records, race = source_regions(benchmark.source), benchmark.source.records, measured.race
    for lesson, row in zip(race.lessons, first.support[:, 0], strict=True):
        assert lesson.path == records[regions.image[row]].path
        np.testing.assert_array_equal(lesson.xyxy, regions.xyxy[row : row + 1])
    assert [image.path for image in race.images] == [records[image].path for image in first.query[:2]]
    assert (race.image_size, race.yoloe) == (64, None)


def test_a_teacher_that_cannot_be_had_leaves_its_row_out(
    toy_config: RunConfig, run: Completion, tmp_path: Path
) -> None:
    assert toy_config.fewshot.benchmark is not None
    gone = replace(run, outputs={**run.outputs, "cache": str(tmp_path / "cache")})
    _, features = rivals._features(toy_config.fewshot, gone, open_benchmark(toy_config.fewshot.benchmark))
    assert list(features.embeddings) == [OURS, STUDENT_GALLERY, BASE_GALLERY]
    assert features.teacher is None
    (note,) = features.notes
    assert note.startswith(
        f"the row 'CLIP gallery' is left out: there is no teacher cache at {tmp_path}/cache; make it"
    )


def test_a_root_without_a_student_is_refused(tmp_path: Path, toy_config: RunConfig) -> None:
    with pytest.raises(StageMissingError, match=f"no distillation was completed under {tmp_path}: run mocha-pipe"):
        measure(replace(toy_config, root=tmp_path), None)


def test_region_accuracy_counts_right_names() -> None:
    question = Question(
        objects=2, query=np.array([1]), support=np.array([0, 1]), support_coarse=np.array([0, 1]),
        support_personal=np.array([0, 1]), asked=np.array([2, 3, 4, 5]), asked_coarse=np.array([0, 1, 1, 0]),
        truth=NamedBoxes(image=np.ones(4, np.int64), xyxy=np.zeros((4, 4)), personal=np.array([0, 1, 1, 0])),
    )  # fmt: skip
    vectors = np.array([[1, 0], [0, 1], [3, 1], [1, 3], [3, 1], [2, 1]], np.float32)
    assert region_accuracy(question, vectors, "gallery") == 75
    assert region_accuracy(question, vectors, "conditional") == 100


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch, report: dict[str, Any]) -> list[tuple[RunConfig, Path | None]]:
    asked: list[tuple[RunConfig, Path | None]] = []

    def answer(config: RunConfig, yoloe: Path | None) -> dict[str, Any]:
        asked.append((config, yoloe))
        return report

    monkeypatch.setattr(rivals, "measure", answer)
    return asked


def test_the_command_asks_as_told_keeps_and_prints(
    canned: list[tuple[RunConfig, Path | None]], report: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "yoloe.pt").touch()
    told = ["--root", "here", "--out", "out.json", "--yoloe", "yoloe.pt", "--episodes", "7", "--benchmark", "pod"]
    result = CliRunner().invoke(rivals.app, [*told, "--data", "photos"])
    assert result.exit_code == 0, result.output
    ((config, weights),) = canned
    assert weights == Path("yoloe.pt")
    settings = config.fewshot
    assert (config.root, settings.episodes, settings.shots) == (Path("here"), 7, (1, 5))
    assert (settings.benchmark, settings.benchmark_data, settings.confidence) == (Path("pod"), Path("photos"), 0.1)
    assert read_json(Path("out.json")) == report
    assert "mocha" in result.output
    assert "ms: medians on one CPU thread, from image file to names at 64 px" in result.output


def test_weights_that_are_no_file_are_refused(canned: list[tuple[RunConfig, Path | None]]) -> None:
    result = CliRunner().invoke(rivals.app, ["--yoloe", "yoloe-v8s-seg.pt"])
    assert result.exit_code == 2
    assert "does not exist" in result.output
    assert not canned
