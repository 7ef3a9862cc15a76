"""The `mocha-pipe sweep` command: which settings of distillation make the best student."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mocha_pipe.pipeline.cli.console import print_table
from mocha_pipe.pipeline.cli.options import (
    Assignments,
    Batch,
    CacheOrUrl,
    DataOrUrl,
    Device,
    Epochs,
    ImageSize,
    Root,
    Toml,
    cache_place,
    data_place,
)


def sweep(
    variants: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SETTING=VALUE,VALUE",
            show_default=False,
            help="Settings of [distill] and the values to compare, such as objective=paper,cosine lambda_dist=1,3; "
            "several settings make the product. The first variant is what the others are compared with "
            "[default: every objective].",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="SEED,SEED", help="Training seeds, each for every variant [default: 0,1,2].")
    ] = None,
    shots: Annotated[
        str | None, typer.Option(metavar="SHOTS,SHOTS", help="Images per personal object [default: 1,5].")
    ] = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(
            help="Personal benchmark to measure on [default: the miniature's validation world, ROOT/validation]."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs and sweep.json [default: ROOT/sweep].")] = None,
    data: DataOrUrl = None,
    cache: CacheOrUrl = None,
    student: Annotated[
        str | None, typer.Option(help="Detector that all start from, .pt or .yaml [default: the base detector].")
    ] = None,
    root: Root = None,
    config: Toml = None,
    epochs: Epochs = None,
    imgsz: ImageSize = None,
    batch: Batch = None,
    device: Device = None,
    arguments: Assignments = None,
) -> None:
    """Compare settings of distillation: train each with several seeds on one cache, print one table with intervals.

    What is complete is skipped, so the same command goes on where it was stopped, and more seeds or variants only add
    runs.
    """  # fmt: skip
    from mocha_pipe.pipeline.settings.loading import load_config, parse_assignments, parse_list
    from mocha_pipe.pipeline.settings.variants import parse_variants

    training: dict[str, Any] = {"epochs": epochs, "image_size": imgsz, "batch": batch, "device": device}
    training |= {"student": student, "train": parse_assignments(arguments or ())}
    asked: dict[str, Any] = {"benchmark": benchmark, "folder": out}
    asked |= {name: text and parse_list(text) for name, text in (("seeds", seeds), ("shots", shots))}
    flags = {
        "root": root, "data": data_place(data), "cache": cache_place(cache), "distill": training,
        "fewshot": {"device": device and device.partition(",")[0]}, "sweep": asked,
    }  # fmt: skip
    settings = load_config(config, flags)
    compared = parse_variants(settings, variants or ())
    from mocha_pipe.pipeline.report.tables import sweep_legend, sweep_table
    from mocha_pipe.pipeline.sweep import REPORT, run_sweep

    report = run_sweep(settings, compared, announce=lambda line: typer.echo(line, err=True))
    print_table(sweep_table(report))
    assert settings.sweep.folder is not None
    typer.echo(f"{sweep_legend(report)}\n{settings.sweep.folder / REPORT}")
