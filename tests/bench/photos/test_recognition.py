"""Accuracies of embeddings that are known, and the share of the gap that they close."""

import numpy as np
import pytest

from bench.photos.recipe import EPISODES, SHOTS
from bench.photos.recognition import Accuracies, accuracies, gap_figures, table_of
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.student.fewshot.episodes import source_regions


def flat(one: float, three: float, spread: float = 0) -> Accuracies:
    """The same accuracy in all episodes, or half of them so much higher and half so much lower."""
    signs = np.where(np.arange(EPISODES) % 2, 1, -1)
    column = {shots: value + spread * signs for shots, value in zip(SHOTS, (one, three), strict=True)}
    return {"open": column, "class_given": {shots: values + 1 for shots, values in column.items()}}


def test_the_gap_is_closed_by_so_much_of_the_way_from_detector_to_teacher() -> None:
    rows = {"yolo": [flat(40, 50)], "teacher": [flat(80, 90)], "mocha": [flat(60, 60), flat(64, 80)]}
    figures = gap_figures(rows)
    values = {name: figure.value for name, figure in figures.items()}
    assert values == pytest.approx({"photo_gap_closed_1shot": 0.55, "photo_gap_closed_3shot": 0.5})
    assert all(figure.target == 0.5 and figure.is_met for figure in figures.values())
    # two seeds: 12.706, t of one degree of freedom, times half the difference
    assert figures["photo_gap_closed_1shot"].note.startswith("± 0.64; (mocha - yolo) / (teacher - yolo)")
    assert "accuracies 62.0, 40.0, 80.0; 2 training seeds" in figures["photo_gap_closed_1shot"].note


def test_one_seed_has_no_interval() -> None:
    rows = {"yolo": [flat(40, 50)], "teacher": [flat(80, 90)], "mocha": [flat(50, 60)]}
    assert gap_figures(rows)["photo_gap_closed_1shot"].note.startswith("(mocha")
    assert not gap_figures(rows)["photo_gap_closed_1shot"].is_met


def test_intervals_are_over_seeds_where_there_are_several_and_else_over_episodes() -> None:
    table = table_of({"yolo": [flat(40, 50, spread=4)], "mocha": [flat(60, 60), flat(64, 80)]})
    assert table["mocha"]["open"]["1"]["mean"] == pytest.approx(62)
    assert table["mocha"]["class_given"]["1"]["mean"] == pytest.approx(63)
    low, high = table["mocha"]["open"]["1"]["ci95"]
    assert (high - low) / 2 == pytest.approx(25.4, abs=0.1)
    low, high = table["yolo"]["open"]["1"]["ci95"]
    assert (high - low) / 2 == pytest.approx(1.96 * 4 / np.sqrt(EPISODES), rel=0.2)


def test_accuracies_are_those_of_the_names(benchmark: PersonalBenchmark) -> None:
    objects = source_regions(benchmark.source).personal
    perfect = accuracies(benchmark, np.eye(2, dtype=np.float32)[objects])
    assert {float(values.mean()) for column in perfect.values() for values in column.values()} == {100}
    blind = accuracies(benchmark, np.ones((len(objects), 2), np.float32))
    assert blind["open"][1].mean() == 50
    assert blind["class_given"][1].mean() == 100, "the two objects are of two classes"
    assert blind["open"][1].shape == (EPISODES,)
