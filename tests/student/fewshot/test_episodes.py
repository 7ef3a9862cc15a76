from pathlib import Path

import numpy as np
import pytest

from mocha_pipe.data.benchmarks.episodes import Episode, draw_episodes
from mocha_pipe.data.types import DetectionSource, ImageRecord, PersonalBenchmark
from mocha_pipe.student.fewshot.episodes import ask, evaluate_episodes, name_detections, source_regions
from mocha_pipe.student.fewshot.learner import UNKNOWN, PrototypeError
from mocha_pipe.student.fewshot.metrics import (
    MISSED,
    confusion,
    image_accuracy,
    personal_map,
    recognised_as,
    recognition_accuracy,
)
from mocha_pipe.student.fewshot.prototypes import make_learner
from mocha_pipe.student.network.pool_pass import PoolPass

OBJECTS, COARSE, DIM = 6, 3, 8
FIGURES = ("map50_95", "map50", "accuracy", "image_accuracy", "region_accuracy")


@pytest.fixture
def benchmark() -> PersonalBenchmark:
    """Twenty scenes of three objects each; object p is of coarse class p % 3."""
    rng = np.random.default_rng(0)
    records = []
    for image in range(20):
        corner = np.arange(3)[:, None] * [30, 0] + rng.uniform(0, 8, (3, 2))
        records.append(
            ImageRecord(
                path=Path(f"{image:02}.png"),
                name=f"{image:02}.png",
                width=100,
                height=40,
                xyxy=np.hstack([corner, corner + rng.uniform(12, 20, (3, 2))]),
                class_ids=(image * 3 + np.arange(3) + image // 4) % OBJECTS,
            )
        )
    names = tuple(f"object {personal}" for personal in range(OBJECTS))
    source = DetectionSource(root=Path(), split="test", class_names=names, records=tuple(records))
    coarse_of = np.arange(OBJECTS) % COARSE
    return PersonalBenchmark(name="toy", source=source, coarse_names=("a", "b", "c"), coarse_of=coarse_of)


def make_pass(benchmark: PersonalBenchmark, noise: float, seed: int = 0) -> PoolPass:
    """Every box detected, one in ten astray; an embedding is the object's centre and noise."""
    rng = np.random.default_rng(seed)
    regions = source_regions(benchmark.source)
    centres = np.random.default_rng(99).normal(size=(OBJECTS, DIM))
    embeddings = [centres[regions.personal] + noise * rng.normal(size=(len(regions.image), DIM)) for _ in range(2)]
    astray = np.where(rng.random(len(regions.image)) < 0.1, 25, 0)[:, None]
    return PoolPass(
        detection_image=regions.image,
        detection_xyxy=(regions.xyxy + astray + rng.normal(0, 0.5, regions.xyxy.shape)).astype(np.float32),
        detection_score=rng.uniform(0.1, 1, len(regions.image)).astype(np.float32),
        detection_coarse=benchmark.coarse_of[regions.personal],
        detection_embedding=embeddings[0].astype(np.float32),
        region_embedding=embeddings[1].astype(np.float32),
    )


def episodes_of(benchmark: PersonalBenchmark, shots: int = 1, count: int = 4) -> tuple[Episode, ...]:
    return draw_episodes(benchmark, episodes=count, shots=shots, reserve=2, seed=0)


def test_regions_are_the_boxes_in_order(benchmark: PersonalBenchmark) -> None:
    regions = source_regions(benchmark.source)
    row = 0
    for image, record in enumerate(benchmark.source.records):
        for xyxy, personal in zip(record.xyxy, record.class_ids, strict=True):
            assert (regions.image[row], regions.personal[row]) == (image, personal)
            np.testing.assert_array_equal(regions.xyxy[row], xyxy)
            row += 1
    assert row == len(regions.image) == benchmark.source.num_regions


@pytest.mark.parametrize("learner", ["conditional", "gallery"])
def test_names_equal_one_detection_at_a_time(benchmark: PersonalBenchmark, learner: str) -> None:
    pool_pass = make_pass(benchmark, 0.5)
    episode = episodes_of(benchmark, shots=2)[0]
    regions = source_regions(benchmark.source)
    rows, coarse, personal = [], [], []
    for name, support in enumerate(episode.support):  # row p of the support teaches object p
        for row in support:
            assert regions.personal[row] == name
            rows.append(pool_pass.region_embedding[row])
            coarse.append(benchmark.coarse_of[name])
            personal.append(name)
    fitted = make_learner(learner).learn(np.array(rows), np.array(coarse), np.array(personal))
    expected = []
    for m, image in enumerate(pool_pass.detection_image):
        if image in set(episode.query.tolist()):
            names, scores = fitted.predict(pool_pass.detection_embedding[[m]], pool_pass.detection_coarse[[m]])
            expected.append((image, names[0], pool_pass.detection_score[m] * scores[0], *pool_pass.detection_xyxy[m]))
    named = name_detections(benchmark, episode, pool_pass, learner=learner)
    found = np.column_stack([named.image, named.personal, named.score, named.xyxy])
    np.testing.assert_allclose(found, np.array(expected, float), rtol=1e-4)


def test_detections_of_a_coarse_class_without_objects_are_left_out(benchmark: PersonalBenchmark) -> None:
    pool_pass = make_pass(benchmark, 0.1)
    pool_pass.detection_coarse[::2] = 7
    episode = episodes_of(benchmark)[0]
    named = name_detections(benchmark, episode, pool_pass)
    known = np.isin(pool_pass.detection_image, episode.query) & (pool_pass.detection_coarse != 7)
    np.testing.assert_array_equal(named.xyxy, pool_pass.detection_xyxy[known])


def test_figures_are_those_of_each_episode_alone(benchmark: PersonalBenchmark) -> None:
    passes = {"good": make_pass(benchmark, 0.3), "poor": make_pass(benchmark, 3.0)}
    episodes = episodes_of(benchmark)
    scores = evaluate_episodes(benchmark, episodes, passes)
    assert list(scores) == ["good", "poor"]
    regions = source_regions(benchmark.source)
    for method, pool_pass in passes.items():
        for place, episode in enumerate(episodes):
            truth = ask(benchmark, regions, episode).truth
            assert set(truth.image) == set(episode.query)
            named = name_detections(benchmark, episode, pool_pass)
            precision = personal_map(truth, named)
            assert scores[method].map50_95[place] == precision.map50_95
            assert scores[method].map50[place] == precision.map50
            names = recognised_as(truth, named)
            assert scores[method].accuracy[place] == recognition_accuracy(truth, names)
            assert scores[method].image_accuracy[place] == image_accuracy(truth, named)
            np.testing.assert_array_equal(scores[method].confusion[place], confusion(truth, names, OBJECTS))


@pytest.mark.parametrize("learner", ["conditional", "gallery"])
def test_region_accuracy_names_one_true_box_at_a_time(benchmark: PersonalBenchmark, learner: str) -> None:
    pool_pass = make_pass(benchmark, 0.8)
    regions = source_regions(benchmark.source)
    episodes = episodes_of(benchmark, shots=2)
    found = evaluate_episodes(benchmark, episodes, {"one": pool_pass}, learner=learner)["one"].region_accuracy
    for episode, accuracy in zip(episodes, found, strict=True):
        taught = episode.support.ravel()
        personal = regions.personal[taught]
        fitted = make_learner(learner).learn(
            pool_pass.region_embedding[taught], benchmark.coarse_of[personal], personal
        )
        right = []
        for row, image in enumerate(regions.image):
            if image in episode.query:
                true = regions.personal[row]
                name, _ = fitted.predict(pool_pass.region_embedding[[row]], benchmark.coarse_of[[true]])
                right.append(name[0] == true)
        assert accuracy == pytest.approx(100 * np.mean(right))


def test_region_accuracy_does_not_depend_on_the_detector(benchmark: PersonalBenchmark) -> None:
    full = make_pass(benchmark, 0.5)
    half = {name: getattr(full, name)[::2] for name in full.__dataclass_fields__ if name.startswith("detection_")}
    passes = {"full": full, "half": PoolPass(**half, region_embedding=full.region_embedding)}
    scores = evaluate_episodes(benchmark, episodes_of(benchmark), passes)
    np.testing.assert_array_equal(scores["half"].region_accuracy, scores["full"].region_accuracy)
    assert scores["half"].accuracy.mean() < scores["full"].accuracy.mean()


def test_a_detection_of_another_coarse_class_leaves_its_object_unknown_not_missed(
    benchmark: PersonalBenchmark,
) -> None:
    pool_pass = make_pass(benchmark, 0.1)
    pool_pass.detection_coarse[:] = 7  # no object is of this class
    counts = evaluate_episodes(benchmark, episodes_of(benchmark), {"one": pool_pass})["one"].confusion
    assert counts[:, :, UNKNOWN].sum() > counts[:, :, MISSED].sum() > 0
    assert counts[:, :, :OBJECTS].sum() == 0


def test_a_question_is_the_support_and_all_regions_of_the_query(benchmark: PersonalBenchmark) -> None:
    regions = source_regions(benchmark.source)
    episode = episodes_of(benchmark, shots=2)[1]
    question = ask(benchmark, regions, episode)
    pairs = [(row, personal) for personal, rows in enumerate(episode.support) for row in rows]
    assert list(zip(question.support, question.support_personal, strict=True)) == pairs
    assert question.support_coarse.tolist() == [personal % COARSE for _, personal in pairs]
    assert question.asked.tolist() == [row for row, image in enumerate(regions.image) if image in episode.query]
    assert question.asked_coarse.tolist() == [regions.personal[row] % COARSE for row in question.asked]
    assert question.truth.personal.tolist() == regions.personal[question.asked].tolist()


def test_objects_that_are_left_out_are_asked_about_and_not_taught(benchmark: PersonalBenchmark) -> None:
    question = ask(benchmark, source_regions(benchmark.source), episodes_of(benchmark, shots=2)[0])
    fewer = question.without(np.array([1, 4]))
    assert set(fewer.support_personal.tolist()) == {0, 2, 3, 5}
    kept = ~np.isin(question.support_personal, [1, 4])
    np.testing.assert_array_equal(fewer.support, question.support[kept])
    np.testing.assert_array_equal(fewer.support_coarse, question.support_coarse[kept])
    assert fewer.truth is question.truth
    learner = fewer.taught(make_pass(benchmark, 0.1).region_embedding, "conditional")
    assert learner.personal_.tolist() == [0, 3, 2, 5], "by coarse class, then by object"


def test_evaluation_repeats_bitwise(benchmark: PersonalBenchmark) -> None:
    passes = {"one": make_pass(benchmark, 0.7)}
    first, second = (evaluate_episodes(benchmark, episodes_of(benchmark), passes)["one"] for _ in range(2))
    for figure in (*FIGURES, "confusion"):
        assert getattr(first, figure).tobytes() == getattr(second, figure).tobytes()


def test_figures_fall_with_noise_and_rise_with_shots(benchmark: PersonalBenchmark) -> None:
    passes = {str(noise): make_pass(benchmark, noise) for noise in (0.0, 0.8, 1.6, 8.0)}
    one, two = (evaluate_episodes(benchmark, episodes_of(benchmark, shots, 12), passes) for shots in (1, 2))
    for figure in FIGURES:
        means = [getattr(scores, figure).mean() for scores in one.values()]
        assert means == sorted(means, reverse=True)
        if figure != "image_accuracy":  # already 100: one right name in a scene of three is enough
            assert getattr(two["0.8"], figure).mean() > getattr(one["0.8"], figure).mean()
    assert one["0.0"].accuracy.min() > 70  # what is astray stays lost
    # Without knowledge of the object, the coarse class alone leaves one of two.
    assert 35 < one["8.0"].accuracy.mean() / one["0.0"].accuracy.mean() * 100 < 65


def test_a_detector_that_finds_nothing_scores_nothing(benchmark: PersonalBenchmark) -> None:
    full = make_pass(benchmark, 0.1)
    nothing = {name: getattr(full, name)[:0] for name in full.__dataclass_fields__ if name.startswith("detection_")}
    blind = PoolPass(**nothing, region_embedding=full.region_embedding)
    scores = evaluate_episodes(benchmark, episodes_of(benchmark), {"blind": blind})["blind"]
    np.testing.assert_array_equal([scores.map50_95, scores.map50, scores.accuracy, scores.image_accuracy], 0)
    np.testing.assert_array_equal(scores.confusion[:, :, MISSED].sum(axis=1), scores.confusion.sum(axis=(1, 2)))


def test_an_unknown_learner_is_refused(benchmark: PersonalBenchmark) -> None:
    with pytest.raises(PrototypeError, match="--learner must be one of"):
        evaluate_episodes(benchmark, episodes_of(benchmark), {"one": make_pass(benchmark, 0.1)}, learner="svm")


def test_the_bar_shows_only_on_request(benchmark: PersonalBenchmark, capsys: pytest.CaptureFixture[str]) -> None:
    passes = {"one": make_pass(benchmark, 0.1)}
    evaluate_episodes(benchmark, episodes_of(benchmark), passes)
    assert capsys.readouterr().err == ""
    evaluate_episodes(benchmark, episodes_of(benchmark), passes, progress=True)
    assert "few-shot episodes: 100%" in capsys.readouterr().err


def test_map_is_cocos_over_every_detection_also_of_one_thing_under_two_classes(benchmark: PersonalBenchmark) -> None:
    """The second box of a thing is a false positive here, as COCO counts it; users see one."""
    once = make_pass(benchmark, 0.3)
    columns = {name: getattr(once, name) for name in once.__dataclass_fields__ if name.startswith("detection_")}
    twice = {name: np.repeat(column, 2, axis=0) for name, column in columns.items()}
    twice["detection_coarse"][1::2] += 1
    twice["detection_score"][1::2] *= np.float32(0.9)
    doubled = PoolPass(**twice, region_embedding=once.region_embedding)
    episodes, regions = episodes_of(benchmark), source_regions(benchmark.source)
    scores = evaluate_episodes(benchmark, episodes, {"1": once, "2": doubled}, learner="simpleshot")
    for place, episode in enumerate(episodes):
        named = name_detections(benchmark, episode, doubled, learner="simpleshot")
        assert len(named.image) == 2 * np.isin(once.detection_image, episode.query).sum()
        assert scores["2"].map50_95[place] == personal_map(ask(benchmark, regions, episode).truth, named).map50_95
    assert (scores["2"].map50_95 < scores["1"].map50_95).all()
    np.testing.assert_array_equal(scores["2"].accuracy, scores["1"].accuracy)
