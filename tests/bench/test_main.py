"""`python -m bench`: which measurements run, what is kept, how it ends."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from bench import __main__ as command
from bench.figures import Figure


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measurements that return at once; the list tells which ran."""
    ran: list[str] = []

    def stand_in(name: str, value: float) -> None:
        def measure(_root: Path) -> dict[str, Figure]:
            ran.append(name)
            if value < 0:
                raise OSError(name)
            return {f"{name}_figure": Figure(value=value, target=1.0, better="higher")}

        module = ModuleType(name)
        module.measure = measure  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"bench.cache.{name}", module)

    for name, value in (("met", 2.0), ("missed", 0.5), ("broken", -1.0)):
        stand_in(name, value)
    monkeypatch.setattr(command, "MEASUREMENTS", dict.fromkeys(("met", "missed", "broken"), "cache"))
    return ran


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments])


def kept(path: Path) -> set[str]:
    return set(json.loads(path.read_text())["figures"])


def test_named_measurements_run_alone(measured: list[str], tmp_path: Path) -> None:
    result = run("met", "--root", tmp_path)
    assert (result.exit_code, measured, kept(tmp_path / "bench.json")) == (0, ["met"], {"met_figure"})
    assert "met_figure" in result.stdout


def test_a_missed_target_ends_with_exit_code_1_after_all_were_measured(measured: list[str], tmp_path: Path) -> None:
    result = run("missed", "met", "--root", tmp_path, "--out", tmp_path / "other.json")
    assert (result.exit_code, measured) == (1, ["missed", "met"])
    assert kept(tmp_path / "other.json") == {"missed_figure", "met_figure"}


def test_figures_are_kept_when_a_later_measurement_fails(measured: list[str], tmp_path: Path) -> None:
    result = run("--root", tmp_path)
    assert isinstance(result.exception, OSError)
    assert measured == ["met", "missed", "broken"]
    assert kept(tmp_path / "bench.json") == {"met_figure", "missed_figure"}


def test_an_unknown_measurement_is_refused_before_any_runs(measured: list[str], tmp_path: Path) -> None:
    result = run("met", "speed", "--root", tmp_path)
    assert (result.exit_code, measured) == (2, [])
    said = " ".join(result.stderr.replace("│", " ").split())
    assert "there is no measurement speed; choose from met, missed, broken" in said


def test_every_measurement_has_its_function() -> None:
    for name, room in command.MEASUREMENTS.items():
        assert callable(importlib.import_module(f"bench.{room}.{name}").measure)


def test_a_data_set_is_counted_by_the_measurement_that_asks_for_one(
    measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path | None] = []

    def measure(_root: Path, *, data: Path | None) -> dict[str, Figure]:
        asked.append(data)
        return {}

    module = ModuleType("prompt_tokens")
    module.measure = measure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bench.cache.prompt_tokens", module)
    monkeypatch.setattr(command, "MEASUREMENTS", dict.fromkeys(("met", "prompt_tokens"), "cache"))
    assert run("--root", tmp_path).exit_code == 0
    assert run("--root", tmp_path, "--data", tmp_path / "data.yaml").exit_code == 0
    assert (measured, asked) == (["met", "met"], [None, tmp_path / "data.yaml"])
