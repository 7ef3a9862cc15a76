"""Breaks one place of the product at a time, runs the tests that should notice, and puts the file back."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Literal

from rich.console import Console
from rich.table import Table

Verdict = Literal["killed", "survived", "no verdict"]
"""Whether the tests failed, passed, or could not be run to an end."""


class MutantError(ValueError):
    """A mutant cannot be tried: its place is not there, or its tests fail on the product as it is."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One place of the product, and what is wrong with it when it is broken."""

    name: str
    breaks: str
    """What no longer holds, in a sentence."""
    file: str
    """Path from the root of the repository."""
    old: str
    """Text that occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Test files, or single tests as pytest names them, that should fail."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the tests said of one mutant."""

    mutant: Mutant
    verdict: Verdict
    seconds: float
    said: str
    """Output of pytest."""


def try_all(mutants: Sequence[Mutant], root: Path, *, python: str = sys.executable) -> list[Trial]:
    """Try one mutant after the other, and print the table.

    Args:
        mutants: what is tried.
        root: of the repository whose files are changed meanwhile.
        python: interpreter that the tests run with.

    Raises:
        MutantError: a place is not in its file exactly once, or the tests fail without any mutant.
    """
    for mutant in mutants:
        place_of(mutant, root)
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    code, said = _run_tests(tests, root, python)
    if code != 0:
        raise MutantError(f"the tests must pass before anything is broken, found exit code {code} of pytest:\n{said}")
    trials = []
    with _signals_as_exit():
        for mutant in mutants:
            trials.append(_try_one(mutant, root, python))
            print(f"{mutant.name}: {trials[-1].verdict}, {trials[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    Console().print(table_of(trials))
    return trials


def place_of(mutant: Mutant, root: Path) -> Path:
    """The file of a mutant; MutantError unless its text is there exactly once."""
    path = root / mutant.file
    count = path.read_text(encoding="utf-8").count(mutant.old) if path.is_file() else 0
    if count != 1:
        raise MutantError(f"mutant '{mutant.name}': {mutant.file} must hold its text once, found {count} times")
    return path


@contextmanager
def broken(mutant: Mutant, root: Path) -> Iterator[None]:
    """Break the place while the block runs. The file is put back whatever happens, its time included."""
    path = place_of(mutant, root)
    before, status = path.read_bytes(), path.stat()
    try:
        path.write_text(before.decode().replace(mutant.old, mutant.new), encoding="utf-8")
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # compiled files go by this


def table_of(trials: Sequence[Trial]) -> Table:
    """One row per mutant."""
    table = Table("mutant", "verdict", "seconds", "what breaks", box=None, pad_edge=False)
    for trial in trials:
        style = None if trial.verdict == "killed" else "bold red"
        table.add_row(trial.mutant.name, trial.verdict, f"{trial.seconds:.0f}", trial.mutant.breaks, style=style)
    return table


def _try_one(mutant: Mutant, root: Path, python: str) -> Trial:
    started = perf_counter()
    with broken(mutant, root):
        code, said = _run_tests(mutant.tests, root, python)
    # Other codes than 0 and 1 say that tests could not be collected or run: such a mutant proves nothing.
    verdict: Verdict = {0: "survived", 1: "killed"}.get(code, "no verdict")  # type: ignore[assignment]
    return Trial(mutant=mutant, verdict=verdict, seconds=perf_counter() - started, said=said)


def _run_tests(tests: Sequence[str], root: Path, python: str) -> tuple[int, str]:
    """Exit code and output of pytest. No compiled file of a broken module stays behind."""
    done = subprocess.run(  # noqa: S603
        [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=root, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process as Ctrl-C does, so that the broken file is put back."""

    def stop(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
