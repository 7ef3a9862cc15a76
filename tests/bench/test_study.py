"""The study's figures from runs, by hand and from real ones at toy size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from bench import study
from bench.figures import Figure
from bench.study import RECIPES, RunFigures, measure, mirror_cosine, recipe_figures
from bench.synthetic import CheapTeacher
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.pipeline.evaluation import fewshot
from mocha_pipe.pipeline.markers import read_json
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.student.fewshot.episodes import source_regions
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.pool_pass import PoolPass
from mocha_pipe.teacher_cache.store.projection import Projection
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher


def run(gain: float, accuracy: float, teacher: float, detection: float, auroc: float = 0.8) -> RunFigures:
    return RunFigures(
        gain_1shot=gain,
        accuracy={1: accuracy, 5: accuracy + 8},
        teacher_accuracy={1: teacher, 5: 80},
        detection=detection,
        unknown_auroc=auroc,
    )


def test_figures_are_means_over_seeds_and_differences_seed_by_seed() -> None:
    found = {
        "default": {0: run(30, 60, 80, 84, 0.99), 1: run(36, 66, 60, 82, 0.95)},
        "paper": {0: run(20, 0, 1, 0), 1: run(22, 0, 1, 0)},
        "plain": {0: run(0, 0, 1, 85), 1: run(0, 0, 1, 82.5)},
        "attributes": {0: run(28, 0, 1, 0), 1: run(33, 0, 1, 0)},
        "instances": {0: run(10, 0, 1, 0), 1: run(12, 0, 1, 0)},
    }
    figures = recipe_figures(found)
    values = {name: figure.value for name, figure in figures.items()}
    assert values == pytest.approx(
        {
            "gain_1shot": 33,
            "gain_1shot_vs_paper_recipe": 12,
            "base_map_delta": -0.75,
            "gain_1shot_vs_attributes": 2.5,
            "gain_1shot_vs_instances": 22,
            "mocha_vs_teacher_1shot": (60 / 80 + 66 / 60) / 2,
            "mocha_vs_teacher_5shot": (68 / 80 + 74 / 80) / 2,
            "unknown_auroc": 0.97,
        }
    )
    # Two seeds: the 97.5 % quantile of t with one degree of freedom, 12.706, times half the difference.
    assert figures["gain_1shot"].note.startswith("± 38.12; ")
    assert figures["gain_1shot_vs_paper_recipe"].note.startswith("± 25.41; ")
    assert not figures["base_map_delta"].is_met
    assert figures["unknown_auroc"].is_met
    assert figures["unknown_auroc"].note == (
        "± 0.25; taught objects against held-out look-alikes of their class, 5 shots"
    )


def test_an_auroc_below_its_target_is_missed() -> None:
    figure = recipe_figures({recipe: {0: run(30, 60, 80, 84, 0.94)} for recipe in RECIPES})["unknown_auroc"]
    assert (figure.value, figure.target, figure.better, figure.is_met) == (0.94, 0.95, "higher", False)


def test_one_seed_has_no_interval() -> None:
    found = {recipe: {0: run(30, 60, 80, 84)} for recipe in RECIPES}
    assert recipe_figures(found)["gain_1shot"].note == "mAP50-95 of the student over its base detector"


class Brightness:
    """Embeds a crop by the brightness of its left and of its right half."""

    def tokens(self, class_name: str) -> int:
        return 0

    def embed(self, crops: list[NDArray[np.uint8]], class_names: list[str]) -> RegionEmbeddings:
        assert len(crops) == len(class_names)
        halves = np.array([[crop[:, :2].mean(), crop[:, 2:].mean()] for crop in crops], np.float32)
        return RegionEmbeddings(hidden=halves, visual=np.zeros((len(crops), 0), np.float32))


def test_mirrored_crops_are_compared_with_their_own() -> None:
    projection = Projection(
        mean=np.zeros(2), components=np.eye(2), eigenvalues=np.array([1.0, 1.0]), hidden_dim=2, rows=9
    )
    even, uneven = np.full((4, 4, 3), 7, np.uint8), np.zeros((4, 4, 3), np.uint8)
    uneven[:, :2] = 200
    assert mirror_cosine(Brightness(), projection, [even], ["a"]) == pytest.approx(1)
    assert mirror_cosine(Brightness(), projection, [uneven], ["a"]) == pytest.approx(0, abs=1e-6)
    assert mirror_cosine(Brightness(), projection, [even, uneven], ["a", "b"]) == pytest.approx(0.5)


@pytest.mark.parametrize(("value", "code"), [(34.0, 1), (36.0, 0)])
def test_the_command_keeps_figures_and_fails_where_one_misses_its_target(
    value: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"gain_1shot": Figure(value=value, target=35, better="higher")}
    asked: list[tuple[Path, list[int]]] = []

    def instant(config: RunConfig, seeds: list[int]) -> dict[str, Figure]:
        asked.append((config.root, seeds))
        return figures

    monkeypatch.setattr(study, "measure", instant)
    out = tmp_path / "study.json"
    result = CliRunner().invoke(study.app, ["--root", str(tmp_path), "--out", str(out), "--seeds", "4,2"])
    assert result.exit_code == code, result.output
    assert asked == [(tmp_path, [4, 2])]
    assert read_json(out)["figures"]["gain_1shot"]["value"] == value


def find_everything(embedder: RegionEmbedder, source: DetectionSource, *, progress: bool) -> PoolPass:
    """In place of `RegionEmbedder.embed_pool`: true boxes as detections, since one epoch teaches nobody to detect."""
    found = embed_pool(embedder, source, progress=False)
    truth = source_regions(source)
    return replace(
        found,
        detection_image=truth.image,
        detection_xyxy=truth.xyxy.astype(np.float32),
        detection_score=np.ones(len(truth.image), np.float32),
        detection_coarse=truth.personal // 2,  # two objects of each class
        detection_embedding=found.region_embedding,
    )


embed_pool = RegionEmbedder.embed_pool


def test_a_real_study_keeps_its_runs(toy_copy: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RegionEmbedder, "embed_pool", find_everything)
    monkeypatch.setattr(LlavaTeacher, "embed", lambda teacher, *asked: CheapTeacher(teacher.spec).embed(*asked))
    monkeypatch.setattr(fewshot, "write_html", lambda path, *_, **__: path.touch())  # a study reads report.json alone
    monkeypatch.setattr(study, "SEEDS", (1, 2))
    student = Path("student", "translation.safetensors")
    trained_before = (toy_copy.root / "default/seed-0" / student).read_bytes()
    figures = measure(toy_copy, [0])
    assert set(figures) == {
        "gain_1shot", "gain_1shot_vs_paper_recipe", "gain_1shot_vs_attributes", "gain_1shot_vs_instances",
        "base_map_delta", "mocha_vs_teacher_1shot", "mocha_vs_teacher_2shot", "unknown_auroc", "teacher_mirror_cosine",
        "gain_casts_mean", "gain_casts_low", "casts_accuracy_1shot", "casts_accuracy_2shot",
        "casts_region_accuracy_1shot", "casts_region_accuracy_2shot", "casts_gain_1shot", "casts_gain_2shot",
    }  # fmt: skip
    most = read_json(toy_copy.root / "default/seed-0/fewshot/report.json")["results"][1]
    assert most["shots"] == 2
    assert figures["unknown_auroc"].value == most["unknown"]["methods"]["mocha"]["auroc"]["mean"]
    assert -1 < figures["teacher_mirror_cosine"].value < 1
    weights = {recipe: (toy_copy.root / recipe / "seed-0" / student).read_bytes() for recipe in RECIPES}
    assert len(set(weights.values())) == len(RECIPES)
    about = read_json(toy_copy.root / "paper/seed-0/student/student.json")
    assert about["features"] == "reference"
    assert weights["default"] == trained_before, "a complete run was trained again"
    before = {path: path.stat().st_mtime_ns for path in toy_copy.root.rglob("complete.json")}
    assert measure(toy_copy, [0]) == figures
    assert {path: path.stat().st_mtime_ns for path in toy_copy.root.rglob("complete.json")} == before
