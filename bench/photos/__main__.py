"""What a user may expect on photographs: `python -m bench.photos FOLDER`, `make study-photos`; docs/photographs.md.

FOLDER has the pictures, none of which needs a label:

    subjects/     personal objects, a folder of pictures each; coarse.yaml has lines `object: class`
    objects/      pictures of anything else, which students are distilled on
    weights/      the detector (.pt); another one is named with --detector

ROOT keeps what was made, and a call goes on where the last one ended:

    teacher       made from public packages where none is named (teacher.py)
    subjects      copies; regions, cache, deep/seed-0 ... paper/seed-2: the product's own stages (training.py)
    failures.html pictures in which the first seed's student did not find an object, or gave a wrong name (sheet.py)
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.figures import Figures, exit_code, keep, show
from bench.photos.recipe import EPOCHS, FEATURES, Study
from bench.photos.subjects import copy_subjects
from mocha_pipe.data.benchmarks.photos import read_photos
from mocha_pipe.data.files import write_json
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.cli.console import print_table
from mocha_pipe.pipeline.markers import read_json

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def photos(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the photographs.")],
    teacher: Annotated[
        str | None, typer.Option(help="Hub id or folder [default: one made from public packages].")
    ] = None,
    detector: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Weights [default: FOLDER/weights/*.pt].")
    ] = None,
    coco: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="data.yaml with the detector's classes.")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder for what is made.")] = Path("work/study-photos"),
    out: Annotated[Path | None, typer.Option(help="File of the figures [default: ROOT.json].")] = None,
    seeds: Annotated[str, typer.Option(help="Training seeds, by commas.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(min=1, help="Of each student.")] = EPOCHS,
    steps: Annotated[bool, typer.Option(help="Also measure time and memory of a step.")] = True,
) -> None:
    """Make what is missing, measure, print and keep the figures; exit code 1 when one misses its target."""
    ignored = copy_subjects(folder / "subjects", root / "subjects")
    if ignored:
        typer.echo(f"{folder}/subjects/coarse.yaml: {ignored} lines are no 'object: class' and were ignored", err=True)
    study = Study(
        root=root, subjects=root / "subjects", objects=folder / "objects",
        detector=detector or find_detector(folder / "weights"), teacher=teacher or _own_teacher(root),
        seeds=tuple(int(seed) for seed in seeds.split(",")), epochs=epochs,
    )  # fmt: skip
    out = out or root.with_name(f"{root.name}.json")
    from bench.photos.training import train_students

    train_students(study)
    benchmark = read_photos(study.subjects)
    figures = {**_recognition(study, benchmark, out), **_finding(study, benchmark, out), **_base(study, coco, out)}
    if steps:
        from bench.training import frozen

        typer.echo("time and memory of a step ...", err=True)
        figures |= (found := frozen.measure(root))
        keep(out, found)
    show(figures)
    sys.exit(exit_code(figures))


def find_detector(folder: Path) -> Path:
    """The one `.pt` there."""
    found = sorted(folder.glob("*.pt"))
    if len(found) != 1:
        raise typer.BadParameter(
            f"{folder} must hold one detector (.pt), found {len(found)}; name one with --detector weights.pt"
        )
    return found[0]


def _own_teacher(root: Path) -> str:
    from bench.photos.teacher import make_teacher

    return str(make_teacher(root / "teacher", root / "packages"))


def _recognition(study: Study, benchmark: PersonalBenchmark, out: Path) -> Figures:
    from bench.photos.recognition import accuracy_table, gap_figures, recognise, table_of

    rows = recognise(study, benchmark)
    figures, table = gap_figures(rows), table_of(rows)
    _keep(out, figures, table=table)
    print_table(accuracy_table(table))
    return figures


def _finding(study: Study, benchmark: PersonalBenchmark, out: Path) -> Figures:
    from bench.photos.finding import find_objects, found_figures, subjects_of
    from bench.photos.sheet import FailureSheet

    deep, paper = FEATURES
    sheet = FailureSheet(study.root / "failures")
    ours, before, left_out = [], [], []
    for seed in study.seeds:
        typer.echo(f"looking for objects, seed {seed} ...", err=True)
        see = sheet.see if seed == study.seeds[0] else None
        ours.append(find_objects(study.student(deep, seed), benchmark, "simpleshot", see)[0])
        sights, without_class = find_objects(study.student(paper, seed), benchmark, "conditional")
        before.append(sights)
        left_out.append(len(without_class))
    figures = found_figures(ours, before, left_out)
    _keep(out, figures, subjects=subjects_of(ours))
    typer.echo(f"failures: {sheet.write(f'Failures of seed {study.seeds[0]}')}", err=True)
    return figures


def _base(study: Study, coco: Path | None, out: Path) -> Figures:
    from bench.photos.base import base_figures

    figures, notes = base_figures(study, coco)
    _keep(out, figures, notes=notes)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    return figures


def _keep(out: Path, figures: Figures, **more: Any) -> None:
    """Add figures and other things to the file."""
    keep(out, figures)
    write_json(out, {**read_json(out), **more})


if __name__ == "__main__":
    app()
