from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mocha_pipe.data.benchmarks.episodes import Episode, draw_episodes
from mocha_pipe.data.types import DetectionSource, ImageRecord, PersonalBenchmark
from mocha_pipe.student.fewshot.episodes import source_regions
from mocha_pipe.student.fewshot.openset import (
    FALSE_ACCEPT_G,
    OpenEpisode,
    acceptance,
    hold_out,
    open_episodes,
    separation,
)
from mocha_pipe.student.fewshot.prototypes import make_learner
from mocha_pipe.student.network.pool_pass import PoolPass

COARSE_OF = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 3])  # three, two, one and six objects
DIM = 16


def make_benchmark(order: np.ndarray | None = None) -> PersonalBenchmark:
    """Sixty scenes of two objects each; `order` gives the objects other ids, and changes nothing else."""
    order = np.arange(len(COARSE_OF)) if order is None else order
    records = tuple(
        ImageRecord(
            path=Path(f"{image:02}.png"), name=f"{image:02}.png", width=100, height=40,
            xyxy=np.array([[0, 0, 20, 20], [40, 0, 60, 20.0]]),
            class_ids=np.array([order[image % 12], order[(image + 1 + image // 12) % 12]]),
        )
        for image in range(60)
    )  # fmt: skip
    names, coarse_of = [""] * len(COARSE_OF), np.zeros_like(COARSE_OF)
    for personal, place in enumerate(order):
        names[place], coarse_of[place] = f"object {personal}", COARSE_OF[personal]
    source = DetectionSource(root=Path(), split="test", class_names=tuple(names), records=records)
    return PersonalBenchmark(name="toy", source=source, coarse_names=("a", "b", "c", "d"), coarse_of=coarse_of)


def make_pass(benchmark: PersonalBenchmark, noise: float) -> PoolPass:
    """No detections; an embedding is the centre of the object, told by its name, and noise."""
    regions = source_regions(benchmark.source)
    numbers = np.array([int(name.split()[1]) for name in benchmark.source.class_names])[regions.personal]
    centres = np.random.default_rng(3).normal(size=(len(COARSE_OF), DIM))
    rows = centres[numbers] + noise * np.random.default_rng(4).normal(size=(len(numbers), DIM))
    none = np.zeros(0, np.int64)
    return PoolPass(
        detection_image=none, detection_xyxy=np.zeros((0, 4), np.float32), detection_score=np.zeros(0, np.float32),
        detection_coarse=none, detection_embedding=np.zeros((0, DIM), np.float32),
        region_embedding=rows.astype(np.float32),
    )  # fmt: skip


def episodes_of(benchmark: PersonalBenchmark, shots: int = 2, count: int = 6) -> tuple[Episode, ...]:
    return draw_episodes(benchmark, episodes=count, shots=shots, reserve=2, seed=0)


def plain_episode(benchmark: PersonalBenchmark, episode: Episode, pool_pass: PoolPass, learner: str):
    """(closeness, candidates, taught, coarse class) of one region after the other."""
    held_out = hold_out(benchmark, episode).tolist()
    regions = source_regions(benchmark.source)
    rows = [row for personal, rows in enumerate(episode.support) if personal not in held_out for row in rows]
    personal = regions.personal[rows]
    fitted = make_learner(learner).learn(pool_pass.region_embedding[rows], benchmark.coarse_of[personal], personal)
    found = []
    for row, image in enumerate(regions.image):
        true = int(regions.personal[row])
        coarse = int(benchmark.coarse_of[true])
        if image not in episode.query or not any(benchmark.coarse_of[other] == coarse for other in held_out):
            continue
        (nearest,), _ = fitted.nearest(pool_pass.region_embedding[[row]], np.array([coarse]))
        region, prototype = pool_pass.region_embedding[row].astype(float), fitted.prototypes_[nearest].astype(float)
        cosine = region @ prototype / np.linalg.norm(region) / np.linalg.norm(prototype)
        candidates = sum(fitted.coarse_ == coarse) if learner == "conditional" else len(fitted.coarse_)
        found.append((cosine, candidates, true not in held_out, coarse))
    return [np.array(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize("learner", ["conditional", "gallery"])
def test_episodes_equal_one_region_at_a_time(learner: str) -> None:
    benchmark = make_benchmark()
    pool_pass = make_pass(benchmark, 1.0)
    episodes = episodes_of(benchmark)
    found = open_episodes(benchmark, episodes, {"one": pool_pass}, learner=learner)["one"]
    for episode, seen in zip(episodes, found, strict=True):
        closeness, candidates, taught, coarse = plain_episode(benchmark, episode, pool_pass, learner)
        np.testing.assert_allclose(seen.closeness, closeness, rtol=1e-5)
        np.testing.assert_array_equal(seen.candidates, candidates)
        np.testing.assert_array_equal(seen.taught, taught)
        for side in (taught, ~taught):
            for own in (0, 1, 3):
                expected = 1 / (side & (coarse == own)).sum()
                np.testing.assert_allclose(seen.weight[side & (coarse == own)], expected)


def test_figures_equal_plain_sums_over_pairs_and_thresholds() -> None:
    benchmark = make_benchmark()
    found = open_episodes(benchmark, episodes_of(benchmark), {"one": make_pass(benchmark, 2.0)})["one"]
    figures = separation(found)
    accepted = acceptance(found, lambda candidates: 0.5 + candidates / 20)
    for place, seen in enumerate(found):
        regions = list(zip(seen.closeness, seen.weight, seen.candidates, seen.taught, strict=True))
        taught, held_out = ([row[:3] for row in regions if row[3] is np.bool_(kind)] for kind in (True, False))
        won = sum(v * w * (0.5 * (x == y) + (x > y)) for x, v, _ in taught for y, w, _ in held_out)
        assert figures.auroc[place] == pytest.approx(won / 9), "three classes of weight 1 on both sides"

        def share(side: list, threshold: float) -> float:
            return sum(weight for closeness, weight, _ in side if closeness > threshold) / 3

        points = [(share(held_out, t), share(taught, t)) for t in (-np.inf, *seen.closeness)]
        assert figures.false_accept[place] == pytest.approx(min(x for x, y in points if y >= 0.95 - 1e-9))
        for rate, recall in zip(FALSE_ACCEPT_G, figures.recall[place], strict=True):
            assert recall == pytest.approx(max(y for x, y in points if x <= rate + 1e-9))
        for side, name in ((held_out, "false_accept"), (taught, "recall")):
            expected = sum(weight for closeness, weight, count in side if closeness > 0.5 + count / 20) / 3
            assert getattr(accepted, name)[place] == pytest.approx(expected)


def test_evaluation_repeats_bitwise() -> None:
    benchmark = make_benchmark()
    first, second = (
        separation(open_episodes(benchmark, episodes_of(benchmark), {"one": make_pass(benchmark, 1.5)})["one"])
        for _ in range(2)
    )
    for name in ("auroc", "false_accept", "recall"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_objects_that_do_not_vary_are_told_apart_without_a_mistake() -> None:
    benchmark = make_benchmark()
    found = open_episodes(benchmark, episodes_of(benchmark), {"one": make_pass(benchmark, 0.0)})["one"]
    figures = separation(found)
    assert (figures.auroc == 1).all()
    assert (figures.false_accept == 0).all()
    assert (figures.recall == 1).all()


def test_embeddings_that_say_nothing_are_at_chance() -> None:
    benchmark = make_benchmark()
    blind = make_pass(benchmark, 0.0)
    noise = np.random.default_rng(0).normal(size=(40, *blind.region_embedding.shape)).astype(np.float32)
    passes = {str(draw): replace(blind, region_embedding=rows) for draw, rows in enumerate(noise)}
    found = open_episodes(benchmark, episodes_of(benchmark), passes).values()
    means = np.array([separation(episodes).auroc.mean() for episodes in found])
    assert abs(means.mean() - 0.5) < 4 * means.std() / 40**0.5 < 0.05


def test_separation_falls_with_noise() -> None:
    benchmark = make_benchmark()
    passes = {str(noise): make_pass(benchmark, noise) for noise in (0.1, 0.5, 1.0, 4.0)}
    found = open_episodes(benchmark, episodes_of(benchmark, count=20), passes)
    means = [separation(episodes).auroc.mean() for episodes in found.values()]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.99 > means[-1]


def test_ids_of_the_objects_do_not_matter() -> None:
    plain, turned = make_benchmark(), make_benchmark(np.random.default_rng(1).permutation(len(COARSE_OF)))
    figures = []
    for benchmark in (plain, turned):
        episodes = episodes_of(benchmark)
        names = [
            {benchmark.source.class_names[personal] for personal in hold_out(benchmark, episode)}
            for episode in episodes
        ]
        found = open_episodes(benchmark, episodes, {"one": make_pass(benchmark, 1.0)})["one"]
        figures.append((names, separation(found), acceptance(found, lambda candidates: 0.9 - 0.1 * candidates)))
    assert figures[0][0] == figures[1][0]
    np.testing.assert_allclose(figures[0][1].auroc, figures[1][1].auroc)
    np.testing.assert_allclose(figures[0][1].recall, figures[1][1].recall)
    np.testing.assert_allclose(figures[0][2].recall, figures[1][2].recall)


def test_a_third_of_each_class_is_held_out_and_its_only_object_never() -> None:
    benchmark = make_benchmark()
    drawn = [hold_out(benchmark, episode) for episode in episodes_of(benchmark, count=30)]
    for held_out in drawn:
        assert np.bincount(COARSE_OF[held_out], minlength=4).tolist() == [1, 1, 0, 2]
        assert (np.diff(held_out) > 0).all()
    assert set(np.concatenate(drawn).tolist()) == set(range(12)) - {5}


def test_all_numbers_of_shots_hold_out_the_same_objects() -> None:
    benchmark = make_benchmark()
    for one, two in zip(episodes_of(benchmark, shots=1), episodes_of(benchmark, shots=2), strict=True):
        np.testing.assert_array_equal(hold_out(benchmark, one), hold_out(benchmark, two))
    first, second = (draw_episodes(benchmark, episodes=8, shots=1, reserve=1, seed=seed) for seed in (0, 1))
    assert any(
        hold_out(benchmark, one).tolist() != hold_out(benchmark, two).tolist()
        for one, two in zip(first, second, strict=True)
    )


def test_a_class_and_an_episode_that_show_one_kind_only_are_left_out() -> None:
    benchmark = make_benchmark()
    episode = episodes_of(benchmark)[0]
    regions, held_out = source_regions(benchmark.source), hold_out(benchmark, episode)

    def showing_none(objects: np.ndarray) -> Episode:
        shown = [np.isin(regions.personal[regions.image == image], objects).any() for image in episode.query]
        return replace(episode, query=episode.query[~np.array(shown)])

    taught = np.setdiff1d(np.arange(12), held_out)
    without = (held_out[COARSE_OF[held_out] == 0], taught[COARSE_OF[taught] == 0], held_out, taught)
    asked = [episode, *(showing_none(objects) for objects in without)]
    found = open_episodes(benchmark, asked, {"one": make_pass(benchmark, 1.0)})["one"]
    assert [seen.weight.sum() for seen in found] == pytest.approx([2 * 3, 2 * 2, 2 * 2]), "two kinds of so many classes"


def test_a_rate_that_can_be_reached_exactly_is_reached() -> None:
    held_out = np.arange(10.0)
    seen = OpenEpisode(
        closeness=np.append(held_out, held_out + 0.5), candidates=np.ones(20, int),
        taught=np.arange(20) >= 10, weight=np.ones(20),
    )  # fmt: skip
    # A threshold that accepts k of the ten held out accepts k + 1 of the ten others.
    expected = np.minimum(1, (np.arange(101) // 10 + 1) / 10)
    np.testing.assert_allclose(separation([seen]).recall[0], expected)


def test_where_every_class_has_one_object_nothing_can_be_asked() -> None:
    benchmark = replace(make_benchmark(), coarse_of=np.arange(12))
    assert open_episodes(benchmark, episodes_of(benchmark), {"one": make_pass(benchmark, 1.0)}) == {"one": []}


def test_the_threshold_is_asked_once_for_each_number_of_candidates() -> None:
    episode = OpenEpisode(
        closeness=np.array([0.5, 0.5, -np.inf, 0.5]), candidates=np.array([2, 7, 2, 2]),
        taught=np.array([True, True, False, False]), weight=np.array([0.25, 0.75, 0.5, 0.5]),
    )  # fmt: skip
    asked: list[int] = []

    def threshold(candidates: int) -> float:
        asked.append(candidates)
        return {2: 0.4, 7: 0.5}[candidates]

    accepted = acceptance([episode, episode], threshold)
    assert asked == [2, 7]
    assert accepted.recall.tolist() == [0.25, 0.25], "what is just as close as the threshold is not accepted"
    assert accepted.false_accept.tolist() == [0.5, 0.5]
