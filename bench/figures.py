"""Figures with their targets: a table for people, and a JSON file to which several measurements add."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from mocha_pipe.data.files import write_json
from mocha_pipe.pipeline.cli.console import print_table
from mocha_pipe.pipeline.markers import read_json, versions
from mocha_pipe.pipeline.report.tables import plain_table


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value and what it should reach."""

    value: float
    better: Literal["higher", "lower"]
    target: float | None = None
    """None for a figure that is only reported."""
    note: str = ""
    """What was measured against what, in a few words."""

    @property
    def is_met(self) -> bool:
        """Whether the target was reached."""
        if self.target is None:
            return True
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


Figures = Mapping[str, Figure]


def keep(path: Path, figures: Figures) -> None:
    """Add figures to a JSON file. They replace figures of the same names; whatever else is there stays."""
    content = read_json(path)
    new = {
        name: {"value": round(figure.value, 4), "target": figure.target, "better": figure.better, "note": figure.note}
        for name, figure in figures.items()
    }
    write_json(path, {**content, "figures": {**content.get("figures", {}), **new}, "versions": versions()})


def figures_table(figures: Figures) -> Table:
    """Measured figures beside their targets, and what was measured."""
    table = plain_table("figure", "value", "target", "met", "what", justify="left")
    table.columns[0].no_wrap = True  # a name is looked for as a whole
    for name, figure in figures.items():
        sign = ">=" if figure.better == "higher" else "<="
        target = "" if figure.target is None else f"{sign} {figure.target:.4g}"
        met = Text("yes", style="green") if figure.is_met else Text("no", style="red")
        table.add_row(name, f"{figure.value:.4g}", target, met if target else "", figure.note)
    return table


def show(figures: Figures) -> None:
    """Print figures as a table."""
    print_table(figures_table(figures))


def exit_code(figures: Figures) -> int:
    """Exit code of a command that measured these figures: 1 when one of them misses its target."""
    return 0 if all(figure.is_met for figure in figures.values()) else 1
