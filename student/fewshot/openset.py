"""Does a learner know what it was not taught? Some objects of every episode are held out, and asked about all the same.

The held-out objects are look-alikes: each shares its coarse class with objects that are taught. A region whose coarse
class has no prototypes is unknown to `conditional` anyway, so no such region is asked about, whatever the learner. One
threshold serves all classes, and each class counts alike among taught and among held-out regions: were more objects
held out of one class than of another, closeness would tell taught from held-out by the class alone.

Legend: E episodes, M regions asked about in one, G points of a grid. Rates and recall are 0..1.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.benchmarks.episodes import Episode
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.student.fewshot.episodes import Question, ask, source_regions
from mocha_pipe.student.fewshot.roc import Scores, auroc, false_accept_at_recall, roc_curve
from mocha_pipe.student.network.pool_pass import PoolPass

RECALL = 0.95
"""Share of the taught objects' regions that `Separation.false_accept` accepts."""

FALSE_ACCEPT_G = np.linspace(0, 1, 101)
"""False-accept rates at which `Separation.recall` is given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenEpisode:
    """What a learner that was taught some objects makes of true boxes under their true coarse class."""

    closeness: NDArray[np.float64]  # (M,)
    """`PrototypeLearner.closeness` to the nearest prototype."""
    candidates: NDArray[np.int64]  # (M,)
    """How many prototypes the region is compared with, one or more."""
    taught: NDArray[np.bool_]  # (M,)
    """Whether the region shows an object that was taught; every coarse class has some that do and some that do not."""
    weight: NDArray[np.float64]  # (M,)
    """What the region counts: the taught ones of a class sum to 1, and so do the others."""

    def scores(self, *, taught: bool) -> Scores:
        """Closeness of the regions whose objects were taught, or of the others."""
        rows = self.taught == taught
        return Scores(self.closeness[rows], self.weight[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class Separation:
    """How well closeness separates taught objects from held-out ones, whatever the threshold."""

    auroc: NDArray[np.float64]  # (E,)
    false_accept: NDArray[np.float64]  # (E,)
    """Share of the held-out objects' regions that pass the threshold which `RECALL` of the taught ones pass."""
    recall: NDArray[np.float64]  # (E, G)
    """The highest recall of the thresholds with a false-accept rate of at most `FALSE_ACCEPT_G`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Acceptance:
    """What given thresholds accept."""

    false_accept: NDArray[np.float64]  # (E,)
    """Share of the held-out objects' regions."""
    recall: NDArray[np.float64]  # (E,)
    """Share of the taught objects' regions, whether or not they get the right name."""


def hold_out(benchmark: PersonalBenchmark, episode: Episode) -> NDArray[np.int64]:
    """Personal ids, ascending, of the objects that nobody is to teach in an episode.

    A third of each coarse class's objects rounded down, but one at least, of the classes with two or more. The draw
    depends on the seed and index of the episode and on the names of the objects, so that all numbers of shots share it.
    """
    names = benchmark.source.class_names

    def rank(personal: int) -> bytes:
        words = (episode.seed, episode.index, "held out", names[personal])
        return hashlib.blake2b("\0".join(map(str, words)).encode(), digest_size=16).digest()

    held_out: list[int] = []
    for coarse in np.unique(benchmark.coarse_of):
        objects = np.flatnonzero(benchmark.coarse_of == coarse).tolist()
        if len(objects) > 1:
            held_out += sorted(objects, key=rank)[: max(1, len(objects) // 3)]
    return np.array(sorted(held_out), np.int64)


def open_episodes(
    benchmark: PersonalBenchmark,
    episodes: Sequence[Episode],
    passes: Mapping[str, PoolPass],
    *,
    learner: str = "conditional",
) -> dict[str, list[OpenEpisode]]:
    """How close taught and held-out objects come to what was taught, in coarse classes that the query shows both of.

    Arguments and errors as in `evaluate_episodes`; an episode without such a class is left out.
    """
    regions = source_regions(benchmark.source)
    found: dict[str, list[OpenEpisode]] = {method: [] for method in passes}
    for episode in episodes:
        held_out = hold_out(benchmark, episode)
        question = ask(benchmark, regions, episode).without(held_out)
        taught = ~np.isin(question.truth.personal, held_out)
        mixed = np.intersect1d(question.asked_coarse[taught], question.asked_coarse[~taught])
        shown = np.isin(question.asked_coarse, mixed)
        if shown.any():
            for method, pool_pass in passes.items():
                found[method].append(_seen(question, shown, taught[shown], pool_pass, learner))
    return found


def _seen(
    question: Question, shown: NDArray[np.bool_], taught: NDArray[np.bool_], pool_pass: PoolPass, learner: str
) -> OpenEpisode:
    fitted = question.taught(pool_pass.region_embedding, learner)
    embeddings, coarse = pool_pass.region_embedding[question.asked[shown]], question.asked_coarse[shown]
    rows, _ = fitted.nearest(embeddings, coarse)
    _, group, counts = np.unique(2 * coarse + taught, return_inverse=True, return_counts=True)
    return OpenEpisode(
        closeness=fitted.closeness(embeddings, rows),
        candidates=fitted.candidates(coarse),
        taught=taught,
        weight=1 / counts[group],
    )


def separation(episodes: Sequence[OpenEpisode]) -> Separation:
    """AUROC and curve of every episode, in their order; one episode or more."""
    sides = [(seen.scores(taught=True), seen.scores(taught=False)) for seen in episodes]
    return Separation(
        auroc=np.array([auroc(*each) for each in sides]),
        false_accept=np.array([false_accept_at_recall(*each, RECALL) for each in sides]),
        recall=np.array([_recall(*each) for each in sides]),
    )


def _recall(taught: Scores, held_out: Scores) -> NDArray[np.float64]:  # (G,)
    """Steps, not slopes: between two points of the curve no threshold does better than the left one."""
    false_accept, recall = roc_curve(taught, held_out)
    last = np.searchsorted(false_accept, FALSE_ACCEPT_G + 1e-9, side="right") - 1  # 1 - 0.7 is above 0.3
    return np.asarray(recall[last])


def acceptance(episodes: Sequence[OpenEpisode], threshold: Callable[[int], float]) -> Acceptance:
    """What is accepted above a threshold that depends on the number of candidates.

    Args:
        episodes: one or more.
        threshold: closeness to exceed, where a region is compared with so many prototypes.
    """
    numbers = np.unique(np.concatenate([seen.candidates for seen in episodes])).tolist()
    thresholds = {number: threshold(number) for number in numbers}

    def share(seen: OpenEpisode, kind: NDArray[np.bool_]) -> float:
        least = [thresholds[number] for number in seen.candidates[kind].tolist()]
        return float(np.average(seen.closeness[kind] > least, weights=seen.weight[kind]))

    return Acceptance(
        false_accept=np.array([share(seen, ~seen.taught) for seen in episodes]),
        recall=np.array([share(seen, seen.taught) for seen in episodes]),
    )
