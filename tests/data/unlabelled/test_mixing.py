"""Which boxes a picture gets from which source, and that nothing else decides them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocha_pipe.data.types import ImageRecord
from mocha_pipe.data.unlabelled import mixing
from mocha_pipe.data.unlabelled.crops import seeded_crops
from mocha_pipe.data.unlabelled.mixing import Mixture, RegionChoice, Regions, mix
from mocha_pipe.data.unlabelled.pictures import find_pictures
from mocha_pipe.data.unlabelled.writing import Labelled

Make = Callable[..., Path]
WEIGHTS = Path("weights.pt")


def detector(*found: tuple[Sequence[float], str]) -> dict[str, Any]:
    """Arguments of `mix`: a detector that knows mug and cup and finds the same things everywhere."""
    boxes = np.array([box for box, _ in found], np.float64).reshape(-1, 4)

    def detect(records: Sequence[ImageRecord]) -> list[Regions]:
        return [(boxes, tuple(name for _, name in found))] * len(records)

    return {"detector_names": ("mug", "cup"), "detect": detect}


def told(mixed: Mixture, each: Labelled) -> list[tuple[str, list[float]]]:
    return [(mixed.class_names[number], box) for number, box in zip(each.class_ids, each.xyxy.tolist(), strict=True)]


def test_whole_pictures_and_crops_are_of_one_class(folder: Path) -> None:
    pictures = find_pictures([folder]).pictures
    mixed = mix(pictures, RegionChoice(whole=True, crops=3, seed=5))
    assert mixed.class_names == ("region",)
    assert mixed.boxes == {"whole": 4, "crops": 12}
    for picture, each in zip(pictures, mixed.labelled, strict=True):
        width, height = each.look.width, each.look.height
        crops = seeded_crops(picture.digest, width, height, count=3, seed=5)
        assert each.xyxy.tolist() == [[0, 0, width, height], *crops.tolist()]


def test_detections_have_the_detectors_classes_and_whole_pixels(folder: Path) -> None:
    found = detector(([10.4, 5.6, 30.2, 20], "cup"), ([-3, 40, 500, 90], "mug"))
    mixed = mix(find_pictures([folder]).pictures, RegionChoice(detector=WEIGHTS), **found)
    assert mixed.class_names == ("mug", "cup"), "also where only one is found, so that ids stay"
    width = mixed.labelled[0].look.width
    assert told(mixed, mixed.labelled[0]) == [("cup", [10, 6, 30, 20]), ("mug", [0, 40, width, 60])]


def test_detections_without_area_are_left_out_and_the_most_confident_ones_kept(folder: Path) -> None:
    found = detector(
        ([10, 5, 10.3, 20], "mug"), ([300, 0, 400, 20], "mug"), ([0, 0, 9, 9], "cup"), ([1, 1, 9, 9], "mug")
    )
    mixed = mix(find_pictures([folder]).pictures, RegionChoice(detector=WEIGHTS, most=1), **found)
    assert [told(mixed, each) for each in mixed.labelled] == [[("cup", [0, 0, 9, 9])]] * 4


def test_ground_truth_comes_first_and_detections_of_the_same_are_left_out(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "1 0.5 0.5 0.5 0.5\n", "train/b.jpg": ""})
    found = detector(([11, 5, 30, 15], "cup"), ([0, 0, 12, 9], "cup"))
    pictures = find_pictures([data]).pictures
    choice = RegionChoice(ground_truth=True, detector=WEIGHTS, whole=True)
    mixed = mix(pictures, choice, truth_names=("ball", "mug", "star"), **found)
    assert mixed.class_names == ("ball", "mug", "star", "cup", "region"), "one id for a name that both know"
    rows = {each.picture.file.suffix and Path(each.picture.file).stem: told(mixed, each) for each in mixed.labelled}
    assert rows["a"] == [("mug", [10, 5, 30, 15]), ("cup", [0, 0, 12, 9]), ("region", [0, 0, 40, 20])]
    assert rows["b"] == [("cup", [11, 5, 30, 15]), ("cup", [0, 0, 12, 9]), ("region", [0, 0, 40, 20])]
    assert mixed.boxes == {"ground_truth": 1, "detector": 3, "whole": 2}


def test_without_ground_truth_its_boxes_and_classes_are_left_out(make_yolo: Make) -> None:
    mixed = mix(find_pictures([make_yolo()]).pictures, RegionChoice(whole=True), truth_names=("ball", "mug", "star"))
    assert mixed.class_names == ("region",)
    assert [len(each.xyxy) for each in mixed.labelled] == [1, 1]


def test_a_box_that_is_drawn_twice_is_one(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "0 0.5 0.5 1 1\n", "train/b.jpg": ""}, {"names": ["region"]})
    choice = RegionChoice(ground_truth=True, whole=True)
    mixed = mix(find_pictures([data]).pictures, choice, truth_names=("region",))
    assert [each.xyxy.tolist() for each in mixed.labelled] == [[[0, 0, 40, 20]]] * 2


def test_unreadable_pictures_are_told_and_left_out_in_every_group(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "_AT_ONCE", 2)
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / "worse.jpg").write_bytes(b"no picture either")
    mixed = mix(find_pictures([folder]).pictures, RegionChoice(crops=1))
    assert len(mixed.labelled) == 4
    assert {problem.where for problem in mixed.problems} == {str(folder / "bad.jpg"), str(folder / "worse.jpg")}
