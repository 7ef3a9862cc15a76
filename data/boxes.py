"""Box arithmetic. Inside the code a box is pixel xyxy (corners, x right, y down); other forms stay at the edges.

Legend: N, M = boxes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]  # (N, 4)
_HANDFUL = 5
_BEYOND = 1.01  # by more than rounding


def cxcywhn_to_xyxy(boxes: ArrayLike, width: int, height: int) -> Boxes:  # (N, 4) -> (N, 4)
    """Centre and size as shares of the image (YOLO) to pixel corners."""
    rows = _rows(boxes)
    centre, half = rows[:, :2], rows[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * _sides(width, height)


def xyxy_to_cxcywhn(boxes: ArrayLike, width: int, height: int) -> Boxes:  # (N, 4) -> (N, 4)
    """Pixel corners to centre and size as shares of the image (YOLO)."""
    x1, y1, x2, y2 = _rows(boxes).T
    return np.stack([(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height], axis=1)


def xywh_to_xyxy(boxes: ArrayLike) -> Boxes:  # (N, 4) -> (N, 4)
    """Left, top, width, height in pixels (COCO) to pixel corners."""
    x, y, w, h = _rows(boxes).T
    return np.stack([x, y, x + w, y + h], axis=1)


def clip_boxes(boxes: ArrayLike, width: int, height: int) -> Boxes:  # (N, 4) -> (N, 4)
    """Pixel corners moved into the image: x to [0, width], y to [0, height]."""
    return np.minimum(np.maximum(_rows(boxes), 0.0), _sides(width, height))


def in_hundredths(boxes: ArrayLike) -> NDArray[np.int64]:  # (..., 4) -> (..., 4)
    """Corners in whole 1/100 px, halves upward: the precision of a region's key and of its crop, which must be one."""
    return np.floor(np.asarray(boxes, dtype=np.float64) * 100 + 0.5).astype(np.int64)


def box_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:  # (N, 4), (M, 4) -> (N, M)
    """Intersection over union of every pair of pixel xyxy boxes; 0 where both have no area."""
    a_N4, b_M4 = _rows(first), _rows(second)
    top_left = np.maximum(a_N4[:, None, :2], b_M4[None, :, :2])  # (N, M, 2)
    bottom_right = np.minimum(a_N4[:, None, 2:], b_M4[None, :, 2:])
    overlap_NM = np.clip(bottom_right - top_left, 0.0, None).prod(axis=2)
    union_NM = _areas(a_N4)[:, None] + _areas(b_M4)[None, :] - overlap_NM
    return np.asarray(np.divide(overlap_NM, union_NM, out=np.zeros_like(overlap_NM), where=union_NM > 0))


def seem_corners(first_N2: Boxes, second_N2: Boxes, end_N2: Boxes) -> bool:
    """Whether boxes that are read as a place and a size may be two corners, as some exports have them.

    Of a handful or more the second pair of numbers always exceeds the first, and as sizes some leave the image.

    Args:
        first_N2: x and y of the place, as shares of the image.
        second_N2: Width and height.
        end_N2: x and y of the right bottom corner that follows.
    """
    return len(first_N2) >= _HANDFUL and bool((second_N2 > first_N2).all() and (end_N2 > _BEYOND).any())


def _areas(boxes: Boxes) -> NDArray[np.float64]:  # (N, 4) -> (N,)
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), dtype=np.float64)


def _rows(boxes: ArrayLike) -> Boxes:
    """An (N, 4) array-like as an array; an empty list is (0, 4)."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _sides(width: int, height: int) -> NDArray[np.float64]:  # (4,)
    return np.array([width, height, width, height], dtype=np.float64)
