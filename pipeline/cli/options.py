"""The options that several commands share and that are no settings of a run."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

Root = Annotated[
    Path,
    typer.Option(help="Folder for whatever has no folder of its own [default: work].", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print json on stdout instead of tables.")]
Device = Annotated[
    str, typer.Option(help="cpu, mps, cuda, cuda:1 or 1; auto is CUDA where there is one, else the CPU.")
]
ObjectName = Annotated[str, typer.Argument(show_default=False, help='What the object is called, such as "my mug".')]
ProfileFile = Annotated[
    Path | None, typer.Option("--profile", help="Your objects [default: ROOT/profile.safetensors].")
]
StudentFolder = Annotated[
    Path | None, typer.Option("--student", help="Folder of a student [default: the last distilled one].")
]
DetectionConfidence = Annotated[
    float, typer.Option("--confidence", min=0, max=1, help="Detections need more than this.")
]
FalseAcceptRate = Annotated[
    float, typer.Option(help="How often another thing may get a personal name; above 0, below 1.")
]


class Group(TyperGroup):
    """Lists its commands with the whole first paragraph of what they say."""

    def summaries(self) -> dict[str, str]:
        """What each command does."""
        return {name: (command.help or "").partition("\n\n")[0] for name, command in self.commands.items()}

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The list of commands in `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries().items()))


GROUP: dict[str, Any] = {"cls": Group, "no_args_is_help": True, "add_completion": False, "rich_markup_mode": None}
"""What every group of commands is made with. Help without markup is plain text, and needs no import of rich."""
