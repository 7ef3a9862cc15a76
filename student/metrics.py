"""How well named detections match the ground truth: COCO's mean average precision, and recognition accuracy."""

from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray

from data.boxes import box_iou

_MAX_DETECTIONS = 100
"""Per image and personal object, as in COCO."""

_MATCH_IOU = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedBoxes:
    """Ground-truth boxes of personal objects, T of them."""

    image: NDArray[np.int64]  # (T,)
    """Index of the image."""
    xyxy: NDArray[np.floating]  # (T, 4)
    """Corners in pixels."""
    personal: NDArray[np.int64]  # (T,)
    """Personal id."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedDetections(NamedBoxes):
    """Detections with a personal name; unknown ones are left out."""

    score: NDArray[np.floating]  # (T,)
    """Confidence, 0..1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanPrecision:
    """Average precision, averaged over the personal objects that the ground truth holds; 0..100."""

    map50_95: float
    """Mean over the IoU thresholds 0.50, 0.55 ... 0.95."""
    map50: float
    """At IoU 0.50."""


def personal_map(truth: NamedBoxes, detections: NamedDetections) -> MeanPrecision:
    """COCO's box mAP (101 recall points, all areas, at most 100 detections per image and object) with personal names.

    Args:
        truth: at least one box. Objects without a box here do not count, nor do detections under their names.
        detections: of the same images; one in an image without ground truth is a false positive.
    """
    assert len(truth.image), "mAP needs ground truth"
    objects = np.unique(truth.personal)
    known = np.isin(detections.personal, objects)
    if not known.any():
        return MeanPrecision(map50_95=0.0, map50=0.0)
    images = np.union1d(truth.image, detections.image).tolist()
    annotations = _annotations(truth, np.ones(len(truth.image), bool))
    ground_truth = COCO(
        {
            "images": [{"id": image} for image in images],
            "categories": [{"id": personal} for personal in objects.tolist()],
            "annotations": [{**annotation, "iscrowd": 0} for annotation in annotations],
        }
    )
    results = _annotations(detections, known)
    for result, score in zip(results, detections.score[known].tolist(), strict=True):
        result["score"] = score
    evaluation = COCOeval_faster(ground_truth, ground_truth.loadRes(results), iouType="bbox")
    # Size classes are not reported, and each would cost a pass of its own.
    evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
    evaluation.params.maxDets = [_MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])  # (thresholds, recall points, objects, 1, 1)
    return MeanPrecision(map50_95=100 * float(precision.mean()), map50=100 * float(precision[0].mean()))


def recognition_accuracy(truth: NamedBoxes, detections: NamedDetections) -> float:
    """Share of ground-truth objects that the most confident detection on them names correctly; 0..100.

    A detection lies on an object when their IoU is at least 0.5, whatever its name; of those the one with the highest
    score counts, as it does for somebody who looks at the picture: a detector may box one object under two classes.
    A missed object counts as wrong, so a detector's misses are part of the figure.
    """
    assert len(truth.image), "accuracy needs ground truth"
    if not len(detections.image):
        return 0.0
    order = np.lexsort((-detections.score, detections.image))  # by image, then best score first: argmax takes the first
    images, xyxy, personal = (array[order] for array in (detections.image, detections.xyxy, detections.personal))
    correct = 0
    for image in np.unique(truth.image):
        first, last = np.searchsorted(images, [image, image + 1])
        if first == last:
            continue
        here = truth.image == image
        iou = box_iou(truth.xyxy[here], xyxy[first:last])  # (objects, detections)
        on_object = iou >= _MATCH_IOU
        best = on_object.argmax(axis=1)
        named = personal[first:last][best] == truth.personal[here]
        correct += int((named & on_object.any(axis=1)).sum())
    return 100 * correct / len(truth.image)


def _annotations(boxes: NamedBoxes, keep: NDArray[np.bool_]) -> list[dict[str, object]]:
    """COCO's form: left, top, width, height; ids start at 1, because COCO's matching reads 0 as unmatched."""
    corner, far = np.split(np.asarray(boxes.xyxy, np.float64)[keep], 2, axis=1)
    size = far - corner
    rows = zip(
        boxes.image[keep].tolist(), boxes.personal[keep].tolist(), np.hstack([corner, size]).tolist(),
        size.prod(axis=1).tolist(), strict=True,
    )  # fmt: skip
    return [
        {"id": index, "image_id": image, "category_id": personal, "bbox": xywh, "area": area}
        for index, (image, personal, xywh, area) in enumerate(rows, start=1)
    ]
