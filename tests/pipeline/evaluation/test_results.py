"""Results from scores: what report.json says of confusion and of unknown objects."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.personal.episodes import synthetic_benchmark, synthetic_pass
from mocha_pipe.data.benchmarks.episodes import Episode, draw_episodes
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.evaluation.results import METRICS, confusion_figures, shot_result, unknown_figures
from mocha_pipe.pipeline.settings.sections import FewshotConfig
from mocha_pipe.student.fewshot.bootstrap import mean_interval
from mocha_pipe.student.fewshot.confusion import confusion_by_coarse
from mocha_pipe.student.fewshot.episodes import evaluate_episodes
from mocha_pipe.student.fewshot.openset import acceptance, open_episodes, separation
from mocha_pipe.student.fewshot.strangers import accept_above
from mocha_pipe.student.network.pool_pass import PoolPass

SETTINGS = FewshotConfig(seed=4, false_accept_rate=0.2, learner="conditional")
METHODS = ("yolo", "mocha")


@pytest.fixture
def few_resamples() -> None:
    """Results are made once for all tests here, and compared with intervals made in a test."""


@pytest.fixture(scope="module")
def benchmark() -> PersonalBenchmark:
    return synthetic_benchmark()


@pytest.fixture(scope="module")
def passes(benchmark: PersonalBenchmark) -> dict[str, PoolPass]:
    return {"yolo": synthetic_pass(benchmark, 8), "mocha": synthetic_pass(benchmark, 24)}


@pytest.fixture(scope="module")
def episodes(benchmark: PersonalBenchmark) -> tuple[Episode, ...]:
    return draw_episodes(benchmark, episodes=3, shots=2, reserve=2, seed=4, query_images=60)


@pytest.fixture(scope="module")
def result(benchmark: PersonalBenchmark, episodes: tuple[Episode, ...], passes: dict[str, PoolPass]) -> dict[str, Any]:
    return shot_result(benchmark, SETTINGS, 2, episodes, passes)


def test_every_figure_has_its_interval_and_gains_are_paired(
    benchmark: PersonalBenchmark, episodes: tuple[Episode, ...], passes: dict[str, PoolPass], result: dict[str, Any]
) -> None:
    scores = evaluate_episodes(benchmark, episodes, passes)
    assert list(result["methods"]) == list(METHODS)
    for method in METHODS:
        assert result["methods"][method] == {
            name: mean_interval(getattr(scores[method], name), seed=4).to_json() for name in METRICS
        }
    assert list(result["gain"]) == ["map50_95", "accuracy", "region_accuracy"]
    for name, gain in result["gain"].items():
        ours, theirs = getattr(scores["mocha"], name), getattr(scores["yolo"], name)
        assert gain == mean_interval(ours - theirs, seed=4).to_json()
    assert (result["benchmark"], result["shots"], result["episodes"], result["seed"]) == ("synthetic", 2, 3, 4)


def test_confusion_is_summed_over_episodes_and_named(
    benchmark: PersonalBenchmark, episodes: tuple[Episode, ...], passes: dict[str, PoolPass], result: dict[str, Any]
) -> None:
    counts = evaluate_episodes(benchmark, episodes, passes)["mocha"].confusion
    found = result["confusion"]["mocha"]
    assert list(result["confusion"]) == list(METHODS)
    assert list(found) == [f"class {coarse}" for coarse in range(8)]
    third = found["class 2"]
    assert third["objects"] == ["object 6", "object 7", "object 8"]
    assert third["taken_for"] == counts.sum(axis=0)[6:9, 6:9].tolist()
    assert third["missed"] == counts.sum(axis=0)[6:9, -2].tolist()
    assert third["unknown"] == counts.sum(axis=0)[6:9, -1].tolist()
    others = [*range(6), *range(9, 24)]
    assert third["elsewhere"] == counts.sum(axis=0)[6:9][:, others].sum(axis=1).tolist()
    shares = confusion_by_coarse(counts, benchmark.coarse_of)[2].shares()
    assert third["shares"] == {name: mean_interval(share, seed=4).to_json() for name, share in shares.items()}


def test_a_class_that_nobody_asked_about_has_no_confusion(benchmark: PersonalBenchmark) -> None:
    counts = np.zeros((2, 24, 26), np.int64)
    counts[:, 4, 4] = 1
    assert list(confusion_figures(benchmark, counts, seed=0)) == ["class 1"]


def test_unknown_objects_have_their_figures(
    benchmark: PersonalBenchmark, episodes: tuple[Episode, ...], passes: dict[str, PoolPass]
) -> None:
    strangers = np.linspace(-0.5, 0.5, 200, dtype=np.float32)
    found, notes = unknown_figures(benchmark, SETTINGS, episodes, passes, strangers)
    assert notes == []
    asked = open_episodes(benchmark, episodes, passes)
    assert (found["episodes"], found["held_out"]) == (3, 8)
    for method in METHODS:
        expected = separation(asked[method])
        figures = found["methods"][method]
        assert figures["auroc"] == mean_interval(expected.auroc, seed=4).to_json()
        assert figures["false_accept_at_95_recall"] == mean_interval(expected.false_accept, seed=4).to_json()
        assert figures["roc"]["false_accept"] == [number / 100 for number in range(101)]
        np.testing.assert_allclose(figures["roc"]["recall"], expected.recall.mean(axis=0), atol=1e-4)
    accepted = acceptance(asked["mocha"], lambda candidates: accept_above(strangers, 0.2, candidates))
    assert found["calibrated"] == {
        "rate": 0.2,
        "false_accept": mean_interval(accepted.false_accept, seed=4).to_json(),
        "recall": mean_interval(accepted.recall, seed=4).to_json(),
    }
    assert 0 < found["calibrated"]["false_accept"]["mean"] < found["calibrated"]["recall"]["mean"] < 1


def test_without_strangers_nothing_is_said_of_the_threshold(
    benchmark: PersonalBenchmark, episodes: tuple[Episode, ...], passes: dict[str, PoolPass]
) -> None:
    found, notes = unknown_figures(benchmark, SETTINGS, episodes, passes, None)
    assert "calibrated" not in found
    assert notes == []


def test_too_few_strangers_are_noted_beside_what_their_threshold_accepts(
    benchmark: PersonalBenchmark, episodes: tuple[Episode, ...], passes: dict[str, PoolPass]
) -> None:
    found, (note,) = unknown_figures(benchmark, SETTINGS, episodes, passes, np.zeros(4, np.float32))
    assert found["calibrated"]["rate"] == 0.2
    assert note.startswith("a false-accept rate of 0.2 for ")
    assert "and the student has 4: names are given at the strictest threshold there is" in note


def test_a_benchmark_without_look_alikes_leaves_unknown_objects_out_with_a_note(
    benchmark: PersonalBenchmark, episodes: tuple[Episode, ...], passes: dict[str, PoolPass]
) -> None:
    alone = replace(benchmark, coarse_of=np.arange(24))
    assert unknown_figures(alone, SETTINGS, episodes, passes, None) == (
        {},
        [
            "Unknown objects are left out: none can be held out, as no episode asks about two objects of one coarse "
            "class"
        ],
    )


def test_the_synthetic_passes_are_those_of_scenes(benchmark: PersonalBenchmark) -> None:
    found = synthetic_pass(benchmark, 8)
    assert benchmark.source.root == Path()
    assert len(found.detection_image) > len(found.region_embedding) == benchmark.source.num_regions
