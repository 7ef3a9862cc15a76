"""Scenes: placement, boxes, repeatability."""

import numpy as np

from mocha_pipe.data.boxes import box_iou
from mocha_pipe.data.miniature.objects import SHAPES, random_object
from mocha_pipe.data.miniature.scenes import SCENE_SIZE, Scene, render_scene


def scene(seed: int, num_objects: int = 4) -> Scene:
    rng = np.random.default_rng(seed)
    return render_scene(rng, [random_object(rng, str(rng.choice(SHAPES)), "train") for _ in range(num_objects)])


def test_a_seed_gives_the_same_pixels_and_boxes() -> None:
    first, again, other = scene(1), scene(1), scene(2)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.xyxy, again.xyxy)
    assert not np.array_equal(first.image, other.image)


def test_objects_lie_inside_and_hardly_overlap() -> None:
    for seed in range(8):
        shown = scene(seed)
        assert shown.image.shape == (SCENE_SIZE, SCENE_SIZE, 3)
        assert len(shown.objects) == len(shown.xyxy) >= 1
        assert shown.xyxy.min() >= 0
        assert shown.xyxy.max() <= SCENE_SIZE
        assert (shown.xyxy[:, 2:] - shown.xyxy[:, :2]).min() >= 12
        overlap = box_iou(shown.xyxy, shown.xyxy) - np.eye(len(shown.xyxy))
        assert overlap.max() < 0.25


def test_the_first_object_always_finds_a_place() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        objects = [random_object(rng, "mug", "train") for _ in range(6)]
        assert render_scene(rng, objects).objects[0] == objects[0]


def test_a_scene_without_objects_is_a_background() -> None:
    assert scene(0, num_objects=0).xyxy.shape == (0, 4)
