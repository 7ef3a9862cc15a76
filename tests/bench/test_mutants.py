"""Mutants of a product of one line: what kills them, and that the line is put back whatever happens."""

import os
import signal
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.mutants import __main__ as command
from bench.mutants import running
from bench.mutants.__main__ import ROOT
from bench.mutants.places import MUTANTS
from bench.mutants.running import Mutant, MutantError, Trial, broken, place_of, table_of, try_all

LINE = "def double(x): return x + x\n"


def mutant(new: str, *, old: str = "x + x", tests: tuple[str, ...] = ("test_it.py",)) -> Mutant:
    return Mutant(name=f"becomes {new}", breaks="it", file="product.py", old=old, new=new, tests=tests)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # plugins take seconds to load
    (tmp_path / "product.py").write_text(LINE)
    (tmp_path / "test_it.py").write_text("from product import double\ndef test_it(): assert double(2) == 4\n")
    return tmp_path


def test_a_mutant_is_killed_survives_or_proves_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (root / "product.py").stat().st_mtime_ns
    trials = try_all([mutant("x + 1"), mutant("x * x"), mutant("x +")], root)
    assert [trial.verdict for trial in trials] == ["killed", "survived", "no verdict"]
    assert "SyntaxError" in trials[2].said
    assert (root / "product.py").read_text() == LINE
    assert (root / "product.py").stat().st_mtime_ns == before
    shown = capsys.readouterr()
    assert [" ".join(line.split()[:4]) for line in shown.out.splitlines()[1:]] == [
        "becomes x + 1", "becomes x * x", "becomes x + no"
    ]  # fmt: skip


def test_tests_that_fail_anyway_prove_nothing(root: Path) -> None:
    (root / "test_it.py").write_text("def test_it(): assert 1 == 2\n")
    with pytest.raises(MutantError, match="the tests must pass before anything is broken, found exit code 1"):
        try_all([mutant("x * 2")], root)


@pytest.mark.parametrize(("old", "times"), [("y", 0), ("x", 3)])
def test_a_place_that_is_gone_or_is_not_one_is_refused(old: str, times: int, root: Path) -> None:
    with pytest.raises(MutantError, match=f"product.py must hold its text once, found {times} times"):
        try_all([mutant("z", old=old)], root)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_place_is_put_back_when_the_run_is_stopped(
    number: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stop(*_: object) -> tuple[int, str]:
        seen.append((root / "product.py").read_text())
        if len(seen) == 2:  # the first call tries the tests on the sound product
            os.kill(os.getpid(), number)
        return 0, ""

    monkeypatch.setattr(running, "_run_tests", stop)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in the background
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            try_all([mutant("x - x")], root)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [LINE, LINE.replace("x + x", "x - x")]
    assert (root / "product.py").read_text() == LINE
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == handlers


def test_the_place_is_put_back_after_an_error(root: Path) -> None:
    with pytest.raises(OSError, match="full"), broken(mutant("x - x"), root):
        raise OSError("full")
    assert (root / "product.py").read_text() == LINE


@pytest.mark.parametrize(("verdicts", "code"), [(("killed", "killed"), 0), (("killed", "survived"), 1)])
def test_the_command_fails_where_one_survives(
    verdicts: tuple[running.Verdict, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [each.name for each in MUTANTS[:2]]

    def tried(chosen: list[Mutant], root: Path) -> list[Trial]:
        assert ([each.name for each in chosen], root) == (names, ROOT)
        return [Trial(mutant=m, verdict=v, seconds=1.0, said="") for m, v in zip(chosen, verdicts, strict=True)]

    monkeypatch.setattr(command, "try_all", tried)
    result = CliRunner().invoke(command.app, [*names, "--out", str(tmp_path / "mutants.json")])
    assert result.exit_code == code, result.output
    assert f"{verdicts.count('killed')} of 2 killed" in result.stdout
    assert '"target": 2' in (tmp_path / "mutants.json").read_text()


def test_an_unknown_mutant_is_refused() -> None:
    result = CliRunner().invoke(command.app, ["box-clipping", "boxes"])
    assert (result.exit_code, "there is no mutant boxes" in result.stderr) == (2, True)


def test_a_survivor_is_red_in_the_table() -> None:
    trials = [Trial(mutant=mutant("x"), verdict=verdict, seconds=2.4, said="") for verdict in ("killed", "survived")]
    console = Console(width=80, record=True, force_terminal=True)
    console.print(table_of(trials))
    first, second = console.export_text(styles=True).splitlines()[1:3]
    assert ("31m" in first, "31m" in second) == (False, True)


@pytest.mark.parametrize("place", MUTANTS, ids=lambda place: place.name)
def test_every_place_is_in_the_product_with_its_tests(place: Mutant) -> None:
    place_of(place, ROOT)
    assert place.old != place.new
    for test in place.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text(encoding="utf-8")


def test_names_are_different() -> None:
    assert len({place.name for place in MUTANTS}) == len(MUTANTS) >= 20
