"""The `mocha-pipe data` commands: look at a data set, import, pack or make one."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mocha_pipe.data.errors import DatasetError, quoted
from mocha_pipe.pipeline.cli.console import print_json, print_table, print_values
from mocha_pipe.pipeline.cli.flags import takes_settings
from mocha_pipe.pipeline.cli.options import GROUP, Json
from mocha_pipe.pipeline.cli.regions import data_regions
from mocha_pipe.pipeline.report.tables import check_table, stages_table
from mocha_pipe.pipeline.settings.sections import RunConfig

data = typer.Typer(help="Look at a data set, import, pack or make one.", **GROUP)
import_app = typer.Typer(help="Turn a published data set into one in YOLO layout.", **GROUP)
data.add_typer(import_app, name="import")
data.command("regions")(data_regions)


@data.command("check")
def data_check(data: Annotated[Path, typer.Argument(help="data.yaml or COCO json.")], as_json: Json = False) -> None:
    """Read every split, decode every image and list what is wrong; exit code 2 if an error is among it."""
    from mocha_pipe.data.checking.check import check_dataset

    splits = check_dataset(data, progress=True)
    problems = [problem for split in splits for problem in split.problems]
    if as_json:
        print_json({"data": str(data), "splits": [asdict(split) for split in splits]})
    else:
        for problem in problems:
            typer.echo(f"{problem.severity}: {problem.where}: {problem.message}")
        print_table(check_table(data, splits))
    errors = sum(problem.severity == "error" for problem in problems)
    if errors:
        raise DatasetError(f"{data} has {errors} error{'s' * (errors != 1)}: mend what is listed above and check again")


@import_app.command("openimages")
def import_openimages(
    source: Annotated[Path, typer.Argument(help="Folder with Open Images' CSV files and folders of images.")],
    out: Annotated[Path, typer.Argument(help="New folder for data.yaml, images and labels.")],
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images [default: link to them].")] = False,
    as_json: Json = False,
) -> None:
    """Boxes of 56 Open Images classes, merged into the paper's 31; depictions and groups are left out."""
    from mocha_pipe.data.readers.openimages import import_openimages as import_boxes

    imported = import_boxes(source, out, copy=copy, progress=True)
    _print_splits([asdict(part) for part in imported], "look at it: mocha-pipe data check", out / "data.yaml", as_json)


@data.command("pack")
@takes_settings("data.path")
def data_pack(
    config: RunConfig,
    out: Annotated[Path, typer.Option(help="Folder for the shards; other splits in it stay.")],
    split: Annotated[list[str] | None, typer.Option(help="Split to pack; repeatable [default: train and val].")] = None,
    shard_size: Annotated[float | None, typer.Option(min=0.001, help="Megabytes in a shard [default: 256].")] = None,
    as_json: Json = False,
) -> None:
    """Write images and boxes as WebDataset tar shards, which train like the folder, also from a bucket."""
    from mocha_pipe.pipeline.run.datasets import pack_shards

    packed = [asdict(part) for part in pack_shards(config, out, splits=split or (), shard_mb=shard_size)]
    _print_splits(packed, "train from them: mocha-pipe distill --data", packed[0]["pattern"], as_json)


@data.command("miniature")
@takes_settings("miniature.seed")
def data_miniature(
    config: RunConfig,
    out: Annotated[Path | None, typer.Argument(help="Folder to write [default: ROOT/miniature].")] = None,
) -> None:
    """Write the miniature world: a detection data set in YOLO layout, and a personal benchmark."""
    from mocha_pipe.pipeline.run.datasets import make_world

    folder = out or config.miniature_folder
    done = make_world(replace(config, miniature=replace(config.miniature, folder=folder)))
    print_table(stages_table([done]))


def _print_splits(parts: list[dict[str, Any]], next_step: str, place: Path, as_json: bool) -> None:
    """Print what became of each split, and a command to go on with."""
    if as_json:
        print_json(parts)
        return
    for part in parts:
        counts = {key: value for key, value in part.items() if key not in ("split", "pattern")}
        print_values(f"split {part['split']}", counts)
    typer.echo(f"{next_step} {quoted(place)}")
