"""`python -m bench [NAMES]`: all measurements, or the named ones, into one json file. `make bench`."""

import importlib
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

MEASUREMENTS = {
    "build_speed": "cache", "generate": "cache", "workers": "cache", "reading": "cache", "million": "cache",
    "memory": "cache", "prompt_tokens": "cache", "sharing": "cache", "compact": "cache",
    "ten_million": "cache", "claiming": "cache", "verify": "cache", "pack": "training",
    "steps": "training", "frozen": "training", "classify": "personal", "episodes": "personal", "detect": "personal",
    "export": "personal", "shapes": "personal", "web": "personal", "check": "data", "families": "teachers",
}  # fmt: skip
"""Modules with a function `measure(root)`, and the room of each."""

Names = Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(MEASUREMENTS)} [default: all].")]
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def bench(
    names: Names = None,
    root: Annotated[Path, typer.Option(help="Folder for what the measurements write.")] = Path("work"),
    out: Annotated[Path | None, typer.Option(help="File of the figures [default: ROOT/bench.json].")] = None,
    data: Annotated[
        Path | None, typer.Option(help="data.yaml of the regions that prompt_tokens counts [default: a made-up one].")
    ] = None,
) -> None:
    """Measure, print, and keep the figures; exit code 1 when one of them misses its target."""
    from bench.figures import Figure, exit_code, keep, show

    if unknown := sorted(set(names or ()) - set(MEASUREMENTS)):
        raise typer.BadParameter(f"there is no measurement {unknown[0]}; choose from {', '.join(MEASUREMENTS)}")
    found: dict[str, Figure] = {}
    for name in names or MEASUREMENTS:
        typer.echo(f"{name} ...", err=True)
        started = perf_counter()
        options = {"data": data} if name == "prompt_tokens" else {}
        figures = importlib.import_module(f"bench.{MEASUREMENTS[name]}.{name}").measure(root, **options)
        keep(out or root / "bench.json", figures)  # at once: they stay when a later measurement fails
        found.update(figures)
        typer.echo(f"{name}: {perf_counter() - started:.0f} s", err=True)
    show(found)
    sys.exit(exit_code(found))


if __name__ == "__main__":
    app()
