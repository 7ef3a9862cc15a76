"""How far the demo's figures reach, with the demo's student and no training. `python -m bench.casts`.

Fresh casts: the benchmark of the miniature from other seeds, so other objects in other scenes. Their spread is what a
user's own objects would meet; that over the episodes of one cast is several times smaller.

Shifts: the same casts in worlds that differ from that of training, one thing at a time.

CASTS/<shift>-<seed>            a personal benchmark
CASTS/<shift>-<seed>/fewshot    its few-shot report
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.figures import Figure, exit_code, keep, show
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.miniature.objects import Shift
from mocha_pipe.data.miniature.world import make_cast
from mocha_pipe.pipeline.evaluation.coarse import with_coarse_classes
from mocha_pipe.pipeline.evaluation.fewshot import drawn_episodes
from mocha_pipe.pipeline.evaluation.intervals import seed_mean
from mocha_pipe.pipeline.evaluation.methods import pool_pass, with_learner
from mocha_pipe.pipeline.markers import read_completion, read_json
from mocha_pipe.pipeline.report.tables import shots_in_words
from mocha_pipe.pipeline.run.datasets import named
from mocha_pipe.pipeline.run.inputs import DISTILL, DISTILL_COMMAND, last_distillation
from mocha_pipe.pipeline.settings.recipes import demo
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import evaluate_fewshot
from mocha_pipe.student.fewshot.episodes import ask, source_regions
from mocha_pipe.student.fewshot.metrics import recognition_accuracy
from mocha_pipe.student.network.student_files import load_student

SEEDS = (1, 2, 3, 4, 5)
"""Of the casts; the demo's own is 0."""
SHIFTS: Mapping[Shift, str] = {
    "colours": "eight colours never seen",
    "patterns": "five patterns never seen",
    "small": "objects of half the size",
}
_UPSCALED = 3
"""How many times larger an object is asked about than it was learnt."""
_GAIN_TARGETS = {"mean": 45.0, "low": 40.0}

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def casts(
    root: Annotated[Path, typer.Option(help="Folder of a demo that has run.")] = Path("work/demo"),
    out: Annotated[Path, typer.Option(help="File of the figures.")] = Path("work/study.json"),
    seeds: Annotated[str, typer.Option(help="Seeds of the casts, by commas.")] = ",".join(map(str, SEEDS)),
    shifts: Annotated[bool, typer.Option(help="Whether the shifted worlds are measured too.")] = True,
) -> None:
    """Evaluate a demo's student on fresh casts and in shifted worlds; exit code 1 when a figure misses its target."""
    config, chosen = demo(root).resolved(), [int(seed) for seed in seeds.split(",")]
    run = last_distillation(root)
    figures = cast_figures(config, run, chosen)
    keep(out, figures)
    if shifts:
        figures |= shift_figures(config, run, chosen)
        keep(out, figures)
    show(figures)
    sys.exit(exit_code(figures))


def cast_figures(config: RunConfig, run: Path, seeds: Sequence[int]) -> dict[str, Figure]:
    """Gain in mAP50-95 at 1 shot over casts, mean and lower end of its t interval; and all figures for the record.

    Args:
        config: resolved; how to evaluate.
        run: folder of the distillation.
        seeds: of the casts.
    """
    found = [_results(config, run, "none", seed) for seed in seeds]
    gain = seed_mean(np.array([_gain(results[0]) for results in found]))
    note = f"gain in mAP50-95 at 1 shot over {len(seeds)} fresh casts of objects"
    values = {"mean": gain.mean, **({"low": gain.low} if math.isfinite(gain.low) else {})}
    named_ends = {"mean": note, "low": f"lower end of its 95 % interval, {note}"}
    return {
        **{
            f"gain_casts_{end}": Figure(value=value, target=_GAIN_TARGETS[end], better="higher", note=named_ends[end])
            for end, value in values.items()
        },
        **_by_shots("casts", found, "fresh casts"),
    }


def shift_figures(config: RunConfig, run: Path, seeds: Sequence[int]) -> dict[str, Figure]:
    """The figures of every shifted world, means over casts with their t intervals. Arguments as in `cast_figures`."""
    figures: dict[str, Figure] = {}
    for shift, what in SHIFTS.items():
        found = [_results(config, run, shift, seed) for seed in seeds]
        figures |= _by_shots(f"shift_{shift}", found, what)
    for shots in config.fewshot.shots:
        values = [upscaled_accuracy(config, run, _world(config, "none", seed), shots) for seed in seeds]
        what = f"true boxes, learnt as they are and asked about {_UPSCALED} times as large, {shots_in_words(shots)}"
        figures[f"shift_upscaled_region_accuracy_{shots}shot"] = _over_casts(values, what)
    return figures


def upscaled_accuracy(config: RunConfig, run: Path, world: Path, shots: int) -> float:
    """Share of objects named right from their true boxes, learnt at the student's image size, asked about at a larger.

    Args:
        config: resolved; how to evaluate.
        run: folder of the distillation.
        world: folder of a personal benchmark.
        shots: images per object.
    """
    folder = read_completion(run, stage=DISTILL, command=DISTILL_COMMAND).path("student")
    settings, student = with_learner(config.fewshot, folder), load_student(folder)
    benchmark = with_coarse_classes(open_benchmark(world), student.class_names, "student", "name a demo's --root")
    larger = replace(student, image_size=_UPSCALED * student.image_size)
    learnt, asked = (pool_pass(each, benchmark.source, settings).region_embedding for each in (student, larger))
    regions, shares = source_regions(benchmark.source), []
    for episode in drawn_episodes(benchmark, settings, shots):
        question = ask(benchmark, regions, episode)
        fitted = question.taught(learnt, named(settings.learner))
        names, _ = fitted.predict(asked[question.asked], question.asked_coarse)
        shares.append(recognition_accuracy(question.truth, names))
    return float(np.mean(shares))


def _world(config: RunConfig, shift: Shift, seed: int) -> Path:
    """Folder of a personal benchmark, written where it is missing."""
    folder = config.root / "casts" / f"{shift}-{seed}"
    if not (folder / "data.yaml").is_file():
        make_cast(folder, config.miniature.size, seed=seed, shift=shift)
    return folder


def _results(config: RunConfig, run: Path, shift: Shift, seed: int) -> list[dict[str, Any]]:
    """`results` of a cast's report, fewest shots first. What is complete on disk is not evaluated again."""
    typer.echo(f"{shift}, cast {seed} ...", err=True)
    world = _world(config, shift, seed)
    fewshot = replace(config.fewshot, run=run, benchmark=world, folder=world / "fewshot", teacher=False)
    done = evaluate_fewshot(replace(config, fewshot=fewshot))
    results: list[dict[str, Any]] = read_json(done.folder / done.outputs["report"])["results"]
    return sorted(results, key=lambda result: int(result["shots"]))


def _by_shots(name: str, found: Sequence[Sequence[Mapping[str, Any]]], what: str) -> dict[str, Figure]:
    """Accuracy, the same from true boxes, and gain over casts, for each number of shots."""
    figures: dict[str, Figure] = {}
    for results in zip(*found, strict=True):
        shots = results[0]["shots"]
        for metric in ("accuracy", "region_accuracy"):
            values = [result["methods"]["mocha"][metric]["mean"] for result in results]
            figures[f"{name}_{metric}_{shots}shot"] = _over_casts(values, f"{what}, {shots_in_words(shots)}")
        figures[f"{name}_gain_{shots}shot"] = _over_casts(
            [_gain(result) for result in results], f"gain in mAP50-95, {what}, {shots_in_words(shots)}"
        )
    return figures


def _gain(result: Mapping[str, Any]) -> float:
    return float(result["gain"]["map50_95"]["mean"])


def _over_casts(values: Sequence[float], what: str) -> Figure:
    mean = seed_mean(np.array(values))
    half = "" if math.isinf(mean.high) else f"± {mean.high - mean.mean:.1f}; "
    return Figure(value=mean.mean, better="higher", note=f"{half}{what}")


if __name__ == "__main__":
    app()
