"""The `results` of report.json: figures of every method for one number of shots, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.benchmarks.episodes import Episode
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.report.tables import METRIC_TITLES
from mocha_pipe.pipeline.run.datasets import named
from mocha_pipe.pipeline.settings.sections import FewshotConfig
from mocha_pipe.student.fewshot import openset
from mocha_pipe.student.fewshot.bootstrap import mean_interval
from mocha_pipe.student.fewshot.confusion import confusion_by_coarse
from mocha_pipe.student.fewshot.episodes import evaluate_episodes
from mocha_pipe.student.fewshot.reference_metrics import reference_scores
from mocha_pipe.student.fewshot.strangers import accept_above, shortfall
from mocha_pipe.student.network.pool_pass import PoolPass

METRICS = tuple(METRIC_TITLES)
GAINS = ("map50_95", "accuracy", "region_accuracy")
STUDENT, BASELINE = "mocha", "yolo"
"""The gain is the first method's over the second."""


def shot_result(
    benchmark: PersonalBenchmark,
    settings: FewshotConfig,
    shots: int,
    episodes: Sequence[Episode],
    passes: Mapping[str, PoolPass],
) -> dict[str, Any]:
    """Figures of the methods, what they take for what, and the student's gain over its base detector; 0..100.

    On a published benchmark also `reference`, the figures as the paper's authors compute them.
    """
    scores = evaluate_episodes(benchmark, episodes, passes, learner=named(settings.learner), progress=True)
    ours, baseline = scores[STUDENT], scores[BASELINE]
    result: dict[str, Any] = {
        "benchmark": benchmark.name,
        "shots": shots,
        "episodes": len(episodes),
        "seed": settings.seed,
        "methods": {
            method: {name: _figure(getattr(found, name), settings.seed) for name in METRICS}
            for method, found in scores.items()
        },
        "gain": {name: _figure(getattr(ours, name) - getattr(baseline, name), settings.seed) for name in GAINS},
        "confusion": {
            method: confusion_figures(benchmark, found.confusion, seed=settings.seed)
            for method, found in scores.items()
        },
    }
    if settings.benchmark_data:
        theirs = reference_scores(benchmark, episodes, passes, learner=named(settings.learner), progress=True)
        result["reference"] = {
            method: {name: _figure(values_E, settings.seed) for name, values_E in found.items()}
            for method, found in theirs.items()
        }
    return result


def confusion_figures(
    benchmark: PersonalBenchmark, counts_EPX: NDArray[np.int64], *, seed: int
) -> dict[str, dict[str, Any]]:
    """By name of the coarse class: counts over all episodes, and the share of each outcome with its interval, 0..100.

    Rows and columns are the `objects` of the class. A class that no episode asks about is left out.

    Args:
        benchmark: personal scenes.
        counts_EPX: `EpisodeScores.confusion`.
        seed: of the bootstrap.
    """
    found = {}
    for coarse, classes in confusion_by_coarse(counts_EPX, benchmark.coarse_of).items():
        shares = classes.shares()
        if not len(shares["right"]):
            continue
        found[benchmark.coarse_names[coarse]] = {
            "objects": [benchmark.source.class_names[personal] for personal in classes.objects],
            **{
                name: getattr(classes, name).sum(axis=0).tolist()
                for name in ("taken_for", "elsewhere", "unknown", "missed")
            },
            "shares": {outcome: _figure(share, seed) for outcome, share in shares.items()},
        }
    return found


def unknown_figures(
    benchmark: PersonalBenchmark,
    settings: FewshotConfig,
    episodes: Sequence[Episode],
    passes: Mapping[str, PoolPass],
    strangers_U: NDArray[np.float32] | None,
) -> tuple[dict[str, Any], list[str]]:
    """How well each method tells taught objects from held-out look-alikes; 0..1. And a note on each thing left out.

    Args:
        benchmark: personal scenes.
        settings: learner, seed, and the false-accept rate of the student's threshold.
        episodes: of one number of shots.
        passes: by method.
        strangers_U: the student's; without them nothing is said of its threshold.

    Returns:
        Nothing where no coarse class has an object to hold out and one to teach.
    """
    asked = openset.open_episodes(benchmark, episodes, passes, learner=named(settings.learner))
    if not asked[STUDENT]:
        return {}, [
            "Unknown objects are left out: none can be held out, as no episode asks about two objects of one coarse "
            "class"
        ]
    calibrated, notes = _calibrated(settings, asked[STUDENT], strangers_U)
    return {
        "episodes": len(asked[STUDENT]),
        "held_out": len(openset.hold_out(benchmark, episodes[0])),
        "methods": {method: _separated(found, settings.seed) for method, found in asked.items()},
        **calibrated,
    }, notes


def _separated(episodes: Sequence[openset.OpenEpisode], seed: int) -> dict[str, Any]:
    found = openset.separation(episodes)
    return {
        "auroc": _figure(found.auroc, seed),
        "false_accept_at_95_recall": _figure(found.false_accept, seed),
        "roc": {
            "false_accept": openset.FALSE_ACCEPT_G.round(4).tolist(),
            "recall": found.recall.mean(axis=0).round(4).tolist(),
        },
    }


def _calibrated(
    settings: FewshotConfig, episodes: Sequence[openset.OpenEpisode], strangers_U: NDArray[np.float32] | None
) -> tuple[dict[str, Any], list[str]]:
    """What the student's own threshold accepts."""
    if strangers_U is None:
        return {}, []
    rate = settings.false_accept_rate
    accepted = openset.acceptance(episodes, lambda candidates: accept_above(strangers_U, rate, candidates))
    measured = {name: _figure(getattr(accepted, name), settings.seed) for name in ("false_accept", "recall")}
    few = shortfall(len(strangers_U), rate, max(int(seen.candidates.max()) for seen in episodes))
    return {"calibrated": {"rate": rate, **measured}}, [few] if few else []


def _figure(values_E: NDArray[np.floating], seed: int) -> dict[str, Any]:
    """Mean over episodes with its interval, as reports have it."""
    return mean_interval(values_E, seed=seed).to_json()
