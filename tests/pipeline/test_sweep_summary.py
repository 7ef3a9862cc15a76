"""The summary of a sweep: means over seeds, gains paired by seed, and the table that is printed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mocha_pipe.pipeline.report.tables import plus_minus, sweep_legend, sweep_table
from mocha_pipe.pipeline.settings.variants import Variant
from mocha_pipe.pipeline.sweep import SweepRun, summary


def runs_of(figures: dict[str, list[float | None]], name: str = "accuracy_1shot") -> Iterator[SweepRun]:
    for objective, values in figures.items():
        for seed, value in enumerate(values):
            variant = Variant(settings={"objective": objective})
            yield SweepRun(variant=variant, seed=seed, folder=Path(f"{seed}"), figures={name: value})


def test_gains_pair_the_seeds() -> None:
    runs = list(runs_of({"paper": [40.0, 50.0, 60.0], "cosine": [42.0, 52.0, 62.0]}))
    found = summary([*runs[:3], *runs[:2:-1]])["variants"]["objective=cosine"]
    assert found["mean"]["accuracy_1shot"]["mean"] == pytest.approx(52)
    half = 4.302653 * 10 / 3**0.5
    assert found["mean"]["accuracy_1shot"]["ci95"] == pytest.approx([52 - half, 52 + half])
    assert found["gain"]["accuracy_1shot"] == {"mean": 2.0, "ci95": [2.0, 2.0]}


def test_the_best_has_the_highest_mean_and_of_equals_is_the_first() -> None:
    assert summary(list(runs_of({"paper": [1, 5], "cosine": [2, 6], "rkd": [2, 6]})))["best"] == "objective=cosine"
    assert summary(list(runs_of({"paper": [2, 6], "cosine": [6, 2]})))["best"] == "objective=paper"


def test_a_figure_that_a_run_lacks_has_no_mean() -> None:
    runs = runs_of({"paper": [1.0, 5.0], "cosine": [2.0, None]}, "detection")
    report = summary([replace(run, figures={"accuracy_1shot": 1.0, **run.figures}) for run in runs])
    cosine = report["variants"]["objective=cosine"]
    assert cosine["mean"]["detection"] is None
    assert cosine["gain"]["detection"] is None
    assert report["variants"]["objective=paper"]["mean"]["detection"]["mean"] == 3


def printed(figures: dict[str, list[float | None]]) -> list[str]:
    """Lines of table and legend, blanks run together."""
    runs = [
        replace(
            run, figures={**run.figures, **dict.fromkeys(("accuracy_5shot", "map50_95_1shot", "map50_95_5shot"), 4.0)}
        )
        for run in runs_of(figures)
    ]
    report = {**summary(runs), "settings": {"seeds": list(range(len(figures["paper"])))}}
    console = Console(width=80)
    with console.capture() as capture:
        console.print(sweep_table(report))
    return [" ".join(line.split()) for line in f"{capture.get()}\n{sweep_legend(report)}".splitlines()]


def test_the_table_is_sorted_and_names_the_gain_of_the_best() -> None:
    lines = printed({"paper": [40.0, 50.0, 60.0], "contrastive": [43.0, 52.0, 62.0], "rkd": [10.0, 10.0, 10.0]})
    assert lines[1:3] == ["accuracy accuracy mAP50-95 mAP50-95", "objective 1 shot 5 shots 1 shot 5 shots"]
    assert [line.split()[0] for line in lines[4:7]] == ["contrastive", "paper", "rkd"]
    assert lines[5] == "paper 50.0 ± 24.8 4.0 ± 0.0 4.0 ± 0.0 4.0 ± 0.0"
    assert lines[-2] == "best accuracy at 1 shot: objective=contrastive, +2.3 ± 1.4 over objective=paper"
    assert lines[-1] == (
        "mean over 3 seeds ± half of its 95 % interval (Student's t; a gain's: of differences by seed); 0-100"
    )


def test_one_seed_shows_means_alone() -> None:
    lines = printed({"paper": [40.0], "rkd": [41.5]})
    assert "rkd 41.5 4.0 4.0 4.0" in lines
    assert lines[-2] == "best accuracy at 1 shot: objective=rkd, +1.5 over objective=paper"
    assert lines[-1] == "one seed: no intervals, and a difference may be chance; 0-100"


def test_the_first_variant_gains_nothing_over_itself() -> None:
    lines = printed({"paper": [40.0, 50.0], "rkd": [10.0, 10.0]})
    assert lines[-2] == "best accuracy at 1 shot: objective=paper, the first, over which no other gains"


def test_a_figure_without_a_value_is_a_dash() -> None:
    assert plus_minus(None) == "-"
