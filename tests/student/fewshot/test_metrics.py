import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.metrics import (
    MISSED,
    NamedBoxes,
    NamedDetections,
    confusion,
    image_accuracy,
    personal_map,
    recognised_as,
    recognition_accuracy,
)

some = settings(max_examples=25, deadline=None)
FIELDS = ("image", "xyxy", "personal", "score")
BOXES = np.array([[0, 0, 10, 10], [50, 0, 70, 20], [0, 50, 30, 80], [60, 60, 64, 64]], np.float64)


def truth_of(personal: list[int], image: list[int] | None = None, xyxy: np.ndarray | None = None) -> NamedBoxes:
    count = len(personal)
    image = list(range(count)) if image is None else image
    return NamedBoxes(
        image=np.array(image, int), xyxy=BOXES[:count] if xyxy is None else xyxy, personal=np.array(personal, int)
    )


def found(
    personal: list[int],
    score: list[float] | None = None,
    image: list[int] | None = None,
    xyxy: np.ndarray | None = None,
) -> NamedDetections:
    base = truth_of(personal, image, xyxy)
    scores = np.array([0.9] * len(personal) if score is None else score)
    return NamedDetections(image=base.image, xyxy=base.xyxy, personal=base.personal, score=scores)


def random_world(seed: int, *, images: int = 4, objects: int = 3, boxes: int = 8, detections: int = 14):
    """Ground truth, and detections of which most lie near a box and half bear its name."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        corner = rng.uniform(0, 80, (count, 2))
        return np.hstack([corner, corner + rng.uniform(10, 40, (count, 2))])

    truth = truth_of(rng.integers(0, objects, boxes).tolist(), rng.integers(0, images, boxes).tolist(), draw(boxes))
    near = rng.integers(0, boxes, detections)
    xyxy = truth.xyxy[near] + rng.normal(0, 3, (detections, 4)) * rng.random((detections, 1))
    astray = rng.random(detections) < 0.3
    xyxy[astray] = draw(int(astray.sum()))
    xyxy[:, 2:] = np.maximum(xyxy[:, 2:], xyxy[:, :2] + 1)
    personal = np.where(rng.random(detections) < 0.5, truth.personal[near], rng.integers(0, objects + 1, detections))
    return truth, found(personal.tolist(), rng.random(detections).tolist(), truth.image[near].tolist(), xyxy)


def crowded_world(seed: int) -> tuple[NamedBoxes, NamedDetections]:
    """Many objects, several detections on each, tied scores, names without ground truth; hundreds in one image."""
    images, objects, boxes, detections = np.random.default_rng(seed).integers([1, 1, 1, 1], [6, 30, 40, 300])
    truth, found_there = random_world(seed, images=images, objects=objects, boxes=boxes, detections=detections)
    tied = np.round(found_there.score, 1)
    return truth, found(found_there.personal.tolist(), tied.tolist(), found_there.image.tolist(), found_there.xyxy)


def pycocotools_map(truth: NamedBoxes, detections: NamedDetections) -> tuple[float, float]:
    """The evaluator that COCO's figures come from, with its own settings; another code than the one in use."""

    def rows(boxes: NamedBoxes) -> list[dict]:
        sides = np.hstack([boxes.xyxy[:, :2], boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]])
        return [
            {"image_id": int(image), "category_id": int(name), "bbox": box.tolist(), "area": box[2] * box[3]}
            for image, name, box in zip(boxes.image, boxes.personal, sides, strict=True)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = {
            "images": [{"id": int(image)} for image in np.union1d(truth.image, detections.image)],
            "categories": [{"id": int(name)} for name in np.union1d(truth.personal, detections.personal)],
            "annotations": [{"id": n, "iscrowd": 0, **row} for n, row in enumerate(rows(truth), 1)],
        }
        ground_truth.createIndex()
        scores = detections.score.tolist()
        results = [{**row, "score": score} for row, score in zip(rows(detections), scores, strict=True)]
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0], 100 * evaluation.stats[1]


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return overlap / (sum(areas) - overlap)


def plain_precision(truth: NamedBoxes, detections: NamedDetections, personal: int, threshold: float) -> float:
    """COCO's average precision of one object at one threshold: greedy matching, envelope, 101 recall points."""
    wanted = [t for t in range(len(truth.image)) if truth.personal[t] == personal]
    ranked = [d for d in range(len(detections.image)) if detections.personal[d] == personal]
    ranked.sort(key=lambda d: -detections.score[d])
    free, hits = set(wanted), []
    for d in ranked:
        overlaps = [
            (plain_iou(truth.xyxy[t], detections.xyxy[d]), t) for t in free if truth.image[t] == detections.image[d]
        ]
        best = max(overlaps, default=(0.0, -1))
        hits.append(best[0] >= threshold)
        if hits[-1]:
            free.remove(best[1])
    points = [(sum(hits[: n + 1]) / len(wanted), sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    recalls = [step / 100 for step in range(101)]
    return float(np.mean([max((p for r, p in points if r >= recall - 1e-9), default=0) for recall in recalls]))


def plain_map(truth: NamedBoxes, detections: NamedDetections) -> tuple[float, float]:
    thresholds = [0.5 + 0.05 * step for step in range(10)]
    table = [
        [plain_precision(truth, detections, int(personal), threshold) for personal in np.unique(truth.personal)]
        for threshold in thresholds
    ]
    return 100 * float(np.mean(table)), 100 * float(np.mean(table[0]))


@some
@given(seed=st.integers(0, 100_000))
def test_map_equals_a_plain_reference(seed: int) -> None:
    truth, detections = random_world(seed)
    result = personal_map(truth, detections)
    np.testing.assert_allclose((result.map50_95, result.map50), plain_map(truth, detections), atol=1e-6)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_map_is_that_of_pycocotools(seed: int) -> None:
    truth, detections = crowded_world(seed)
    result = personal_map(truth, detections)
    np.testing.assert_allclose((result.map50_95, result.map50), pycocotools_map(truth, detections), atol=1e-6)


def test_beyond_100_detections_of_one_object_in_an_image_the_weakest_do_not_count() -> None:
    truth = truth_of([0, 1], [0, 0])
    for ahead, expected in ((99, 100 * (1 / 100 + 1) / 2), (100, 50)):
        scores = [*np.linspace(0.9, 0.5, ahead), 0.1, 0.3]
        detections = found(
            [0] * (ahead + 1) + [1], scores, [0] * (ahead + 2), BOXES[[3] * ahead + [0, 1]]
        )  # the only right one of object 0 comes after all that lie elsewhere
        result = personal_map(truth, detections)
        np.testing.assert_allclose((result.map50_95, result.map50), expected)
        np.testing.assert_allclose((result.map50_95, result.map50), pycocotools_map(truth, detections))


def test_an_image_may_hold_more_than_100_detections() -> None:
    names = list(range(150))
    truth = truth_of(names, [0] * 150, np.repeat(BOXES[:1], 150, axis=0))
    detections = found(names, np.linspace(0.9, 0.1, 150).tolist(), [0] * 150, truth.xyxy)
    assert personal_map(truth, detections).map50_95 == pytest.approx(100)


def test_of_tied_scores_the_earlier_row_comes_first() -> None:
    truth = truth_of([0])
    for rows, expected in (([0, 3], 100), ([3, 0], 50)):
        result = personal_map(truth, found([0, 0], [0.5, 0.5], [0, 0], BOXES[rows]))
        assert result.map50_95 == pytest.approx(expected)


def test_map_counts_no_unknown_detection() -> None:
    truth, detections = random_world(4)
    more = found([UNKNOWN] * 4, [0.99] * 4, [0] * 4, BOXES)
    both = {field: np.concatenate([getattr(detections, field), getattr(more, field)]) for field in FIELDS}
    assert personal_map(truth, NamedDetections(**both)) == personal_map(truth, detections)
    assert personal_map(truth, more).map50 == 0


@some
@given(seed=st.integers(0, 100_000))
def test_map_ignores_the_order_of_rows_and_the_scale_of_scores_and_pixels(seed: int) -> None:
    truth, detections = random_world(seed)
    order = np.random.default_rng(seed).permutation(len(detections.image))
    moved = NamedDetections(
        image=detections.image[order],
        xyxy=detections.xyxy[order] * 4,
        personal=detections.personal[order],
        score=detections.score[order] * 0.01,
    )
    scaled = NamedBoxes(image=truth.image, xyxy=truth.xyxy * 4, personal=truth.personal)
    result, expected = personal_map(scaled, moved), personal_map(truth, detections)
    np.testing.assert_allclose((result.map50_95, result.map50), (expected.map50_95, expected.map50), atol=1e-6)


def test_map_repeats_bitwise() -> None:
    truth, detections = random_world(3)
    assert personal_map(truth, detections) == personal_map(truth, detections)


def test_map_grows_to_100_as_boxes_tighten() -> None:
    truth = truth_of([0, 1, 2], xyxy=BOXES[:3])
    figures = [
        personal_map(truth, found([0, 1, 2], xyxy=truth.xyxy + np.array([0, 0, grow, grow]) * 1.0)).map50_95
        for grow in (4, 1, 0.5, 0)
    ]
    assert figures == sorted(figures)
    assert np.isclose(figures[-1], 100)


def test_known_cases() -> None:
    truth = truth_of([0, 1, 2, 0])
    first = [0.95] + [0.9] * 4
    cases = {
        "perfect": (found([0, 1, 2, 0]), 100),
        "all wrong names": (found([1, 2, 0, 2]), 0),
        "nothing found": (found([]), 0),
        "only names without ground truth": (found([7, 7]), 0),
        # Object 0 keeps one of two boxes: recall points 0.00 to 0.50 are 51 of 101.
        "one miss": (found([0, 1, 2]), 100 * (51 / 101 + 1 + 1) / 3),
        # A second detection of a box counts as false, but ranks below the true one of a complete class.
        "duplicate behind": (found([0, 1, 2, 0, 1], [0.9] * 4 + [0.1], [0, 1, 2, 3, 1], BOXES[[0, 1, 2, 3, 1]]), 100),
        "false one ahead": (found([1, 0, 1, 2, 0], first, [0, 0, 1, 2, 3], BOXES[[0, 0, 1, 2, 3]]), 250 / 3),
        "scene without truth": (found([1, 0, 1, 2, 0], first, [9, 0, 1, 2, 3], BOXES[[0, 0, 1, 2, 3]]), 250 / 3),
        "name without truth": (found([8, 0, 1, 2, 0], first, [0, 0, 1, 2, 3], BOXES[[0, 0, 1, 2, 3]]), 100),
    }
    for name, (detections, expected) in cases.items():
        result = personal_map(truth, detections)
        np.testing.assert_allclose((result.map50_95, result.map50), expected, err_msg=name)


def test_map50_forgives_what_map50_95_does_not() -> None:
    truth = truth_of([0])
    result = personal_map(
        truth, found([0], xyxy=np.array([[0.0, 0, 10, 6.2]]))
    )  # IoU 0.62: thresholds 0.50, 0.55, 0.60
    np.testing.assert_allclose((result.map50_95, result.map50), (30, 100))


def test_map_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    truth, detections = random_world(0, images=100, objects=24, boxes=250, detections=400)
    personal_map(truth, detections)
    assert capfd.readouterr() == ("", "")


def accuracy(truth: NamedBoxes, detections: NamedDetections) -> float:
    return recognition_accuracy(truth, recognised_as(truth, detections))


def plain_names(truth: NamedBoxes, detections: NamedDetections) -> list[int]:
    names = []
    for image, box in zip(truth.image, truth.xyxy, strict=True):
        on_it = [
            (detections.score[d], detections.personal[d])
            for d in range(len(detections.image))
            if detections.image[d] == image and plain_iou(box, detections.xyxy[d]) >= 0.5
        ]
        names.append(max(on_it, default=(0, MISSED))[1])
    return names


def with_unknown(detections: NamedDetections, every: int = 4) -> NamedDetections:
    personal = np.where(np.arange(len(detections.image)) % every == 0, UNKNOWN, detections.personal)
    return found(personal.tolist(), detections.score.tolist(), detections.image.tolist(), detections.xyxy)


@some
@given(seed=st.integers(0, 100_000))
def test_names_of_objects_equal_a_plain_reference(seed: int) -> None:
    truth, detections = random_world(seed, detections=25)
    detections = with_unknown(detections)
    names = recognised_as(truth, detections)
    assert names.tolist() == plain_names(truth, detections)
    assert recognition_accuracy(truth, names) == pytest.approx(100 * np.mean(names == truth.personal))


def test_accuracy_of_known_cases() -> None:
    truth = truth_of([0, 1, 2, 0])
    assert accuracy(truth, found([0, 1, 2, 0])) == 100
    assert accuracy(truth, found([1, 0, 0, 1])) == 0
    assert accuracy(truth, found([])) == 0
    assert accuracy(truth, found([0, 1, 2])) == 75  # a missed object is wrong
    assert accuracy(truth, found([0, 1, 2, 0], image=[9, 9, 9, 9])) == 0
    loose = BOXES[:1] + np.array([0, 0, 0, 11])  # IoU 10 / 21
    assert accuracy(truth_of([0]), found([0], xyxy=loose)) == 0


def test_missed_and_unknown_objects_are_told_apart() -> None:
    names = recognised_as(truth_of([0, 1, 2]), found([UNKNOWN, 1]))
    assert names.tolist() == [UNKNOWN, 1, MISSED]


def test_of_two_equal_boxes_the_higher_score_names_the_object() -> None:
    truth = truth_of([3])
    for scores, expected in (([0.9, 0.2], 0), ([0.2, 0.9], 100)):
        assert accuracy(truth, found([5, 3], scores, [0, 0], BOXES[[0, 0]])) == expected


def test_the_most_confident_of_the_boxes_on_an_object_names_it() -> None:
    xyxy = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    assert accuracy(truth_of([3]), found([5, 3], [0.1, 0.9], [0, 0], xyxy)) == 100
    assert accuracy(truth_of([3]), found([5, 3], [0.9, 0.1], [0, 0], xyxy)) == 0
    beside = np.array([[0.0, 0, 10, 10], [0, 8, 10, 18]])  # a confident box of something else does not count
    assert accuracy(truth_of([5]), found([5, 3], [0.1, 0.9], [0, 0], beside)) == 100


def plain_image_accuracy(truth: NamedBoxes, detections: NamedDetections) -> float:
    right = []
    for image in sorted(set(truth.image.tolist())):
        there = [truth.personal[t] for t in range(len(truth.image)) if truth.image[t] == image]
        named = [detections.personal[d] for d in range(len(detections.image)) if detections.image[d] == image]
        right.append(any(name in there for name in named))
    return 100 * sum(right) / len(right)


@some
@given(seed=st.integers(0, 100_000))
def test_image_accuracy_equals_a_plain_reference(seed: int) -> None:
    truth, detections = random_world(seed, images=12, objects=9, detections=10)
    detections = with_unknown(detections)
    assert image_accuracy(truth, detections) == pytest.approx(plain_image_accuracy(truth, detections))


def test_image_accuracy_of_known_cases() -> None:
    truth = truth_of([0, 1, 2, 3], [0, 0, 1, 2])
    assert image_accuracy(truth, found([1, 2, 3], [0.1] * 3, [0, 1, 2], BOXES[[3, 3, 0]])) == 100  # boxes do not matter
    assert image_accuracy(truth, found([0, 1], [0.9] * 2, [0, 0])) == pytest.approx(100 / 3)  # once per image
    assert image_accuracy(truth, found([0, 0, 0], image=[1, 2, 7])) == 0  # names of objects that are elsewhere
    assert image_accuracy(truth, found([])) == 0


@some
@given(seed=st.integers(0, 100_000))
def test_image_accuracy_is_blind_to_scores_rows_and_boxes_and_grows_with_detections(seed: int) -> None:
    truth, detections = random_world(seed, images=12, objects=9)
    order = np.random.default_rng(seed).permutation(len(detections.image))
    moved = found(detections.personal[order].tolist(), None, detections.image[order].tolist(), detections.xyxy + 99)
    assert image_accuracy(truth, moved) == image_accuracy(truth, detections)
    fewer = NamedDetections(**{field: getattr(detections, field)[::2] for field in FIELDS})
    assert image_accuracy(truth, fewer) <= image_accuracy(truth, detections)


@some
@given(seed=st.integers(0, 100_000))
def test_confusion_equals_a_plain_count_and_its_diagonal_is_the_accuracy(seed: int) -> None:
    truth, detections = random_world(seed, objects=5, detections=25)
    names = recognised_as(truth, with_unknown(detections, 2))
    counts = confusion(truth, names, 6)  # object 5 never shows
    for row in range(6):
        for column, name in enumerate([*range(6), MISSED, UNKNOWN]):
            expected = sum(t == row and n == name for t, n in zip(truth.personal, names, strict=True))
            assert counts[row, column] == expected
    assert 100 * counts.trace() / counts.sum() == pytest.approx(recognition_accuracy(truth, names))
    order = np.random.default_rng(seed).permutation(len(names))
    shuffled = NamedBoxes(image=truth.image[order], xyxy=truth.xyxy[order], personal=truth.personal[order])
    np.testing.assert_array_equal(confusion(shuffled, names[order], 6), counts)


def test_names_and_accuracies_repeat_bitwise() -> None:
    truth, detections = random_world(3, images=6, objects=9, detections=30)
    for figure in (recognised_as, image_accuracy):
        assert np.array(figure(truth, detections)).tobytes() == np.array(figure(truth, detections)).tobytes()


def test_accuracies_approach_the_share_of_right_names_as_objects_grow_in_number() -> None:
    errors = []
    for count in (30, 300, 3000):
        rng = np.random.default_rng(count)
        truth = truth_of([0] * count, list(range(count)), np.repeat(BOXES[:1], count, axis=0))
        detections = found((rng.random(count) < 0.3).astype(int).tolist(), xyxy=truth.xyxy)
        errors.append(max(abs(figure(truth, detections) - 70) for figure in (accuracy, image_accuracy)))
    assert errors[-1] < 3
    assert errors[-1] < max(errors)
