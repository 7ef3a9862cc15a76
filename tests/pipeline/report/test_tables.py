"""Summary tables, as they are printed."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from mocha_pipe.data.checking.check import SplitReport
from mocha_pipe.data.types import Problem
from mocha_pipe.pipeline.cli.console import print_values
from mocha_pipe.pipeline.doctor import Check
from mocha_pipe.pipeline.markers import Completion
from mocha_pipe.pipeline.report import tables


def printed(table: Table) -> str:
    console = Console(width=100, markup=False, emoji=False)  # as print_table has it
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def lines(table: Table) -> list[str]:
    return [" ".join(line.split()) for line in printed(table).splitlines()]


def test_results_have_a_section_for_each_number_of_shots(report: dict[str, Any]) -> None:
    found, behind = (lines(table) for table in tables.results_tables(report))
    assert "few-shot on miniature, 37 episodes" in found
    for shown in (found, behind):
        assert "1 shot" in shown
        assert "5 shots" in shown
    assert "mocha 38.7 [37.4, 40.1] 49.2 [47.9, 50.6] 60.6 [59.3, 62.0]" in found
    assert "gain +7.9 [+6.1, +9.8] +7.9 [+6.1, +9.8]" in found
    assert "image accuracy region accuracy AUROC unknown" in behind
    assert "mocha 71.4 [70.1, 72.8] 82.8 [81.5, 84.2] 0.801 [0.788, 0.815]" in behind
    assert "mocha 75.4 [74.1, 76.8] 86.8 [85.5, 88.2] 0.805 [0.792, 0.819]" in behind
    assert behind.count("gain +7.9 [+6.1, +9.8]") == 2


def test_a_gain_stands_below_its_figure(report: dict[str, Any]) -> None:
    shown = printed(tables.results_tables(report)[1]).splitlines()
    gain, mocha = (next(line for line in shown if line.split()[:1] == [name]) for name in ("gain", "mocha"))
    assert gain.index("+9.8]") + 5 == mocha.index("84.2]") + 5, "that of the region accuracy"


def test_without_unknown_objects_the_column_is_gone(report: dict[str, Any]) -> None:
    del report["results"][0]["unknown"]
    shown = lines(tables.results_tables(report)[1])
    assert "mocha 71.4 [70.1, 72.8] 82.8 [81.5, 84.2]" in shown
    assert "mocha 75.4 [74.1, 76.8] 86.8 [85.5, 88.2] 0.805 [0.792, 0.819]" in shown
    del report["results"][1]["unknown"]
    assert "image accuracy region accuracy" in lines(tables.results_tables(report)[1])


def test_results_fit_a_terminal_of_80_columns(report: dict[str, Any]) -> None:
    gain = {"mean": 24.4, "ci95": [23.8, 24.9]}
    report["results"][0]["gain"] = {"map50_95": gain, "accuracy": gain, "region_accuracy": gain}
    figures = report["results"][0]["methods"]["histogram"]
    figures.update({name: {"mean": 100.0, "ci95": [100.0, 100.0]} for name in figures})
    console = Console(width=80)
    with console.capture() as capture:
        for table in tables.results_tables(report):
            console.print(table)
    assert capture.get().count("+24.4 [+23.8, +24.9]") == 3
    assert capture.get().count("100.0 [100.0, 100.0]") == 5


def test_the_legend_explains_the_methods_that_are_there(report: dict[str, Any]) -> None:
    del report["results"][0]["methods"]["teacher"], report["results"][1]["methods"]["teacher"]
    assert tables.legend(report).splitlines()[0] == (
        "histogram: colour histogram of the crop; yolo: base detector's features; mocha: distilled student; "
        "gain: mocha - yolo; [95 % interval over episodes]; 0-100, AUROC 0-1"
    )


def test_the_legend_says_what_becomes_of_unknown_objects(report: dict[str, Any]) -> None:
    del report["results"][1]["unknown"]["calibrated"]
    assert tables.legend(report).splitlines()[1:] == [
        "look-alikes that mocha was not taught, 1 shot: 40 % get a name where 95 % of its objects do; at the "
        "threshold for 7 % of strangers 16 % and of its objects 84 %",
        "look-alikes that mocha was not taught, 5 shots: 40 % get a name where 95 % of its objects do",
    ]
    for result in report["results"]:
        result.pop("unknown", None)
    assert len(tables.legend(report).splitlines()) == 1


def test_stages_say_what_was_skipped() -> None:
    common: dict[str, Any] = {"config": {}, "inputs": {}, "outputs": {}, "versions": {}}
    done = [
        Completion(stage="cache", folder=Path("work/cache"), seconds=1.25, skipped=True, **common),
        Completion(stage="base", folder=Path("work/base"), seconds=61.0, **common),
    ]
    lines = [" ".join(line.split()) for line in printed(tables.stages_table(done)).splitlines()]
    assert "cache already complete 1.2 work/cache" in lines
    assert "base done 61.0 work/base" in lines


def test_values_and_checks_are_rows() -> None:
    lines = [
        " ".join(line.split())
        for line in printed(tables.values_table("t", {"computed_shards": 3, "x": [1, 2]})).splitlines()
    ]
    assert "computed shards 3" in lines
    assert "x 1, 2" in lines
    shown = printed(tables.doctor_table([Check(name="disk", status="fail", found="0.1 GiB free", remedy="free some")]))
    assert "fail disk 0.1 GiB free free some" in [" ".join(line.split()) for line in shown.splitlines()]


def test_errors_and_warnings_of_a_data_set_are_counted_apart() -> None:
    problems = tuple(
        Problem(severity=severity, where="a.jpg", message="") for severity in ("error", "warning", "warning")
    )
    empty = {"images": 4, "background_images": 1, "regions": 0, "regions_per_class": {}}
    split = SplitReport(split="train", **empty, smallest_box=None, largest_box=None, problems=problems)
    shown = lines(tables.check_table(Path("data.yaml"), [split]))
    assert "split images empty boxes classes box sides errors warnings" in shown
    assert "train 4 1 0 0 - 1 2" in shown


def test_brackets_and_colons_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_values("my [old] mug", {"folder": "[red]/:mug:"})
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()] == [
        "my [old] mug",
        "folder [red]/:mug:",
    ]
