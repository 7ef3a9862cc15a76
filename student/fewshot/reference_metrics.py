"""Few-shot figures as the paper's authors compute them, beside those of metrics.py (docs/reference.md).

- mAP: a detection ranks by the detector's confidence alone. Detections are matched image by image as ultralytics
  8.0.225 did (pairs of one name by falling IoU, each detection and each box once), and average precision is the area
  under its curve, which falls in a straight line from the last recall that was reached to precision 0 at recall 1 (so
  that the most is 99.5).
- Image accuracy: an image without ground truth counts as wrong.

Legend: E episodes, M detections, T boxes, K IoU thresholds, Q query images.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.benchmarks.episodes import Episode
from mocha_pipe.data.boxes import box_iou
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.student.fewshot.episodes import ask, name_detections, source_regions
from mocha_pipe.student.fewshot.metrics import NamedBoxes, NamedDetections, image_accuracy
from mocha_pipe.student.network.pool_pass import PoolPass

REFERENCE_METRICS = ("map50_95", "image_accuracy")
_IOU_K = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)


def reference_scores(
    benchmark: PersonalBenchmark,
    episodes: Sequence[Episode],
    passes: Mapping[str, PoolPass],
    *,
    learner: str,
    progress: bool = False,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """By method, then by `REFERENCE_METRICS`: (E,) figures, 0..100. Arguments as for `evaluate_episodes`."""
    regions = source_regions(benchmark.source)
    found: dict[str, list[tuple[float, float]]] = {method: [] for method in passes}
    for episode in tqdm(episodes, desc="the authors' figures", unit="episode", disable=not progress):
        truth = ask(benchmark, regions, episode).truth
        for method, pool_pass in passes.items():
            named = name_detections(benchmark, episode, pool_pass, learner=learner, by_confidence=True)
            found[method].append((ramped_map(truth, named), strict_image_accuracy(truth, named, len(episode.query))))
    return {method: dict(zip(REFERENCE_METRICS, np.array(rows).T, strict=True)) for method, rows in found.items()}


def ramped_map(truth: NamedBoxes, detections: NamedDetections) -> float:
    """mAP50-95 over the objects that the ground truth holds; 0..100.

    Args:
        truth: at least one box.
        detections: of the same images; of equal scores the earlier row ranks first.
    """
    assert len(truth.image), "mAP needs ground truth"
    right_MK = _matched(truth, detections)
    order = np.argsort(-detections.score, kind="stable")
    precisions = []
    for personal in np.unique(truth.personal):
        rows = order[detections.personal[order] == personal]
        count = int((truth.personal == personal).sum())
        precisions.append([average_precision(right_MK[rows, k], count) for k in range(len(_IOU_K))])
    return 100 * float(np.mean(precisions))


def average_precision(right_M: NDArray[np.bool_], boxes: int) -> float:
    """Area under the precision of one object's ranked detections, read at 101 recalls; 0..1.

    Args:
        right_M: whether each detection was matched, best first.
        boxes: of the object in the ground truth, at least one.
    """
    if not len(right_M):
        return 0.0
    hits_M = right_M.cumsum()
    recall = np.concatenate([[0.0], hits_M / boxes, [1.0]])
    precision = np.concatenate([[1.0], hits_M / np.arange(1, len(right_M) + 1), [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    heights = np.interp(_RECALLS, recall, envelope)
    return float(((heights[1:] + heights[:-1]) / 2).sum() / (len(_RECALLS) - 1))


def strict_image_accuracy(truth: NamedBoxes, detections: NamedDetections, images: int) -> float:
    """`image_accuracy` over all of the query's images, those without ground truth counting as wrong; 0..100."""
    return image_accuracy(truth, detections) * len(np.unique(truth.image)) / images


def _matched(truth: NamedBoxes, detections: NamedDetections) -> NDArray[np.bool_]:  # (M, K)
    """Which detections are right at each IoU threshold."""
    right_MK = np.zeros((len(detections.image), len(_IOU_K)), np.bool_)
    boxes_of, rows_of = _by_key(truth), _by_key(detections)
    for key in boxes_of.keys() & rows_of.keys():  # boxes and detections of one name in one image
        boxes, rows = boxes_of[key], rows_of[key]
        iou = box_iou(truth.xyxy[boxes], detections.xyxy[rows])
        box, row = np.nonzero(iou >= _IOU_K[0])
        pairs = sorted(zip((-iou[box, row]).tolist(), box.tolist(), row.tolist(), strict=True))
        for k, threshold in enumerate(_IOU_K):
            taken: set[int] = set()
            for negative, of_box, of_row in pairs:
                if -negative < threshold:
                    break
                if of_box not in taken and not right_MK[rows[of_row], k]:
                    right_MK[rows[of_row], k] = True
                    taken.add(of_box)
    return right_MK


def _by_key(boxes: NamedBoxes) -> dict[tuple[int, int], NDArray[np.intp]]:
    """Rows of each image and name."""
    order = np.lexsort((boxes.personal, boxes.image))
    keys = np.stack([boxes.image[order], boxes.personal[order]], axis=1)
    begins = np.flatnonzero(np.diff(keys, axis=0).any(axis=1)) + 1
    groups = np.split(order, begins) if len(order) else []
    return {(int(boxes.image[rows[0]]), int(boxes.personal[rows[0]])): rows for rows in groups}
