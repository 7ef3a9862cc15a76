"""The `mocha-pipe personalize` and `mocha-pipe profile` commands: learn objects from photos, list and change them."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mocha_pipe.pipeline.cli.console import print_json, print_table, print_values
from mocha_pipe.pipeline.cli.options import (
    NO_COMPLETION,
    DetectionConfidence,
    Device,
    Json,
    Root,
    StudentFolder,
    root_folder,
)

if TYPE_CHECKING:
    from mocha_pipe.pipeline.personal.photos import Shown
    from mocha_pipe.student.personal.profile import Profile

profile_app = typer.Typer(help="Look at the objects of a profile, and change them.", **NO_COMPLETION)

Name = Annotated[str, typer.Argument(show_default=False, help='What the object is called, such as "my mug".')]
ProfileFile = Annotated[Path | None, typer.Option("--profile", help="File [default: ROOT/profile.safetensors].")]


def personalize(
    name: Name,
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
        str | None, typer.Option("--class", help="What the object is to the detector [default: what it detects].")
    ] = None,
    profile: ProfileFile = None,
    student: StudentFolder = None,
    learner: Annotated[
        str | None,
        typer.Option(help="Of a new profile: conditional, gallery, protonet or simpleshot [default: conditional]."),
    ] = None,
    confidence: DetectionConfidence = 0.25,
    save: Annotated[Path | None, typer.Option(help="Folder for a picture of what was learnt from each photo.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the right thing was detected.")] = False,
    root: Root = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Learn an object from photos; more photos of a name that the profile knows refine it."""
    from mocha_pipe.pipeline.personal.personalize import draw, learn, student_folder
    from mocha_pipe.pipeline.personal.photos import PersonalizeError
    from mocha_pipe.pipeline.report.profile_tables import photos_table

    path = _path(profile, root)
    lesson = learn(
        name, photos, profile=path, folder=student_folder(root_folder(root), student), learner=learner, boxes=box or (),
        class_name=class_name, confidence=confidence, device=device or "",
    )  # fmt: skip
    rows = [_row(shown, lesson.profile) for shown in lesson.shown]
    if not as_json:
        print_table(photos_table(name, rows))
    if not (box or yes or as_json) and _is_terminal() and not typer.confirm("Is that it?"):
        raise PersonalizeError("nothing was learnt; say where the object is with --box, once for each photo")
    lesson.profile.save(path)
    if save:
        for number, (shown, row) in enumerate(zip(lesson.shown, rows, strict=True), 1):
            row["picture"] = save / f"{number:02d}-{shown.photo.stem}.jpg"
            draw(shown, f"{name} ({row['class']})", row["picture"])
    count = sum(lesson.profile.photos(name).values())
    if as_json:
        print_json({"profile": path, "name": name, "photos": rows, "photos_in_all": count})
        return
    for row in rows:
        if "picture" in row:
            typer.echo(f"look at it: {row['picture']}")
    typer.echo(f"{name}: learnt from {count} photo{'s' * (count > 1)}, in {path}")
    where = f" --student {shlex.quote(str(student))}" if student else ""
    typer.echo(f"find it: mocha-pipe detect IMAGE --profile {shlex.quote(str(path))}{where}")


@profile_app.command("list")
def profile_list(profile: ProfileFile = None, root: Root = None, as_json: Json = False) -> None:
    """The objects, their classes, and how many photos each was learnt from."""
    path, known = _open(profile, root)
    objects = [{"name": name, "classes": known.photos(name)} for name in known.names]
    if as_json:
        print_json({"profile": path, "student": known.student, "learner": known.learner.name, "objects": objects})
        return
    from mocha_pipe.pipeline.report.profile_tables import profile_table

    print_table(profile_table(str(path), objects))


@profile_app.command("show")
def profile_show(name: Name, profile: ProfileFile = None, root: Root = None, as_json: Json = False) -> None:
    """One object: its photos by class, and the other object that looks most like it."""
    path, known = _open(profile, root)
    classes, closest = known.photos(name), known.closest(name)
    other = {"name": closest[0], "cosine": round(closest[1], 3)} if closest else None
    if as_json:
        print_json({"profile": path, "name": name, "classes": classes, "closest": other})
        return
    values = {
        "photos": ", ".join(f"{count} as {coarse}" for coarse, count in classes.items()),
        "looks most like": f"{other['name']} (cosine {other['cosine']})" if other else "alone in the profile",
        "learner": known.learner.name,
        "student": known.student[:12],
    }
    print_values(name, values)


@profile_app.command("remove")
def profile_remove(name: Name, profile: ProfileFile = None, root: Root = None) -> None:
    """Forget an object."""
    path, known = _open(profile, root)
    _save(known.remove(name), path)


@profile_app.command("rename")
def profile_rename(
    old: Name,
    new: Annotated[str, typer.Argument(show_default=False, help="Its new name.")],
    profile: ProfileFile = None,
    root: Root = None,
) -> None:
    """Call an object something else."""
    path, known = _open(profile, root)
    _save(known.rename(old, new), path)


@profile_app.command("merge")
def profile_merge(
    other: Annotated[Path, typer.Argument(show_default=False, help="Profile whose objects are added; it stays.")],
    profile: ProfileFile = None,
    root: Root = None,
) -> None:
    """Add the objects of another profile of the same student; those of one name become one, from the photos of both."""
    from mocha_pipe.student.personal.profile import Profile

    path, known = _open(profile, root)
    _save(known.merge(Profile.load(other)), path)


def _is_terminal() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _path(profile: Path | None, root: Path | None) -> Path:
    from mocha_pipe.pipeline.personal.personalize import PROFILE_FILE

    return profile or root_folder(root) / PROFILE_FILE


def _open(profile: Path | None, root: Path | None) -> tuple[Path, "Profile"]:
    from mocha_pipe.student.personal.profile import Profile

    path = _path(profile, root)
    return path, Profile.load(path)


def _save(changed: "Profile", path: Path) -> None:
    changed.save(path)
    typer.echo(f"{path}: {', '.join(changed.names) or 'no objects'}")


def _row(shown: "Shown", profile: "Profile") -> dict[str, Any]:
    """One photo as tables and json tell it."""
    confidence = None if shown.confidence is None else round(shown.confidence, 3)
    what = {"class": profile.class_names[shown.coarse], "confidence": confidence}
    return {"photo": shown.photo, "box": shown.xywh, **what}
