"""`mocha-pipe sweep`: variants x training seeds on one cache and one base detector, and what each learned.

SWEEP/<variant>/seed-<n>             a distillation like any other (stages.py): goes on, and is skipped when complete
SWEEP/<variant>/seed-<n>/evaluation  its few-shot figures, on the same episodes for every run
SWEEP/sweep.json                     figures of all runs; means and gains over the first variant, with intervals
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mocha_pipe.data.benchmarks.episodes import Episode
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.files import write_json
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.distillation import distill_from
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.evaluation.coarse import with_coarse_classes
from mocha_pipe.pipeline.evaluation.fewshot import drawn_episodes, student_digests
from mocha_pipe.pipeline.evaluation.intervals import seed_mean
from mocha_pipe.pipeline.evaluation.methods import pool_pass, with_learner
from mocha_pipe.pipeline.markers import Completion, Identity, versions
from mocha_pipe.pipeline.run.datasets import make_validation_world, named
from mocha_pipe.pipeline.run.inputs import EVALUATION, SWEEP, cache_digest, weights_digest
from mocha_pipe.pipeline.rundir import claim_folder, run_stage
from mocha_pipe.pipeline.settings.loading import is_miniature
from mocha_pipe.pipeline.settings.sections import FewshotConfig, RunConfig
from mocha_pipe.pipeline.settings.variants import Variant
from mocha_pipe.pipeline.stages import distill_inputs
from mocha_pipe.student.fewshot.episodes import evaluate_episodes
from mocha_pipe.student.network.student_files import load_student

REPORT = "sweep.json"
_QUESTION = ("shots", "episodes", "queries", "seed", "learner", "confidence")
_FLAG = "--out"

Figures = Mapping[str, float | None]
"""Of one run by name: accuracy_1shot, map50_95_1shot, ..., detection; 0..100, None where it was not measured."""


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One student, trained and measured."""

    variant: Variant
    seed: int
    folder: Path
    figures: Figures


def run_sweep(config: RunConfig, variants: Sequence[Variant], *, announce: Callable[[str], None]) -> dict[str, Any]:
    """Train and measure what is missing, seed by seed, and write sweep.json.

    Args:
        config: resolved; `[fewshot]` says how students are measured, `[sweep]` with which seeds and shots.
        variants: what to compare; the others are compared with the first.
        announce: told of each run as it begins.

    Returns:
        What sweep.json holds.

    Raises:
        ConfigError: there is nothing to measure on.
        CacheNotFoundError, CacheMismatchError, CacheIncompleteError: no cache of these very boxes.
        DatasetError: the data set lacks one of the benchmark's coarse classes.
        EpisodeError: the benchmark has too few images for so many shots.
        StageMismatchError: the folder holds something else, or a run's was made with other settings or other inputs.
    """
    settings, folder = config.sweep, named(config.sweep.folder)
    benchmark = open_benchmark(_benchmark_folder(config), progress=True)
    question = replace(config.fewshot, shots=settings.shots)
    episodes = {shots: drawn_episodes(benchmark, question, shots) for shots in question.shots}
    inputs = distill_inputs(config)
    claim_folder(folder, SWEEP, flag=_FLAG)
    benchmark = with_coarse_classes(
        benchmark, inputs.train.class_names, "the data set", "name another benchmark with --benchmark"
    )
    runs = []
    plan = [(variant, seed) for seed in settings.seeds for variant in variants]
    for number, (variant, seed) in enumerate(plan, start=1):
        announce(f"run {number} of {len(plan)}: {variant.name}, seed {seed}")
        distill = variant.distill(config.distill, sweep=folder, seed=seed)
        done = distill_from(inputs, replace(config, distill=distill), flag=_FLAG)
        figures = _evaluated(done, benchmark, question, episodes)
        runs.append(SweepRun(variant=variant, seed=seed, folder=done.folder.relative_to(folder), figures=figures))
    own = {"folder", "seed", "device", *variants[0].settings}
    shared = {name: value for name, value in asdict(config.distill).items() if name not in own}
    asked = {f"fewshot.{name}": getattr(question, name) for name in _QUESTION}
    report = {
        **summary(runs),
        "settings": {"seeds": settings.seeds, **asked, "distill": shared},
        "inputs": {
            "benchmark": benchmark.fingerprint(), "cache": cache_digest(inputs.cache), **weights_digest(inputs.model),
        },
        "versions": versions(),
    }  # fmt: skip
    write_json(folder / REPORT, report)
    return report


def summary(runs: Sequence[SweepRun]) -> dict[str, Any]:
    """Figures of all runs, and of each variant their mean and its gain over the first by seed, with t intervals.

    Args:
        runs: every variant with every seed; the first one's variant is the reference.
    """
    variants = {run.variant.name: run.variant for run in runs}
    figures = {variant: {run.seed: run.figures for run in runs if run.variant.name == variant} for variant in variants}
    reference = next(iter(variants))
    seeds, names = figures[reference], runs[0].figures

    def mean(variant: str, name: str) -> dict[str, Any] | None:
        return _mean([figures[variant][seed][name] for seed in seeds])

    def gain(variant: str, name: str) -> dict[str, Any] | None:
        pairs = [(figures[variant][seed][name], figures[reference][seed][name]) for seed in seeds]
        return _mean([None if ours is None or theirs is None else ours - theirs for ours, theirs in pairs])

    rows: dict[str, Any] = {
        variant: {
            "settings": dict(variants[variant].settings),
            "mean": {name: mean(variant, name) for name in names},
            "gain": {name: gain(variant, name) for name in names},
        }
        for variant in variants
    }
    first = next(iter(names))
    return {
        "reference": reference,
        "best": max(rows, key=lambda variant: rows[variant]["mean"][first]["mean"]),
        "variants": rows,
        "runs": [
            {"variant": run.variant.name, "seed": run.seed, "folder": str(run.folder), "figures": dict(run.figures)}
            for run in runs
        ],
    }


def _mean(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean over seeds with its interval; None where a run lacks the figure."""
    known = [value for value in values if value is not None]
    return seed_mean(np.array(known)).to_json() if len(known) == len(values) else None


def _benchmark_folder(config: RunConfig) -> Path:
    """What the user named, or the validation world, made where it is not there."""
    if config.sweep.benchmark is not None:
        return config.sweep.benchmark
    if not is_miniature(config):
        raise ConfigError(
            "a sweep on a data set of one's own needs a personal benchmark to measure on: name its folder with "
            "--benchmark, and keep the one that you report figures of for the end"
        )
    return make_validation_world(config).folder


def _evaluated(
    run: Completion, benchmark: PersonalBenchmark, question: FewshotConfig, episodes: Mapping[int, Sequence[Episode]]
) -> Figures:
    """The figures of a completed distillation; one pass over the benchmark where they are not there."""
    student = run.path("student")
    question = with_learner(question, student)
    learner = named(question.learner)

    def work() -> Mapping[str, float]:
        passes = {"student": pool_pass(load_student(student), benchmark.source, question)}
        scores = {
            shots: evaluate_episodes(benchmark, drawn, passes, learner=learner, progress=True)["student"]
            for shots, drawn in episodes.items()
        }
        return {
            f"{metric}_{shots}shot": float(getattr(found, metric).mean())
            for metric in ("accuracy", "map50_95")
            for shots, found in scores.items()
        }

    identity = Identity(
        stage=EVALUATION,
        config={name: getattr(question, name) for name in _QUESTION},
        inputs={**student_digests(student), "benchmark": benchmark.fingerprint()},
    )
    # Another question replaces the last answer, as in the few-shot stage.
    done = run_stage(run.folder / EVALUATION, identity, work, flag=_FLAG, replace=True)
    return {**done.outputs, "detection": run.outputs["map50_95"]}
