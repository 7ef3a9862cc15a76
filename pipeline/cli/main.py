"""The `mocha-pipe` command: which file holds which command, and how mistakes end.

The file of a command is imported when that command is asked for, so that `--help` answers at once.
"""

import errno
import io
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from mocha_pipe.data.errors import MochaError
from mocha_pipe.pipeline.cli.options import GROUP, Group

COMMANDS = {
    "data": ("data", "Look at a data set, import, pack or make one."),
    "cache": ("cache", "Phase 1: run the teacher once over every box; check and share the result."),
    "profile": ("profile", "Look at the objects of a profile, and change them."),
    "demo": ("stages", "All stages on the miniature world: report.json and report.html in work/demo."),
    "pretrain": ("stages", "Stage 1: train the base detector, a plain ultralytics run."),
    "distill": ("stages", "Stage 2: train the student on the cached targets beside its own task."),
    "fewshot": ("stages", "Stage 3: evaluate the last distilled student against its base detector."),
    "sweep": (
        "sweep",
        "Compare settings of distillation: train each with several seeds on one cache, print one table with intervals.",
    ),
    "personalize": (
        "personalize",
        "Learn an object from photos; more photos of a name that the profile knows refine it.",
    ),
    "detect": (
        "detect",
        "Find objects in images, videos or a camera's picture, and call yours by their names; Ctrl-C ends it.",
    ),
    "export": (
        "export",
        "Write a student as one file that a device runs without this package; your objects are an input of it.",
    ),
    "web": (
        "web",
        "Open a page on which you teach and find objects with a camera or photos, which never leave the browser.",
    ),
    "doctor": ("stages", "Check this machine; exit code 1 if something must be mended."),
}
"""By name: the module of this folder that holds the command, or group of commands, under its name; what it does."""


_OF_THE_DISK = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
}  # fmt: skip
"""What a path or a disk is at fault for, and not this program."""


def _in_words(error: OSError) -> str:
    """Which path cannot be used, why, and what to do."""
    place = error.filename2 or error.filename or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place} cannot be written ({error.strerror}): free some space and run the same command again"
    return (
        f"{place} cannot be used ({error.strerror}): name another place for it; --root names the folder for whatever "
        "has no place of its own"
    )


class _Commands(Group):
    """Imports a command when it is asked for; ends a user's mistake in one line, and an interruption in another."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command or group of that name, None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        found = getattr(import_module(f"mocha_pipe.pipeline.cli.{COMMANDS[cmd_name][0]}"), cmd_name)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        alone = typer.Typer(**GROUP)
        alone.command(cmd_name)(found)
        return typer.main.get_command(alone)

    def summaries(self) -> dict[str, str]:
        """What each command does, told without importing one."""
        return {name: text for name, (_, text) in COMMANDS.items()}

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit 2 after a MochaError, 130 after Ctrl-C."""
        from mocha_pipe.pipeline.cli.console import warnings_in_one_line  # after --help, which does without

        try:
            with warnings_in_one_line():
                return super().invoke(ctx)
        except MochaError as error:
            if ctx.params.get("debug"):
                raise
            for line in _lines(error):
                typer.echo(f"error: {line}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            if ctx.params.get("debug") or error.errno not in _OF_THE_DISK:
                raise
            typer.echo(f"error: {_in_words(error)}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on where this one was", err=True)
            raise typer.Exit(130) from None


def _lines(error: MochaError) -> list[str]:
    """What an error says; of one raised in a worker of a torch loader, its text without torch's traceback."""
    lines = str(error).splitlines()
    if lines[0].startswith("Caught ") and "DataLoader worker" in lines[0]:
        return [lines[-1].partition(": ")[2]]
    return lines


app = typer.Typer(
    **GROUP | {"cls": _Commands}, pretty_exceptions_enable=False,
    help="Distil a vision-language teacher into a light YOLO detector that learns a personal object from one photo.",
)  # fmt: skip


def main() -> None:
    """Entry point of the `mocha-pipe` script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Letters that a terminal or a pipe does not take are written as \u043a.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="mocha-pipe")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"mocha-pipe {version('mocha-pipe')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""
