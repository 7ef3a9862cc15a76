"""The `mocha-pipe personalize` command: learn an object from photos."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mocha_pipe.data.errors import first_line, in_print, quoted
from mocha_pipe.pipeline.cli import options
from mocha_pipe.pipeline.cli.console import print_json, print_table
from mocha_pipe.pipeline.report.tables import photos_table

if TYPE_CHECKING:
    from mocha_pipe.pipeline.personal.personalize import Learnt
    from mocha_pipe.pipeline.personal.photos import Shown
    from mocha_pipe.student.personal.profile import Profile


def personalize(
    name: options.ObjectName,
    photos: Annotated[list[Path], typer.Argument(show_default=False, help="Photos of the object, one or more.")],
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Where the object is: left, top, width, height in pixels of the upright photo; once per photo, in "
            "their order [default: the most confident detection].",
        ),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="What the object is to the detector [default: what it detects, if anything]."),
    ] = None,
    profile: options.ProfileFile = None,
    student: options.StudentFolder = None,
    learner: Annotated[
        str | None,
        typer.Option(
            help="Of a new profile: conditional, which looks for an object only under its class; gallery, protonet or "
            "simpleshot, to which the class does not matter [default: that for features deep, else conditional]."
        ),
    ] = None,
    confidence: options.DetectionConfidence = 0.25,
    save: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for a picture of what was learnt from each photo.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the right thing was detected.")] = False,
    root: options.Root = Path("work"),
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Learn an object from photos; more photos of a name that the profile knows refine it."""
    from mocha_pipe.pipeline.personal.personalize import PROFILE_FILE, learn, student_folder
    from mocha_pipe.pipeline.personal.photos import PersonalizeError
    from mocha_pipe.pipeline.run.devices import torch_device

    path = profile or root / PROFILE_FILE
    learnt = learn(
        name, photos, profile=path, folder=student_folder(root, student), learner=learner, boxes=box or (),
        class_name=class_name, confidence=confidence, device=torch_device(device),
    )  # fmt: skip
    name = learnt.name
    rows = [_row(shown, learnt.profile) for shown in learnt.shown]
    for warning in learnt.warnings():
        typer.echo(f"warning: {in_print(warning)}", err=True)
    if not as_json:
        print_table(photos_table(name, rows))
    if not (box or yes or as_json) and _is_terminal() and not typer.confirm("Is that it?"):
        raise PersonalizeError("nothing was learnt; say where the object is with --box, once for each photo")
    saved, again = learnt.save(path)
    if again:
        what = "a photo and box was" if again == 1 else f"{again} photos and boxes were"
        typer.echo(f"warning: {what} learnt before or named twice, and counts once", err=True)
    not_drawn = _draw(learnt, rows, save) if save else None
    count = sum(saved.photos(name).values())
    if as_json:
        print_json({"profile": path, "name": name, "photos": rows, "photos_in_all": count})
    else:
        for row in rows:
            if "picture" in row:
                typer.echo(f"look at it: {row['picture']}")
        typer.echo(f"{name}: learnt from {count} photo{'s' * (count > 1)}, in {path}")
        where = f" --student {quoted(student)}" if student else ""
        typer.echo(f"find it: mocha-pipe detect IMAGE --profile {quoted(path)}{where}")
    if not_drawn:
        raise PersonalizeError(
            f"{save}: a picture cannot be written there ({not_drawn}), but {name} was learnt and is in {path}; to see "
            "what was learnt, free some space or name another folder with --save, and run the same command again"
        )


def _draw(learnt: "Learnt", rows: list[dict[str, Any]], folder: Path) -> str | None:
    """Write a picture of each photo and put it into its row; why one could not be written, where that is so."""
    from mocha_pipe.pipeline.personal.personalize import draw

    try:
        for shown, row in zip(learnt.shown, rows, strict=True):
            row["picture"] = draw(shown, learnt.name, row["class"], folder)
    except OSError as error:
        return error.strerror or first_line(error)
    return None


def _is_terminal() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _row(shown: "Shown", profile: "Profile") -> dict[str, Any]:
    """One photo as tables and json tell it."""
    confidence = None if shown.confidence is None else round(shown.confidence, 3)
    what = {"class": profile.class_name(shown.coarse), "confidence": confidence}
    return {"photo": shown.photo, "box": shown.xywh, **what}
