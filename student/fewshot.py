"""Few-shot evaluation: fit on an episode's support, name the detections in its query scenes, score the names.

The forward passes are behind us (`PoolPass`); an episode costs milliseconds, whatever the detector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.benchmark import PersonalBenchmark
from data.episodes import Episode
from data.types import DetectionSource
from student.metrics import NamedBoxes, NamedDetections, personal_map, recognition_accuracy
from student.pool import PoolPass
from student.prototypes import UNKNOWN, make_learner


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeScores:
    """Figures of one method over E episodes, in their order; 0..100."""

    map50_95: NDArray[np.float64]  # (E,)
    map50: NDArray[np.float64]  # (E,)
    accuracy: NDArray[np.float64]  # (E,)


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
        student.prototypes.PrototypeError: if there is no such learner.
    """
    regions = source_regions(benchmark.source)
    scores: dict[str, list[tuple[float, float, float]]] = {method: [] for method in passes}
    for episode in tqdm(episodes, desc="few-shot episodes", unit="episode", disable=not progress):
        truth = query_truth(regions, episode)
        for method, pool_pass in passes.items():
            named = name_detections(benchmark, episode, pool_pass, learner=learner)
            precision = personal_map(truth, named)
            scores[method].append((precision.map50_95, precision.map50, recognition_accuracy(truth, named)))
    return {method: _columns(rows) for method, rows in scores.items()}


def name_detections(
    benchmark: PersonalBenchmark, episode: Episode, pool_pass: PoolPass, *, learner: str = "conditional"
) -> NamedDetections:
    """Fit a learner on the support of an episode and name what the detector found in its query scenes.

    Unknown detections are left out; a score is the detector's confidence times the learner's.

    Raises:
        student.prototypes.PrototypeError: if there is no such learner.
    """
    support = episode.support.ravel()
    personal = source_regions(benchmark.source).personal[support]
    fitted = make_learner(learner).fit(pool_pass.region_embedding[support], benchmark.coarse_of[personal], personal)
    asked = np.flatnonzero(np.isin(pool_pass.detection_image, episode.query))
    names, certainty = fitted.predict(pool_pass.detection_embedding[asked], pool_pass.detection_coarse[asked])
    kept = names != UNKNOWN
    rows = asked[kept]
    return NamedDetections(
        image=pool_pass.detection_image[rows],
        xyxy=pool_pass.detection_xyxy[rows],
        personal=names[kept],
        score=pool_pass.detection_score[rows] * certainty[kept],
    )


def query_truth(regions: NamedBoxes, episode: Episode) -> NamedBoxes:
    """Ground truth of the query scenes among all regions of the benchmark."""
    rows = np.flatnonzero(np.isin(regions.image, episode.query))
    return NamedBoxes(image=regions.image[rows], xyxy=regions.xyxy[rows], personal=regions.personal[rows])


def source_regions(source: DetectionSource) -> NamedBoxes:
    """All boxes of a source in order: row r here is region row r of episodes and pool passes."""
    records = source.records
    return NamedBoxes(
        image=np.repeat(np.arange(len(records)), [len(record.class_ids) for record in records]),
        xyxy=np.concatenate([record.xyxy for record in records]),
        personal=np.concatenate([record.class_ids for record in records]),
    )


def _columns(rows: Sequence[tuple[float, float, float]]) -> EpisodeScores:
    figures = np.array(rows, np.float64).reshape(-1, 3)
    return EpisodeScores(map50_95=figures[:, 0], map50=figures[:, 1], accuracy=figures[:, 2])
