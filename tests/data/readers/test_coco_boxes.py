"""Boxes, outlines and crowds of a COCO json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference

from mocha_pipe.data.checking.check import check_dataset
from mocha_pipe.data.source import open_source

Make = Callable[..., Path]
Problems = Callable[..., list[tuple[str, str, str]]]
ENTRY = {"image_id": 7, "category_id": 4}
NEITHER = "has no bbox, and a segmentation that is no polygon and no mask; mend or remove the annotation"


@pytest.mark.parametrize(
    "outline", [[[1, 2, 11, 2, 6, 8.5]], [1, 2, 11, 2, 6, 8.5], [[1, 2, 3, 2, 3, 8.5], [11, 4, 9, 3, 9, 5]]]
)
@pytest.mark.parametrize("bbox", [{}, {"bbox": None}, {"bbox": []}])
def test_a_box_around_polygons(make_coco: Make, outline: list[Any], bbox: dict[str, Any]) -> None:
    source = open_source(make_coco(annotations=[{**ENTRY, **bbox, "segmentation": outline}]))
    np.testing.assert_array_equal(source.records[0].xyxy, [[1, 2, 11, 8.5]])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("packed", [True, False])
def test_a_box_around_a_mask(make_coco: Make, seed: int, packed: bool) -> None:
    dice = np.random.default_rng(seed)
    mask = np.zeros((20, 40), np.uint8)
    left, top = dice.integers(0, 30), dice.integers(0, 15)
    mask[top : top + dice.integers(1, 20), left : left + dice.integers(1, 40)] = 1
    mask &= dice.integers(0, 8, mask.shape) > seed - 4
    encoded = reference.encode(np.asfortranarray(mask))
    counts: Any = encoded["counts"].decode()
    if not packed:
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
        counts = np.diff(np.concatenate([[0], edges])).tolist()
    file = make_coco(annotations=[{**ENTRY, "segmentation": {"size": [20, 40], "counts": counts}}])
    x, y, width, height = reference.toBbox(encoded)
    np.testing.assert_array_equal(open_source(file).records[0].xyxy, [[x, y, x + width, y + height]])


@pytest.mark.parametrize(
    "outline",
    [
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5, "6"]],
        [3],
        "x",
        {"size": [20, 40], "counts": [1, 2]},
        {"size": [20, 40], "counts": [-1, 801]},
        {"size": [20, 40], "counts": "~~~"},
        {"size": [20, 40], "counts": 1000 * "o"},
        {"size": [10**14, 10**14], "counts": [0, 10**28]},
        {"counts": [1]},
    ],
)
def test_outlines_that_are_none(make_coco: Make, problems_of: Problems, outline: Any) -> None:
    file = make_coco(annotations=[{**ENTRY, "segmentation": outline}])
    assert problems_of(file) == [("error", f"{file}: annotations[0]", NEITHER)]


@pytest.mark.parametrize("written", [0, 0.0, "0", "false", "False", None, "", float("nan"), False])
def test_no_crowds(make_coco: Make, written: Any) -> None:
    file = make_coco(annotations=[{**ENTRY, "bbox": [1, 2, 3, 4], "iscrowd": written}])
    assert open_source(file).num_regions == 1


@pytest.mark.parametrize("written", [1, 1.0, "1", "true", True])
def test_crowds_are_skipped_and_counted(make_coco: Make, written: Any) -> None:
    box = {**ENTRY, "bbox": [1, 2, 3, 4]}
    (split,) = check_dataset(
        file := make_coco(annotations=[box, {**box, "bbox": [2, 3, 4, 5]}, *2 * [{**box, "iscrowd": written}]])
    )
    assert split.regions == 2
    assert [(found.severity, found.where, found.message) for found in split.problems] == [
        ("warning", str(file), "2 crowds (iscrowd 1) skipped, as a crowd's box is that of no single thing")
    ]


def test_what_is_no_answer(make_coco: Make, problems_of: Problems) -> None:
    file = make_coco(annotations=[{**ENTRY, "bbox": [1, 2, 3, 4], "iscrowd": "perhaps"}])
    assert problems_of(file) == [
        ("error", f"{file}: annotations[0]", "iscrowd must be 0 or 1, found 'perhaps'; mend it")
    ]


@pytest.mark.parametrize("value", [1e300, -1e300, 10**99])
def test_numbers_beyond_every_image(make_coco: Make, problems_of: Problems, value: float) -> None:
    ((severity, _, message),) = problems_of(make_coco(annotations=[{**ENTRY, "bbox": [1, value, 3, 4]}]))
    assert (severity, message.partition(",")[0]) == ("error", "bbox must be four finite numbers x y width height")


def test_two_outlines_of_one_box_are_two_things(make_coco: Make, problems_of: Problems) -> None:
    twin = {**ENTRY, "bbox": [1, 2, 10, 6]}
    outlines = [[[1, 2, 11, 2, 11, 8]], [[1, 2, 11, 8, 1, 8]], [], [[1, 2, 11, 2, 11, 8]], None]
    file = make_coco(annotations=[{**twin, "segmentation": outline} for outline in outlines])
    assert open_source(file).records[0].xyxy.tolist() == [[1, 2, 11, 8]] * 3
    assert [message for _, _, message in problems_of(file)] == ["2 duplicate annotations dropped"]
