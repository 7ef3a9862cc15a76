import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.boxes import box_iou, clip_boxes, cxcywhn_to_xyxy, xywh_to_xyxy, xyxy_to_cxcywhn

few = settings(max_examples=25, deadline=None)
side = st.floats(0, 100)
box = st.tuples(side, side, side, side).map(
    lambda v: [min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3])]
)
boxes = st.lists(box, max_size=5)


def plain_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = width * height if width > 0 and height > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0


def test_conversions_by_hand() -> None:
    assert cxcywhn_to_xyxy([[0.5, 0.5, 0.5, 0.2]], 40, 20).tolist() == [[10, 8, 30, 12]]
    assert xyxy_to_cxcywhn([[10, 8, 30, 12]], 40, 20).tolist() == [[0.5, 0.5, 0.5, 0.2]]
    assert xywh_to_xyxy([[1, 2, 3, 4]]).tolist() == [[1, 2, 4, 6]]
    assert clip_boxes([[-1, -2, 50, 30]], 40, 20).tolist() == [[0, 0, 40, 20]]


@few
@given(boxes, st.integers(1, 500), st.integers(1, 500))
def test_yolo_form_round_trips(xyxy: list[list[float]], width: int, height: int) -> None:
    back = cxcywhn_to_xyxy(xyxy_to_cxcywhn(xyxy, width, height), width, height)
    np.testing.assert_allclose(back, np.reshape(xyxy, (-1, 4)), atol=1e-9)


@few
@given(boxes)
def test_clipping_twice_is_clipping_once(xyxy: list[list[float]]) -> None:
    once = clip_boxes(xyxy, 60, 30)
    np.testing.assert_array_equal(clip_boxes(once, 60, 30), once)


@few
@given(boxes, boxes)
def test_iou_equals_a_plain_loop_and_is_symmetric(first: list[list[float]], second: list[list[float]]) -> None:
    iou = box_iou(first, second)
    assert iou.shape == (len(first), len(second))
    plain = np.array([[plain_iou(a, b) for b in second] for a in first]).reshape(iou.shape)
    np.testing.assert_allclose(iou, plain, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(iou, box_iou(second, first).T)


def test_iou_of_a_box_with_itself_is_one_and_of_no_area_zero() -> None:
    assert box_iou([[1, 1, 3, 5]], [[1, 1, 3, 5]]) == pytest.approx(1)
    assert box_iou([[1, 1, 1, 1]], [[1, 1, 1, 1]]) == 0
