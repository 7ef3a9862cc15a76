"""The `results` of report.json: figures of every method for one number of shots, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.benchmarks.episodes import Episode
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.report.tables import METRIC_TITLES
from mocha_pipe.pipeline.settings.sections import FewshotConfig
from mocha_pipe.student.fewshot.bootstrap import mean_interval, paired_gain
from mocha_pipe.student.fewshot.confusion import confusion_by_coarse
from mocha_pipe.student.fewshot.episodes import EpisodeScores, evaluate_episodes
from mocha_pipe.student.fewshot.openset import (
    FALSE_ACCEPT_G,
    OpenEpisode,
    acceptance,
    hold_out,
    open_episodes,
    separation,
)
from mocha_pipe.student.fewshot.strangers import accept_above
from mocha_pipe.student.fewshot.unknown import CalibrationError
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
    """Figures of the methods, what they take for what, and the student's gain over its base detector; 0..100."""
    scores = evaluate_episodes(benchmark, episodes, passes, learner=settings.learner, progress=True)

    def figures(method: EpisodeScores) -> dict[str, Any]:
        return {name: mean_interval(getattr(method, name), seed=settings.seed).to_json() for name in METRICS}

    def gain(name: str) -> dict[str, Any]:
        ours, baseline = (getattr(scores[method], name) for method in (STUDENT, BASELINE))
        return paired_gain(ours, baseline, seed=settings.seed).to_json()

    return {
        "benchmark": benchmark.name,
        "shots": shots,
        "episodes": len(episodes),
        "seed": settings.seed,
        "methods": {method: figures(found) for method, found in scores.items()},
        "gain": {name: gain(name) for name in GAINS},
        "confusion": {
            method: confusion_figures(benchmark, found.confusion, seed=settings.seed)
            for method, found in scores.items()
        },
    }


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
            "shares": {outcome: mean_interval(share, seed=seed).to_json() for outcome, share in shares.items()},
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
    asked = open_episodes(benchmark, episodes, passes, learner=settings.learner)
    if not asked[STUDENT]:
        return {}, [
            "Unknown objects are left out: none can be held out, as no episode asks about two objects of one coarse "
            "class"
        ]
    calibrated, notes = _calibrated(settings, asked[STUDENT], strangers_U)
    return {
        "episodes": len(asked[STUDENT]),
        "held_out": len(hold_out(benchmark, episodes[0])),
        "methods": {method: _separated(found, settings.seed) for method, found in asked.items()},
        **calibrated,
    }, notes


def _separated(episodes: Sequence[OpenEpisode], seed: int) -> dict[str, Any]:
    found = separation(episodes)
    return {
        "auroc": mean_interval(found.auroc, seed=seed).to_json(),
        "false_accept_at_95_recall": mean_interval(found.false_accept, seed=seed).to_json(),
        "roc": {
            "false_accept": FALSE_ACCEPT_G.round(4).tolist(),
            "recall": found.recall.mean(axis=0).round(4).tolist(),
        },
    }


def _calibrated(
    settings: FewshotConfig, episodes: Sequence[OpenEpisode], strangers_U: NDArray[np.float32] | None
) -> tuple[dict[str, Any], list[str]]:
    """What the student's own threshold accepts."""
    if strangers_U is None:
        return {}, []
    rate = settings.false_accept_rate
    try:
        accepted = acceptance(episodes, lambda candidates: accept_above(strangers_U, rate, candidates))
    except CalibrationError as error:
        return {}, [f"What the student's threshold accepts is left out: {error}"]
    measured = {name: getattr(accepted, name) for name in ("false_accept", "recall")}
    return {
        "calibrated": {
            "rate": rate,
            **{name: mean_interval(shares, seed=settings.seed).to_json() for name, shares in measured.items()},
        }
    }, []
