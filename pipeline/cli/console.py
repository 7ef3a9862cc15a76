"""What commands print: tables for people, json for scripts."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from mocha_pipe.data.errors import MochaWarning, in_print
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.pipeline.report.tables import legend, results_tables, values_table

if TYPE_CHECKING:
    from mocha_pipe.pipeline.markers import Completion


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show our warnings on stderr without file and line; those of others stay as they are."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
            if issubclass(category, MochaWarning):
                typer.echo(f"warning: {in_print(message)}", err=True)
            else:
                shown(message, category, *place, **named)

        warnings.showwarning = show
        yield


def print_report(done: "Completion", *, as_json: bool) -> None:
    """Print a few-shot report: notes on stderr, then its json or its table."""
    for note in done.outputs["notes"]:
        typer.echo(f"note: {note}", err=True)
    report = parse_json((done.folder / "report.json").read_bytes())
    if as_json:
        print_json(report)
        return
    for table in results_tables(report):
        print_table(table)
    typer.echo(f"{legend(report)}\n{done.folder / 'report.html'}")


def print_either(value: Any, table: Table, as_json: bool) -> None:
    """Print a value as json, or else the table that shows it."""
    if as_json:
        print_json(value)
    else:
        print_table(table)


def print_values(title: str, values: dict[str, Any]) -> None:
    """Print names and values."""
    print_table(values_table(title, values))


def print_table(table: Table) -> None:
    """Print a rich table; brackets in it are text, for names of objects and folders may hold some."""
    Console(markup=False, emoji=False).print(table)


def print_json(value: Any) -> None:
    """Print json, nothing else."""
    json.dump(value, sys.stdout, indent=2, default=str)
    typer.echo()
