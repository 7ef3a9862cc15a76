"""The `mocha-pipe sweep` command: which settings of distillation make the best student."""

from dataclasses import replace
from typing import Annotated

import typer

from mocha_pipe.pipeline.cli.console import print_table
from mocha_pipe.pipeline.cli.flags import takes_settings
from mocha_pipe.pipeline.report.tables import sweep_legend, sweep_table
from mocha_pipe.pipeline.settings.sections import RunConfig


@takes_settings(
    "sweep", "data.path", "data.url", "data.val", "cache.folder", "cache.url", "distill.student", "distill.epochs",
    "distill.image_size", "distill.batch", "distill.device", "distill.train",
)  # fmt: skip
def sweep(
    config: RunConfig,
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
) -> None:
    """Compare settings of distillation: train each with several seeds on one cache, print one table with intervals.

    What is complete is skipped, so the same command goes on where it was stopped, and more seeds or variants only add
    runs.
    """  # fmt: skip
    from mocha_pipe.pipeline.settings.variants import parse_variants

    compared = parse_variants(config, variants or ())  # before heavy imports: a mistake is answered at once
    from mocha_pipe.pipeline.run.datasets import named
    from mocha_pipe.pipeline.sweep import REPORT, run_sweep

    if config.distill.device != "auto":  # students are measured where they are trained; one device is enough for that
        config = replace(config, fewshot=replace(config.fewshot, device=config.distill.device.partition(",")[0]))
    report = run_sweep(config, compared, announce=lambda line: typer.echo(line, err=True))
    print_table(sweep_table(report))
    typer.echo(f"{sweep_legend(report)}\n{named(config.sweep.folder) / REPORT}")
