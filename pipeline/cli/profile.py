"""The `mocha-pipe profile` commands: the objects that were learnt from photos, to list and to change."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mocha_pipe.pipeline.cli.console import print_either
from mocha_pipe.pipeline.cli.options import GROUP, Json, ObjectName, ProfileFile, Root
from mocha_pipe.pipeline.report.tables import profile_table, values_table

if TYPE_CHECKING:
    from mocha_pipe.student.personal.profile import Profile

profile = typer.Typer(help="Look at the objects of a profile, and change them.", **GROUP)


@profile.command("list")
def profile_list(profile: ProfileFile = None, root: Root = Path("work"), as_json: Json = False) -> None:
    """The objects, their classes, and how many photos each was learnt from."""
    path, known = _open(profile, root)
    objects = [{"name": name, "classes": known.photos(name)} for name in known.names]
    told = {"profile": path, "student": known.student, "learner": known.learner.name, "objects": objects}
    print_either(told, profile_table(str(path), objects), as_json)


@profile.command("show")
def profile_show(
    name: ObjectName, profile: ProfileFile = None, root: Root = Path("work"), as_json: Json = False
) -> None:
    """One object: its photos by class, and the other object that looks most like it."""
    path, known = _open(profile, root)
    classes, closest = known.photos(name), known.closest(name)
    other = {"name": closest[0], "cosine": round(closest[1], 3)} if closest else None
    values = {
        "photos": ", ".join(f"{count} as {coarse}" for coarse, count in classes.items()),
        "looks most like": f"{other['name']} (cosine {other['cosine']})" if other else "alone in the profile",
        "learner": known.learner.name,
        "student": known.student[:12],
    }
    told = {"profile": path, "name": name, "classes": classes, "closest": other}
    print_either(told, values_table(name, values), as_json)


@profile.command("remove")
def profile_remove(name: ObjectName, profile: ProfileFile = None, root: Root = Path("work")) -> None:
    """Forget an object."""
    path, known = _open(profile, root)
    _save(known.remove(name), path)


@profile.command("rename")
def profile_rename(
    old: ObjectName,
    new: Annotated[str, typer.Argument(show_default=False, help="Its new name.")],
    profile: ProfileFile = None,
    root: Root = Path("work"),
) -> None:
    """Call an object something else."""
    path, known = _open(profile, root)
    _save(known.rename(old, new), path)


@profile.command("merge")
def profile_merge(
    other: Annotated[Path, typer.Argument(show_default=False, help="Profile whose objects are added; it stays.")],
    profile: ProfileFile = None,
    root: Root = Path("work"),
) -> None:
    """Add the objects of another profile of the same student; those of one name become one, from the photos of both."""
    from mocha_pipe.student.personal.profile import Profile

    path, known = _open(profile, root)
    _save(known.merge(Profile.load(other)), path)


def _open(profile: Path | None, root: Path) -> tuple[Path, "Profile"]:
    from mocha_pipe.pipeline.personal.personalize import PROFILE_FILE
    from mocha_pipe.student.personal.profile import Profile

    path = profile or root / PROFILE_FILE
    return path, Profile.load(path)


def _save(changed: "Profile", path: Path) -> None:
    changed.save(path)
    typer.echo(f"{path}: {', '.join(changed.names) or 'no objects'}")
