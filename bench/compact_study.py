"""What a student loses that learns from a lossy archive of its cache. `python -m bench.compact_study`.

ROOT/compact/archive             the cache of ROOT, compacted with --lossy
ROOT/compact/cache               what `cache pull` brings back of it
ROOT/compact/seed-<n>            a distillation on those targets, and its few-shot report
ROOT/distill, ROOT/default/...   the same distillations on the exact targets, as the demo and the study make them
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bench.figures import Figure, exit_code, keep, show
from bench.study import interval_words, run_figures
from mocha_pipe.pipeline.distillation import DistillInputs
from mocha_pipe.pipeline.evaluation.intervals import seed_mean
from mocha_pipe.pipeline.markers import is_complete
from mocha_pipe.pipeline.run.inputs import DISTILL
from mocha_pipe.pipeline.settings.recipes import demo
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_inputs
from mocha_pipe.student.fewshot.bootstrap import Interval
from mocha_pipe.teacher_cache.sharing import compact, pull
from mocha_pipe.teacher_cache.store.cache import RegionCache

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def compact_study(
    root: Annotated[Path, typer.Option(help="Folder of a demo or a study; what it lacks is made.")] = Path("work/demo"),
    out: Annotated[Path, typer.Option(help="File of the figures.")] = Path("work/study.json"),
    seeds: Annotated[str, typer.Option(help="Training seeds, by commas.")] = "0,1,2",
) -> None:
    """Train what is missing, two students for each seed; exit code 1 when the gain changes by more than chance."""
    figures = measure(demo(root).resolved(), [int(seed) for seed in seeds.split(",")])
    keep(out, figures)
    show(figures)
    sys.exit(exit_code(figures))


def measure(config: RunConfig, seeds: Sequence[int]) -> dict[str, Figure]:
    """The change of the gain at 1 shot, seed by seed, with its t interval."""
    build_teacher_cache(config)
    exact = distill_inputs(config)
    rounded = _rounded(config, exact)
    pairs = []
    for seed in seeds:
        gains = []
        for inputs, folder in ((exact, _exact_run(config, seed)), (rounded, config.root / "compact" / f"seed-{seed}")):
            typer.echo(f"{folder} ...", err=True)
            settings = replace(config, distill=replace(config.distill, seed=seed, folder=folder))
            gains.append(run_figures(settings, inputs).gain_1shot)
        pairs.append(gains)
    change = seed_mean(np.array([lossy - own for own, lossy in pairs]))
    return {"compact_gain_change": change_figure(change, pairs)}


def change_figure(change: Interval, pairs: Sequence[Sequence[float]]) -> Figure:
    """Met where the interval reaches 0.

    Args:
        change: over seeds.
        pairs: gain on exact and on rounded targets, by seed.
    """
    width = change.high - change.mean
    listed = ", ".join(f"{lossy:.1f} and {own:.1f}" for own, lossy in pairs)
    return Figure(
        value=change.mean, target=-width if np.isfinite(width) else None, better="higher",
        note=f"{interval_words(change)}gain in mAP50-95 at 1 shot of a student on targets from a lossy archive, less "
        f"that on the exact ones, by seed: {listed}",
    )  # fmt: skip


def _rounded(config: RunConfig, exact: DistillInputs) -> DistillInputs:
    """The inputs with targets that went through a lossy archive."""
    folder = config.root / "compact"
    compact(exact.cache.path, str(folder / "archive"), lossy=True)
    pull(str(folder / "archive"), folder / "cache")
    cache = RegionCache.open(folder / "cache", expect_table=exact.table)
    return replace(exact, cache=cache, targets=cache.targets())


def _exact_run(config: RunConfig, seed: int) -> Path:
    """The demo's own student serves as that of its seed."""
    own = config.root / "distill"
    if seed == config.distill.seed and is_complete(own, stage=DISTILL):
        return own
    return config.root / "default" / f"seed-{seed}"


if __name__ == "__main__":
    app()
