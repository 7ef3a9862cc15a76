"""Summary tables, as they are printed."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import tables
from pipeline.doctor import Check
from pipeline.rundir import Completion


def printed(table: Table) -> str:
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_results_have_a_section_for_each_number_of_shots(report: dict[str, Any]) -> None:
    text = printed(tables.results_table(report))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "few-shot on miniature, 37 episodes" in lines
    assert "1 shot" in lines
    assert "5 shots" in lines
    assert "mocha 38.7 [37.4, 40.1] 49.2 [47.9, 50.6] 60.6 [59.3, 62.0]" in lines
    assert "gain +7.9 [+6.1, +9.8] +7.9 [+6.1, +9.8]" in lines


def test_results_fit_a_terminal_of_80_columns(report: dict[str, Any]) -> None:
    gain = {"mean": 24.4, "ci95": [23.8, 24.9]}
    report["results"][0]["gain"] = {"map50_95": gain, "accuracy": gain}
    console = Console(width=80)
    with console.capture() as capture:
        console.print(tables.results_table(report))
    assert capture.get().count("+24.4 [+23.8, +24.9]") == 2


def test_the_legend_explains_the_methods_that_are_there(report: dict[str, Any]) -> None:
    del report["results"][0]["methods"]["teacher"], report["results"][1]["methods"]["teacher"]
    assert tables.legend(report) == (
        "histogram: colour histogram of the crop; yolo: base detector's features; mocha: distilled student; "
        "gain: mocha - yolo; [95 % interval over episodes]; 0-100"
    )


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
