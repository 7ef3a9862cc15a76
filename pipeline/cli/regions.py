"""The `mocha-pipe data regions` command: a data set of pictures that nobody labelled."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mocha_pipe.data.errors import quoted
from mocha_pipe.pipeline.cli.console import print_json, print_values
from mocha_pipe.pipeline.cli.options import DetectionConfidence, Device, Json

if TYPE_CHECKING:
    from mocha_pipe.pipeline.markers import Completion


def data_regions(
    pictures: Annotated[
        list[Path],
        typer.Argument(show_default=False, help="Folders of pictures, or data sets (data.yaml, COCO json, shards)."),
    ],
    out: Annotated[Path, typer.Option(show_default=False, help="New folder for data.yaml, images and labels.")],
    detector: Annotated[
        Path | None, typer.Option(help="Boxes that these weights find (.pt, or the folder of a student).")
    ] = None,
    confidence: DetectionConfidence = 0.25,
    most: Annotated[int, typer.Option(min=1, help="Detections of a picture, the most confident ones.")] = 50,
    whole: Annotated[bool, typer.Option("--whole", help="Each picture as a box.")] = False,
    crops: Annotated[int, typer.Option(min=0, help="Random crops of each picture.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the crops.")] = 0,
    ground_truth: Annotated[
        bool, typer.Option("--ground-truth", help="Keep the boxes of data sets; detections of the same are left out.")
    ] = False,
    val_share: Annotated[
        float, typer.Option(help="Share of the pictures for validation; those of a data set keep their split.")
    ] = 0.05,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make a data set of pictures that nobody labelled: a detector's boxes, whole pictures or random crops.

    Pictures are linked, and copied where that is not possible; nothing is written beside them. The same picture and
    seed give the same regions, whatever else is in the folder. Exit code 1 when a picture cannot be read.
    """
    from mocha_pipe.data.unlabelled.mixing import RegionChoice
    from mocha_pipe.pipeline.run.devices import torch_device
    from mocha_pipe.pipeline.unlabelled import make_regions

    place = torch_device(device)
    choice = RegionChoice(
        ground_truth=ground_truth, detector=detector, confidence=confidence, most=most, whole=whole, crops=crops,
        seed=seed, val_share=val_share,
    )  # fmt: skip
    done = make_regions(pictures, out, choice, device=place if detector else "cpu", progress=True)
    if as_json:
        print_json({"data": str(done.path("data")), "already_complete": done.skipped, **_without_data(done)})
    else:
        print_values(f"regions {done.folder}", {**_shown(done), "already_complete": done.skipped})
        typer.echo(f"see what the teacher would cost: mocha-pipe cache plan --data {quoted(done.path('data'))}")
    unreadable = done.outputs["unreadable"]
    for found in unreadable:
        typer.echo(f"left out: {found['picture']}: {found['reason']}", err=True)
    if unreadable:
        raise typer.Exit(1)


def _without_data(done: "Completion") -> dict[str, Any]:
    return {name: value for name, value in done.outputs.items() if name != "data"}


def _shown(done: "Completion") -> dict[str, Any]:
    """What the table says: one row for each source of boxes, and numbers only."""
    told = _without_data(done)
    boxes = {f"boxes: {source}": count for source, count in told.pop("boxes").items()}
    return {**told, **boxes, "unreadable": len(told["unreadable"])}
