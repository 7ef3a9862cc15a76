"""The `mocha-pipe` command. Commands only parse and print; the work is in pipeline/stages.py.

Nothing heavy is imported here: each command imports what it needs, so that `--help` answers at once.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mocha_pipe.data.errors import MochaError
from mocha_pipe.pipeline.cli.cache import cache_app
from mocha_pipe.pipeline.cli.console import print_json, print_report, print_stages, print_table, print_values
from mocha_pipe.pipeline.cli.data import data_app
from mocha_pipe.pipeline.cli.detect import detect
from mocha_pipe.pipeline.cli.export import export
from mocha_pipe.pipeline.cli.options import (
    NO_COMPLETION,
    Assignments,
    Batch,
    Cache,
    CacheOrUrl,
    Data,
    DataOrUrl,
    Device,
    Epochs,
    ImageSize,
    Json,
    Root,
    Run,
    Seed,
    Toml,
    cache_place,
    data_place,
)
from mocha_pipe.pipeline.cli.profile import personalize, profile_app
from mocha_pipe.pipeline.cli.sweep import sweep
from mocha_pipe.student.choices import BEST_OBJECTIVE, OBJECTIVE_NAMES

_OBJECTIVE_HELP = f"{', '.join(OBJECTIVE_NAMES)}, or best: {BEST_OBJECTIVE}."


class _Group(TyperGroup):
    """Ends a user's mistake in one line, and an interruption in another."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit 2 after a MochaError, 130 after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except MochaError as error:
            if ctx.params.get("debug"):
                raise
            for line in str(error).splitlines():
                typer.echo(f"error: {line}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on where this one was", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group, pretty_exceptions_enable=False, **NO_COMPLETION,
    rich_markup_mode="markdown",  # the other one takes [default: work] for a style and drops it
    help="Distil a vision-language teacher into a light YOLO detector that learns a personal object from one photo.",
)  # fmt: skip
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")
app.add_typer(profile_app, name="profile")


def main() -> None:
    """Entry point of the `mocha-pipe` script."""
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


@app.command()
def demo(root: Root = None, config: Toml = None) -> None:
    """All stages on the miniature world: report.json and report.html in work/demo."""
    from mocha_pipe.pipeline.settings import recipes
    from mocha_pipe.pipeline.settings.loading import load_config
    from mocha_pipe.pipeline.stages import run_demo

    completions = run_demo(load_config(config, {"root": root}, recipe=recipes.demo))
    print_stages(completions)
    print_report(completions[-1], as_json=False)


@app.command()
def pretrain(
    data: Data = None,
    model: Annotated[str | None, typer.Option(help="Ultralytics .yaml (from scratch) or .pt.")] = None,
    run: Run = None,
    root: Root = None,
    config: Toml = None,
    epochs: Epochs = None,
    imgsz: ImageSize = None,
    batch: Batch = None,
    seed: Seed = None,
    device: Device = None,
    arguments: Assignments = None,
) -> None:
    """Stage 1: train the base detector, a plain ultralytics run."""
    from mocha_pipe.pipeline.settings.loading import load_config, parse_assignments
    from mocha_pipe.pipeline.stages import pretrain_base

    training: dict[str, Any] = {"epochs": epochs, "image_size": imgsz, "batch": batch, "seed": seed, "device": device}
    training |= {"model": model, "folder": run, "train": parse_assignments(arguments or ())}
    done = pretrain_base(load_config(config, {"root": root, "data": {"path": data}, "pretrain": training}))
    print_values(f"base detector {done.folder}", {**done.outputs, "already_complete": done.skipped})


@app.command()
def distill(
    data: DataOrUrl = None,
    cache: CacheOrUrl = None,
    student: Annotated[
        str | None, typer.Option(help="Detector to start from, .pt or .yaml [default: the base detector].")
    ] = None,
    run: Run = None,
    root: Root = None,
    config: Toml = None,
    epochs: Epochs = None,
    imgsz: ImageSize = None,
    batch: Batch = None,
    seed: Seed = None,
    device: Device = None,
    features: Annotated[str | None, typer.Option(help="fine (P3-P5, patches of finer maps) or paper (P3-P5).")] = None,
    objective: Annotated[str | None, typer.Option(help=_OBJECTIVE_HELP)] = None,
    schedule: Annotated[str | None, typer.Option(help="joint, or alternate: the detector in every 4th epoch.")] = None,
    lambda_dist: Annotated[float | None, typer.Option(min=0, help="Weight of L_dist.")] = None,
    lambda_emb: Annotated[float | None, typer.Option(min=0, help="Weight of L_emb.")] = None,
    arguments: Assignments = None,
) -> None:
    """Stage 2: train the student on the cached targets beside its own task."""
    from mocha_pipe.pipeline.settings.loading import load_config, parse_assignments
    from mocha_pipe.pipeline.stages import distill_student

    training: dict[str, Any] = {"epochs": epochs, "image_size": imgsz, "batch": batch, "seed": seed, "device": device}
    training |= {"student": student, "folder": run, "train": parse_assignments(arguments or ())}
    training |= {"features": features, "objective": objective, "schedule": schedule}
    training |= {"lambda_dist": lambda_dist, "lambda_emb": lambda_emb}
    flags = {"root": root, "data": data_place(data), "cache": cache_place(cache), "distill": training}
    done = distill_student(load_config(config, flags))
    print_values(f"distilled student {done.folder}", {**done.outputs, "already_complete": done.skipped})


@app.command()
def fewshot(
    shots: Annotated[list[int] | None, typer.Option(min=1, help="Images per object; repeatable [default: 1].")] = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(help="Folder, or with --data the name of a published one [default: miniature's]."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of a published benchmark: perseg, pod, core50 ...")] = None,
    run: Annotated[Path | None, typer.Option(help="Distillation to evaluate [default: the last one].")] = None,
    base: Annotated[str | None, typer.Option(help="Base detector .pt [default: the run's start].")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the reports [default: ROOT/fewshot].")] = None,
    root: Root = None,
    config: Toml = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Draws of support and query.")] = None,
    seed: Seed = None,
    learner: Annotated[str | None, typer.Option(help="conditional, gallery, protonet or simpleshot.")] = None,
    confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score of a detection [default: the reference's].")
    ] = None,
    head_epochs: Annotated[
        int | None, typer.Option(min=0, help="Detectors first learn the coarse classes [default: the reference's].")
    ] = None,
    false_accept_rate: Annotated[
        float | None, typer.Option(help="Strangers that may get a name at the student's threshold [default: 0.05].")
    ] = None,
    device: Device = None,
    teacher: Annotated[bool | None, typer.Option("--teacher/--no-teacher", help="The live teacher's row.")] = None,
    as_json: Json = False,
) -> None:
    """Stage 3: evaluate the last distilled student against its base detector."""
    from mocha_pipe.pipeline.settings.loading import load_config
    from mocha_pipe.pipeline.stages import evaluate_fewshot

    flags = {
        "root": root,
        "fewshot": {
            "shots": shots or None, "benchmark": benchmark, "benchmark_data": data, "run": run, "base": base,
            "folder": out, "episodes": episodes, "seed": seed, "learner": learner, "confidence": confidence,
            "head_epochs": head_epochs, "false_accept_rate": false_accept_rate, "device": device, "teacher": teacher,
        },
    }  # fmt: skip
    print_report(evaluate_fewshot(load_config(config, flags)), as_json=as_json)


app.command()(sweep)
app.command()(personalize)
app.command()(detect)
app.command()(export)


@app.command()
def doctor(root: Root = None, cache: Cache = None, as_json: Json = False) -> None:
    """Check this machine; exit code 1 if something must be mended."""
    from mocha_pipe.pipeline.doctor import examine
    from mocha_pipe.pipeline.settings.loading import load_config

    settings = load_config(None, {"root": root, "cache": {"folder": cache}})
    assert settings.cache.folder is not None
    checks = examine(settings.root, settings.cache.folder)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        from mocha_pipe.pipeline.report.tables import doctor_table

        print_table(doctor_table(checks))
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)
