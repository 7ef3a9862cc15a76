"""How well named detections match the ground truth: COCO's mean average precision, and accuracies."""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray

from mocha_pipe.data.boxes import box_iou

MISSED = -2
"""In place of a personal id: no detection lies on the object."""

_MAX_DETECTIONS = 100  # per image and personal object, as in COCO
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

    def __getitem__(self, rows: NDArray[np.generic]) -> Self:
        """The boxes at these rows, which numpy takes as indexes or as a mask."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedDetections(NamedBoxes):
    """Detections; the personal id of an unknown one is -1, and no figure counts it as a name."""

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
    """COCO's box mAP (101 recall points, all areas) with personal names, by faster-coco-eval.

    Of the detections that share image and name the 100 with the highest scores count; the rest are as good as absent,
    so that an image may hold more than 100. Of equal scores the image with the lower index comes first, then the
    earlier row.

    Args:
        truth: at least one box. Objects without a box here do not count, nor do detections under their names.
        detections: of the same images; one in an image without ground truth is a false positive.
    """
    assert len(truth.image), "mAP needs ground truth"
    objects = np.unique(truth.personal)
    named = detections[np.isin(detections.personal, objects)]
    if not len(named.image):
        return MeanPrecision(map50_95=0.0, map50=0.0)
    boxes = zip(truth.image.tolist(), truth.personal.tolist(), _xywh(truth).tolist(), strict=True)
    ground_truth = COCO(
        {
            "images": [{"id": image} for image in np.union1d(truth.image, detections.image).tolist()],
            "categories": [{"id": personal} for personal in objects.tolist()],
            "annotations": [
                {"id": row, "image_id": image, "category_id": name, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                for row, (image, name, box) in enumerate(boxes, start=1)  # COCO takes an id of 0 for unmatched
            ],
        }
    )
    results = ground_truth.loadRes(np.column_stack([named.image, _xywh(named), named.score, named.personal]))
    evaluation = COCOeval_faster(ground_truth, results, iouType="bbox")
    # Size classes are not reported, and each would cost a pass of its own.
    evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
    evaluation.params.maxDets = [_MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])  # (thresholds, recall points, objects, 1, 1)
    return MeanPrecision(map50_95=100 * float(precision.mean()), map50=100 * float(precision[0].mean()))


def recognised_as(truth: NamedBoxes, detections: NamedDetections) -> NDArray[np.int64]:  # (T,)
    """The name given to each ground-truth object: a personal id, `UNKNOWN`, or `MISSED`.

    A detection lies on an object when their IoU is at least 0.5, whatever its name; of those the one with the highest
    score counts, as it does for somebody who looks at the picture: a detector may box one object under two classes.
    """
    names = np.full(len(truth.image), MISSED, np.int64)
    ranked = detections[np.argsort(-detections.score, kind="stable")]  # best score first, which is what argmax takes
    for image in np.intersect1d(truth.image, ranked.image):
        objects, shown = np.flatnonzero(truth.image == image), ranked[ranked.image == image]
        on_object = box_iou(truth.xyxy[objects], shown.xyxy) >= _MATCH_IOU  # (objects, detections)
        found = on_object.any(axis=1)
        names[objects[found]] = shown.personal[on_object[found].argmax(axis=1)]
    return names


def recognition_accuracy(truth: NamedBoxes, names: NDArray[np.integer]) -> float:
    """Share of objects with the right name; 0..100. With names by `recognised_as` a missed object counts as wrong.

    Args:
        truth: T objects, at least one.
        names: the name given to each, (T,).
    """
    assert len(truth.image) == len(names) > 0, "one name per object of the ground truth, and one object or more"
    return 100 * float((names == truth.personal).mean())


def image_accuracy(truth: NamedBoxes, detections: NamedDetections) -> float:
    """Share of images in which some detection bears the name of an object that is there; 0..100.

    The reference's image-level accuracy: neither box nor score of the detection matters, so that it says little about
    scenes with several objects. Images without ground truth do not count.
    """
    assert len(truth.image), "accuracy needs ground truth"
    shown = {*zip(truth.image.tolist(), truth.personal.tolist(), strict=True)}
    named = {*zip(detections.image.tolist(), detections.personal.tolist(), strict=True)}
    return 100 * len({image for image, _ in shown & named}) / len({image for image, _ in shown})


def confusion(truth: NamedBoxes, names: NDArray[np.integer], objects: int) -> NDArray[np.int64]:
    """How often each object was given each name: (objects, objects + 2), rows are the true objects.

    The last two columns count missed and unknown ones: columns `MISSED` and `UNKNOWN`, from the end as numpy counts.

    Args:
        truth: T objects with personal ids below `objects`.
        names: the name given to each by `recognised_as`, (T,).
        objects: how many personal objects there are.
    """
    counts = np.zeros((objects, objects + 2), np.int64)
    np.add.at(counts, (truth.personal, names), 1)
    return counts


def _xywh(boxes: NamedBoxes) -> NDArray[np.float64]:  # (T, 4)
    """Left, top, width and height in pixels, as COCO has them."""
    corner, far = np.split(np.asarray(boxes.xyxy, np.float64), 2, axis=1)
    return np.hstack([corner, far - corner])
