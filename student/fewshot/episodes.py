"""Few-shot evaluation: fit on an episode's support, name the detections in its query scenes, score the names.

The detector has passed every image once (`PoolPass`), so an episode costs milliseconds. Every detection is scored, as
COCO does: where one thing is boxed under two classes and both boxes get its name, the second is a false positive,
although a user sees one (personal/naming.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.benchmarks.episodes import Episode
from mocha_pipe.data.types import DetectionSource, PersonalBenchmark
from mocha_pipe.student.fewshot.learner import UNKNOWN, PrototypeLearner
from mocha_pipe.student.fewshot.metrics import (
    NamedBoxes,
    NamedDetections,
    confusion,
    image_accuracy,
    personal_map,
    recognised_as,
    recognition_accuracy,
)
from mocha_pipe.student.fewshot.prototypes import make_learner
from mocha_pipe.student.network.pool_pass import PoolPass


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeScores:
    """Figures of one method over E episodes, in their order; 0..100. P personal objects."""

    map50_95: NDArray[np.float64]  # (E,)
    map50: NDArray[np.float64]  # (E,)
    accuracy: NDArray[np.float64]  # (E,)
    """Share of the query scenes' objects whose most confident detection bears the right name; a missed one is wrong."""
    image_accuracy: NDArray[np.float64]  # (E,)
    """Share of query images in which some detection bears the name of an object that is there (the reference's)."""
    region_accuracy: NDArray[np.float64]  # (E,)
    """Share of objects named right from their true box and class: the embedding alone, whatever the detector finds."""
    confusion: NDArray[np.int64]  # (E, P, P + 2)
    """`metrics.confusion` of the names behind `accuracy`; `confusion_by_coarse` reads it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """What one episode teaches and asks, the same for every method. N support regions, T asked ones.

    Regions are rows of `source_regions`.
    """

    objects: int
    """Personal objects of the benchmark."""
    query: NDArray[np.int64]  # (Q,)
    """Indexes of the query images."""
    support: NDArray[np.int64]  # (N,)
    support_coarse: NDArray[np.int64]  # (N,)
    support_personal: NDArray[np.int64]  # (N,)
    asked: NDArray[np.int64]  # (T,)
    """All regions of the query images."""
    asked_coarse: NDArray[np.int64]  # (T,)
    truth: NamedBoxes
    """The asked regions, as ground truth."""

    def taught(self, embeddings_RD: NDArray[np.float32], learner: str) -> PrototypeLearner:
        """A learner that has seen the support, from embeddings of all regions.

        Raises:
            PrototypeError: if there is no such learner.
        """
        return make_learner(learner).learn(embeddings_RD[self.support], self.support_coarse, self.support_personal)

    def without(self, personal: NDArray[np.integer]) -> Self:
        """The same question where nobody teaches these objects."""
        kept = ~np.isin(self.support_personal, personal)
        names = ("support", "support_coarse", "support_personal")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


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
        PrototypeError: if there is no such learner.
    """
    regions = source_regions(benchmark.source)
    scores: dict[str, list[dict[str, object]]] = {method: [] for method in passes}
    for episode in tqdm(episodes, desc="few-shot episodes", unit="episode", disable=not progress):
        question = ask(benchmark, regions, episode)
        for method, pool_pass in passes.items():
            scores[method].append(_figures(question, pool_pass, learner))
    return {
        method: EpisodeScores(
            **{field.name: np.array([row[field.name] for row in rows]) for field in fields(EpisodeScores)}
        )
        for method, rows in scores.items()
    }


def _figures(question: Question, pool_pass: PoolPass, learner: str) -> dict[str, object]:
    """The figures of one method in one episode, by the names of `EpisodeScores`."""
    truth = question.truth
    fitted = question.taught(pool_pass.region_embedding, learner)
    detections = _named(fitted, question, pool_pass)
    names = recognised_as(truth, detections)
    of_regions, _ = fitted.predict(pool_pass.region_embedding[question.asked], question.asked_coarse)
    precision = personal_map(truth, detections)
    return {
        "map50_95": precision.map50_95,
        "map50": precision.map50,
        "accuracy": recognition_accuracy(truth, names),
        "image_accuracy": image_accuracy(truth, detections),
        "region_accuracy": recognition_accuracy(truth, of_regions),
        "confusion": confusion(truth, names, question.objects),
    }


def name_detections(
    benchmark: PersonalBenchmark,
    episode: Episode,
    pool_pass: PoolPass,
    *,
    learner: str = "conditional",
    by_confidence: bool = False,
) -> NamedDetections:
    """Fit a learner on the support of an episode and name what the detector found in its query scenes.

    Unknown detections are left out; a score is the detector's confidence times the learner's, or the former alone.

    Raises:
        PrototypeError: if there is no such learner.
    """
    question = ask(benchmark, source_regions(benchmark.source), episode)
    named = _named(question.taught(pool_pass.region_embedding, learner), question, pool_pass)
    if by_confidence:
        named = replace(named, score=pool_pass.detection_score[_asked(question, pool_pass)])
    return named[named.personal != UNKNOWN]


def ask(benchmark: PersonalBenchmark, regions: NamedBoxes, episode: Episode) -> Question:
    """What an episode teaches and asks; `regions` are all of the benchmark, by `source_regions`."""
    support = episode.support.ravel()
    asked = np.flatnonzero(np.isin(regions.image, episode.query))
    truth = regions[asked]
    personal = regions.personal[support]
    return Question(
        objects=len(benchmark.coarse_of), query=episode.query, support=support,
        support_coarse=benchmark.coarse_of[personal], support_personal=personal,
        asked=asked, asked_coarse=benchmark.coarse_of[truth.personal], truth=truth,
    )  # fmt: skip


def source_regions(source: DetectionSource) -> NamedBoxes:
    """All boxes of a source in order: row r here is region row r of episodes and pool passes."""
    records = source.records
    return NamedBoxes(
        image=np.repeat(np.arange(len(records)), [len(record.class_ids) for record in records]),
        xyxy=np.concatenate([record.xyxy for record in records]),
        personal=np.concatenate([record.class_ids for record in records]),
    )


def _named(fitted: PrototypeLearner, question: Question, pool_pass: PoolPass) -> NamedDetections:
    """All detections of the query scenes, unknown ones with a score of 0."""
    rows = _asked(question, pool_pass)
    names, certainty = fitted.predict(pool_pass.detection_embedding[rows], pool_pass.detection_coarse[rows])
    return NamedDetections(
        image=pool_pass.detection_image[rows],
        xyxy=pool_pass.detection_xyxy[rows],
        personal=names,
        score=pool_pass.detection_score[rows] * certainty,
    )


def _asked(question: Question, pool_pass: PoolPass) -> NDArray[np.intp]:
    """Rows of the detections in the query scenes."""
    return np.flatnonzero(np.isin(pool_pass.detection_image, question.query))
