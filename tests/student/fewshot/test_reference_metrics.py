"""The authors' figures against plain references and by hand."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.personal.episodes import synthetic_benchmark, synthetic_pass
from mocha_pipe.data.benchmarks.episodes import draw_episodes
from mocha_pipe.data.boxes import box_iou
from mocha_pipe.student.fewshot.episodes import ask, name_detections, source_regions
from mocha_pipe.student.fewshot.metrics import NamedBoxes, NamedDetections, personal_map
from mocha_pipe.student.fewshot.reference_metrics import (
    average_precision,
    ramped_map,
    reference_scores,
    strict_image_accuracy,
)

SQUARE = np.array([[0.0, 0.0, 10.0, 10.0]])


def boxes(image: list[int], personal: list[int], shift: list[float]) -> NamedBoxes:
    xyxy = SQUARE + np.array(shift)[:, None]
    return NamedBoxes(image=np.array(image), xyxy=xyxy, personal=np.array(personal))


def found(image: list[int], personal: list[int], shift: list[float], score: list[float]) -> NamedDetections:
    truth = boxes(image, personal, shift)
    return NamedDetections(image=truth.image, xyxy=truth.xyxy, personal=truth.personal, score=np.array(score))


def plain_average_precision(right: list[bool], count: int) -> float:
    """Numerical area under the envelope of straight lines through (recall, precision), from (0, 1) to (1, 0)."""
    points, hits = [(0.0, 1.0)], 0
    for place, is_right in enumerate(right, start=1):
        hits += is_right
        points.append((hits / count, hits / place))
    points.append((1.0, 0.0))
    points = [(recall, max(precision for _, precision in points[at:])) for at, (recall, _) in enumerate(points)]

    def height(recall: float) -> float:
        after = max(at for at, point in enumerate(points) if point[0] <= recall)
        if after == len(points) - 1:
            return points[after][1]
        (left, high), (right_, low) = points[after], points[after + 1]
        return high + (low - high) * (recall - left) / (right_ - left)

    heights = [height(place / 100) for place in range(101)]
    return sum((one + other) / 2 for one, other in pairwise(heights)) / 100


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_equals_a_plain_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    right: NDArray[np.bool_] = rng.random(rng.integers(1, 12)) < 0.6
    count = int(right.sum()) + int(rng.integers(1, 4))  # some box is missed, so that the last recall is below 1
    assert average_precision(right, count) == pytest.approx(plain_average_precision(right.tolist(), count))


def test_precision_falls_in_a_line_to_recall_one() -> None:
    assert average_precision(np.array([True]), 1) == pytest.approx(1 - 0.5 / 100), "the line falls within a step"
    # One of two boxes: precision 1 to recall 0.5, then a line to 0: three quarters where COCO's has one half.
    assert average_precision(np.array([True]), 2) == pytest.approx(0.75)
    assert average_precision(np.zeros(0, np.bool_), 2) == 0


def test_map_is_coco_s_where_all_is_found_and_higher_where_boxes_are_missed() -> None:
    truth = boxes([0, 0, 1, 1], [3, 5, 3, 5], [0, 40, 0, 40])
    every = found([0, 0, 1, 1], [3, 5, 3, 5], [0, 40, 0, 40], [0.9, 0.8, 0.7, 0.6])
    assert ramped_map(truth, every) == pytest.approx(personal_map(truth, every).map50_95, abs=0.6)
    half = every[np.array([0, 1])]
    assert ramped_map(truth, half) == pytest.approx(75)
    assert personal_map(truth, half).map50_95 == pytest.approx(100 * 51 / 101)


def test_a_box_is_matched_once_by_the_detection_of_its_name_that_lies_best() -> None:
    truth = boxes([0], [1], [0])
    two = found([0, 0, 0], [1, 1, 2], [2, 0, 0], [0.9, 0.5, 0.99])
    # Best first: the shifted one (a third of the thresholds allow it, but the exact one takes the box), then the exact.
    iou = box_iou(truth.xyxy, two.xyxy)[0]
    assert iou[0] < iou[1] == 1
    assert ramped_map(truth, two) == pytest.approx(100 * average_precision(np.array([False, True]), 1))


def plain_matches(truth: NamedBoxes, detections: NamedDetections, threshold: float) -> list[bool]:
    """Over all pairs by falling IoU: of one image and name, with neither used before."""
    iou = box_iou(truth.xyxy, detections.xyxy)
    boxes_used, right = set(), [False] * len(detections.image)
    for pair in np.argsort(-iou, axis=None, kind="stable"):
        box, row = divmod(int(pair), len(detections.image))
        same = truth.image[box] == detections.image[row] and truth.personal[box] == detections.personal[row]
        if same and iou[box, row] >= threshold and box not in boxes_used and not right[row]:
            right[row] = True
            boxes_used.add(box)
    return right


@pytest.mark.parametrize("seed", range(4))
def test_map_equals_a_plain_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, personal = rng.integers(0, 4, 20), rng.integers(0, 3, 20)
    truth = boxes(image.tolist(), personal.tolist(), (rng.random(20) * 12).tolist())
    rows = rng.integers(0, 20, 40)
    shift = truth.xyxy[rows, 0] + rng.normal(scale=2, size=40)
    detections = found(image[rows].tolist(), rng.integers(0, 4, 40).tolist(), shift.tolist(), rng.random(40).tolist())
    order = np.argsort(-detections.score)
    precisions = []
    for name in np.unique(truth.personal):
        for threshold in np.linspace(0.5, 0.95, 10):
            right = np.array(plain_matches(truth, detections, threshold))[order]
            own = right[detections.personal[order] == name]
            precisions.append(plain_average_precision(own.tolist(), int((truth.personal == name).sum())))
    assert ramped_map(truth, detections) == pytest.approx(100 * np.mean(precisions))


def test_without_detections_it_is_zero() -> None:
    assert ramped_map(boxes([0], [1], [0]), found([], [], [], [])) == 0


def test_rank_is_by_confidence_and_the_order_of_rows_does_not_matter() -> None:
    truth = boxes([0, 1, 2], [1, 1, 1], [0, 0, 0])
    detections = found([0, 1, 2], [1, 1, 1], [0, 30, 0], [0.2, 0.9, 0.5])
    shuffled = detections[np.array([2, 0, 1])]
    assert ramped_map(truth, detections) == ramped_map(truth, shuffled)
    better = found([0, 1, 2], [1, 1, 1], [0, 30, 0], [0.2, 0.1, 0.5])
    assert ramped_map(truth, better) > ramped_map(truth, detections)


def test_images_without_truth_count_as_wrong() -> None:
    truth = boxes([0, 1, 1], [1, 2, 3], [0, 0, 40])
    named = found([0, 1, 7], [1, 5, 1], [90, 0, 0], [0.9, 0.9, 0.9])
    assert strict_image_accuracy(truth, named, images=2) == 50
    assert strict_image_accuracy(truth, named, images=4) == 25


def test_scores_of_episodes_are_those_of_their_names_ranked_by_confidence() -> None:
    benchmark = synthetic_benchmark()
    passes = {"mocha": synthetic_pass(benchmark, 24)}
    episodes = draw_episodes(benchmark, episodes=2, shots=1, reserve=1, seed=0, query_images=40)
    scores = reference_scores(benchmark, episodes, passes, learner="conditional")["mocha"]
    for place, episode in enumerate(episodes):
        truth = ask(benchmark, source_regions(benchmark.source), episode).truth
        named = name_detections(benchmark, episode, passes["mocha"], by_confidence=True)
        assert np.isin(named.score, passes["mocha"].detection_score).all()
        assert scores["map50_95"][place] == ramped_map(truth, named)
        assert scores["image_accuracy"][place] == strict_image_accuracy(truth, named, len(episode.query))
