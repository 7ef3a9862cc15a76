"""`python -m bench.mutants [NAMES]`: break named places of the product one at a time; the tests must fail for each.

It changes files of the working tree, one at a time, and puts each back: do not edit the tree meanwhile.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.figures import Figure, keep
from bench.mutants.places import MUTANTS
from bench.mutants.running import MutantError, try_all

ROOT = Path(__file__).parents[2]

NAMES = [mutant.name for mutant in MUTANTS]
Names = Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(NAMES)} [default: all].")]
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def mutants(
    names: Names = None,
    out: Annotated[Path, typer.Option(help="File of the figure.")] = Path("work/mutants.json"),
) -> None:
    """Try all mutants or the named ones; exit code 1 when one of them survives."""
    if unknown := sorted(set(names or ()) - set(NAMES)):
        raise typer.BadParameter(f"there is no mutant {unknown[0]}")
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    try:
        trials = try_all(chosen, ROOT)
    except MutantError as error:
        raise typer.BadParameter(str(error)) from error
    killed = sum(trial.verdict == "killed" for trial in trials)
    note = "places of the product that were broken one at a time, and for which tests failed"
    keep(out, {"mutants_killed": Figure(value=killed, target=len(trials), better="higher", note=note)})
    for trial in trials:
        if trial.verdict == "no verdict":
            typer.echo(f"\n{trial.mutant.name}: the tests could not be run:\n{trial.said}", err=True)
    typer.echo(f"{killed} of {len(trials)} killed")
    sys.exit(killed < len(trials))


if __name__ == "__main__":
    app()
