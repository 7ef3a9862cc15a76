"""The `mocha-pipe profile` commands: the objects that were learnt from photos, to list and to change."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mocha_pipe.data.names import as_typed
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
    _change(profile, root, lambda known: known.remove(name))


@profile.command("rename")
def profile_rename(
    old: ObjectName,
    new: Annotated[str, typer.Argument(show_default=False, help="Its new name.")],
    profile: ProfileFile = None,
    root: Root = Path("work"),
) -> None:
    """Call an object something else."""
    _change(profile, root, lambda known: known.rename(old, new))


@profile.command("merge")
def profile_merge(
    other: Annotated[Path, typer.Argument(show_default=False, help="Profile whose objects are added; it stays.")],
    profile: ProfileFile = None,
    root: Root = Path("work"),
) -> None:
    """Add the objects of another profile of the same student; those of one name become one, from the photos of both."""
    from mocha_pipe.student.personal.profile import Profile

    _, before = _open(profile, root)
    merged = _change(profile, root, lambda known: known.merge(Profile.load(other)))
    for first, second, cosine in merged.alike():
        if {first, second} - set(before.names):
            told = f"{second} looks like {first} (cosine {cosine:.2f}): is it one object under two names?"
            typer.echo(f"warning: {told} forget one with: mocha-pipe profile remove {as_typed(second)}", err=True)


def _open(profile: Path | None, root: Path) -> tuple[Path, "Profile"]:
    from mocha_pipe.pipeline.personal.personalize import PROFILE_FILE
    from mocha_pipe.student.personal.profile import Profile

    path = profile or root / PROFILE_FILE
    return path, Profile.load(path)


def _change(profile: Path | None, root: Path, change: Callable[["Profile"], "Profile"]) -> "Profile":
    """Change the file while nobody else does."""
    from mocha_pipe.student.personal.profile import Profile
    from mocha_pipe.student.personal.profile_file import changing

    path, _ = _open(profile, root)  # a file that is not there needs no lock
    with changing(path):
        changed = change(Profile.load(path))
        changed.save(path)
    typer.echo(f"{path}: {', '.join(changed.names) or 'no objects'}")
    return changed
