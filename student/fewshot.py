"""Few-shot evaluation: fit on an episode's support, name the detections in its query scenes, score the names.

The forward passes are behind us (`PoolPass`); an episode costs milliseconds, whatever the detector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.episodes import Episode
from data.types import DetectionSource, PersonalBenchmark
from student.learner import UNKNOWN, PrototypeLearner
from student.metrics import (
    NamedBoxes,
    NamedDetections,
    confusion,
    image_accuracy,
    personal_map,
    recognised_as,
    recognition_accuracy,
)
from student.pool import PoolPass
from student.prototypes import make_learner


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeScores:
    """Figures of one method over E episodes, in their order; 0..100. P personal objects."""

    map50_95: NDArray[np.float64]  # (E,)
    map50: NDArray[np.float64]  # (E,)
    accuracy: NDArray[np.float64]  # (E,)
    """Objects of the query scenes whose most confident detection bears the right name; a missed one is wrong."""
    image_accuracy: NDArray[np.float64]  # (E,)
    """Query images in which some detection bears the name of an object that is there, as the reference counts."""
    region_accuracy: NDArray[np.float64]  # (E,)
    """Objects named right from their true box and coarse class: the embedding alone, whatever the detector finds."""
    confusion: NDArray[np.int64]  # (E, P, P + 2)
    """`student.metrics.confusion` of the names behind `accuracy`; `confusion_by_coarse` reads it."""


def evaluate_episodes(
    benchmark: PersonalBenchmark,
    episodes: Sequence[Episode],
    passes: Mapping[str, PoolPass],
    *,
    learner: str = "conditional",
    progress: bool = False,
) -> dict[str, EpisodeScores]:
    """Score every method on every episode.

    Args:
        benchmark: personal scenes; every pass was made over `benchmark.source`.
        episodes: support and query of each.
        passes: the pool pass of each method, by its name.
        learner: which prototype learner, by name.
        progress: show a bar.

    Raises:
        student.learner.PrototypeError: if there is no such learner.
    """
    regions = source_regions(benchmark.source)
    scores: dict[str, list[dict[str, object]]] = {method: [] for method in passes}
    for episode in tqdm(episodes, desc="few-shot episodes", unit="episode", disable=not progress):
        for method, pool_pass in passes.items():
            scores[method].append(_figures(benchmark, regions, episode, pool_pass, learner))
    return {
        method: EpisodeScores(
            **{field.name: np.array([row[field.name] for row in rows]) for field in fields(EpisodeScores)}
        )
        for method, rows in scores.items()
    }


def _figures(
    benchmark: PersonalBenchmark, regions: NamedBoxes, episode: Episode, pool_pass: PoolPass, learner: str
) -> dict[str, object]:
    """The figures of one method in one episode, by the names of `EpisodeScores`."""
    truth = query_truth(regions, episode)
    fitted = _taught(benchmark, regions, episode, pool_pass, learner)
    detections = _named(fitted, episode, pool_pass)
    names = recognised_as(truth, detections)
    asked = _query_rows(regions, episode)
    coarse = benchmark.coarse_of[truth.personal]
    of_regions, _ = fitted.predict(pool_pass.region_embedding[asked], coarse)
    precision = personal_map(truth, detections)
    return {
        "map50_95": precision.map50_95,
        "map50": precision.map50,
        "accuracy": recognition_accuracy(truth, names),
        "image_accuracy": image_accuracy(truth, detections),
        "region_accuracy": recognition_accuracy(truth, of_regions),
        "confusion": confusion(truth, names, len(benchmark.coarse_of)),
    }


def name_detections(
    benchmark: PersonalBenchmark, episode: Episode, pool_pass: PoolPass, *, learner: str = "conditional"
) -> NamedDetections:
    """Fit a learner on the support of an episode and name what the detector found in its query scenes.

    Unknown detections are left out; a score is the detector's confidence times the learner's.

    Raises:
        student.learner.PrototypeError: if there is no such learner.
    """
    fitted = _taught(benchmark, source_regions(benchmark.source), episode, pool_pass, learner)
    named = _named(fitted, episode, pool_pass)
    known = named.personal != UNKNOWN
    return NamedDetections(**{field.name: getattr(named, field.name)[known] for field in fields(named)})


def query_truth(regions: NamedBoxes, episode: Episode) -> NamedBoxes:
    """Ground truth of the query scenes among all regions of the benchmark."""
    rows = _query_rows(regions, episode)
    return NamedBoxes(image=regions.image[rows], xyxy=regions.xyxy[rows], personal=regions.personal[rows])


def source_regions(source: DetectionSource) -> NamedBoxes:
    """All boxes of a source in order: row r here is region row r of episodes and pool passes."""
    records = source.records
    return NamedBoxes(
        image=np.repeat(np.arange(len(records)), [len(record.class_ids) for record in records]),
        xyxy=np.concatenate([record.xyxy for record in records]),
        personal=np.concatenate([record.class_ids for record in records]),
    )


def _taught(
    benchmark: PersonalBenchmark, regions: NamedBoxes, episode: Episode, pool_pass: PoolPass, learner: str
) -> PrototypeLearner:
    support = episode.support.ravel()
    personal = regions.personal[support]
    return make_learner(learner).fit(pool_pass.region_embedding[support], benchmark.coarse_of[personal], personal)


def _named(fitted: PrototypeLearner, episode: Episode, pool_pass: PoolPass) -> NamedDetections:
    """All detections of the query scenes, unknown ones with a score of 0."""
    rows = np.flatnonzero(np.isin(pool_pass.detection_image, episode.query))
    names, certainty = fitted.predict(pool_pass.detection_embedding[rows], pool_pass.detection_coarse[rows])
    return NamedDetections(
        image=pool_pass.detection_image[rows],
        xyxy=pool_pass.detection_xyxy[rows],
        personal=names,
        score=pool_pass.detection_score[rows] * certainty,
    )


def _query_rows(regions: NamedBoxes, episode: Episode) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(regions.image, episode.query))
