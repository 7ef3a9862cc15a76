"""The commands of the stages, `mocha-pipe demo`, `pretrain`, `distill` and `fewshot`, and `mocha-pipe doctor`."""

from dataclasses import asdict

import typer

from mocha_pipe.pipeline.cli.console import print_either, print_report, print_table, print_values
from mocha_pipe.pipeline.cli.flags import takes_settings
from mocha_pipe.pipeline.cli.options import Json
from mocha_pipe.pipeline.report.tables import doctor_table, stages_table
from mocha_pipe.pipeline.settings import recipes
from mocha_pipe.pipeline.settings.sections import RunConfig


@takes_settings(recipe=recipes.demo)
def demo(config: RunConfig) -> None:
    """All stages on the miniature world: report.json and report.html in work/demo."""
    from mocha_pipe.pipeline.stages import run_demo

    completions = run_demo(config)
    print_table(stages_table(completions))
    print_report(completions[-1], as_json=False)


@takes_settings("data.path", "pretrain")
def pretrain(config: RunConfig) -> None:
    """Stage 1: train the base detector, a plain ultralytics run."""
    from mocha_pipe.pipeline.stages import pretrain_base

    done = pretrain_base(config)
    print_values(f"base detector {done.folder}", {**done.outputs, "already_complete": done.skipped})


@takes_settings(
    "data.path", "data.url", "data.val", "cache.folder", "cache.url", "distill",
    changes={"reference": recipes.reference},
)  # fmt: skip
def distill(config: RunConfig) -> None:
    """Stage 2: train the student on the cached targets beside its own task."""
    from mocha_pipe.pipeline.stages import distill_student
    from mocha_pipe.student.fewshot.strangers import DEFAULT_RATE, load_strangers, promise

    done = distill_student(config)
    rate = {"false_accept_rate": promise(len(load_strangers(done.path("student"))), DEFAULT_RATE)}
    print_values(f"distilled student {done.folder}", {**done.outputs, **rate, "already_complete": done.skipped})


@takes_settings("fewshot")
def fewshot(config: RunConfig, as_json: Json = False) -> None:
    """Stage 3: evaluate the last distilled student against its base detector."""
    from mocha_pipe.pipeline.stages import evaluate_fewshot

    print_report(evaluate_fewshot(config), as_json=as_json)


@takes_settings("cache.folder")
def doctor(config: RunConfig, as_json: Json = False) -> None:
    """Check this machine; exit code 1 if something must be mended."""
    from mocha_pipe.pipeline.doctor import examine
    from mocha_pipe.pipeline.run.datasets import named

    checks = examine(config.root, named(config.cache.folder))
    print_either([asdict(check) for check in checks], doctor_table(checks), as_json)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)
