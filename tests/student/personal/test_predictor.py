"""Results with personal names: ultralytics' own methods go on working, and certainty follows its box."""

import json
from pathlib import Path
from unittest import mock

import mocha_pipe.student.environment  # noqa: F401

# isort: split
import cv2
import numpy as np
import pytest
import torch
from ultralytics.engine.results import Results
from ultralytics.utils.plotting import Annotator, colors

from mocha_pipe.student.personal.predictor import PersonalResults

NAMES = {0: "mug", 1: "ball", 2: "my mug", 3: "my ball"}
BOXES = [[10, 20, 60, 90, 0.9, 2], [70, 10, 140, 60, 0.8, 0], [100, 70, 190, 110, 0.4, 3], [5, 5, 30, 30, 0.3, 1]]


@pytest.fixture
def result() -> PersonalResults:
    """A mug that is mine, one that is not, a ball that is mine, one that is not."""
    return PersonalResults(
        np.full((120, 200, 3), 90, np.uint8), "desk.jpg", NAMES, torch.tensor(BOXES),
        coarse=torch.tensor([0.0, 0, 1, 1]), certainty=torch.tensor([0.99, 0, 0.97, 0]),
    )  # fmt: skip


def test_certainty_and_coarse_class_follow_their_box(result: PersonalResults) -> None:
    for chosen, rows in (
        (2, [2]),
        (slice(1, 3), [1, 2]),
        (np.array([3, 0]), [3, 0]),
        (result.boxes.conf > 0.5, [0, 1]),
    ):
        part = result[chosen]
        assert isinstance(part, PersonalResults)
        assert part.certainty.tolist() == result.certainty[rows].tolist()
        assert part.coarse.tolist() == result.coarse[rows].tolist()
        assert part.boxes.cls.tolist() == result.boxes.cls[rows].tolist()


def test_they_move_with_the_boxes(result: PersonalResults) -> None:
    assert result.cpu().certainty.device.type == "cpu"
    assert result.to(torch.float64).certainty.dtype == torch.float64
    arrays = result.numpy()
    assert isinstance(arrays.certainty, np.ndarray)
    np.testing.assert_array_equal(arrays.numpy().cpu().coarse, [0, 0, 1, 1])
    np.testing.assert_array_equal(arrays.is_personal, [True, False, True, False])


def test_the_same_image_without_boxes(result: PersonalResults) -> None:
    result.save_dir = "here"
    empty = result.new()
    assert (empty.path, empty.names, empty.save_dir, len(empty)) == ("desk.jpg", NAMES, "here", 0)
    assert len(empty.coarse) == len(empty.certainty) == 0


def test_json_text_and_crops_have_the_personal_names(result: PersonalResults, tmp_path: Path) -> None:
    assert [box["name"] for box in json.loads(result.to_json())] == ["my mug", "mug", "my ball", "ball"]
    assert result.verbose() == "1 mug, 1 ball, 1 my mug, 1 my ball, "
    result.save_crop(tmp_path)
    assert {path.parent.name for path in tmp_path.glob("*/*.jpg")} == set(NAMES.values())


@pytest.mark.parametrize("name", ["../../out", "/tmp/out", "..", "a/../../b", "x" * 300, "a\\b", ""])
def test_no_name_leads_out_of_the_folder_of_crops(result: PersonalResults, name: str, tmp_path: Path) -> None:
    """A profile is a file that colleagues share, and so is a student with its class names."""
    crops = tmp_path / "inner" / "crops"
    for number in (1, 2):
        result.names = NAMES | {number: name}
        result.save_crop(crops, "desk")
        assert result.names[number] == name
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.parent for path in made} == {crops}
    assert len(made) == 8


def test_personal_objects_are_drawn_last_and_twice_as_wide(result: PersonalResults) -> None:
    with mock.patch.object(Results, "plot", autospec=True, side_effect=Results.plot) as plot:
        result.plot(line_width=4)
    drawn = [(call.args[0].boxes.conf.tolist(), call.args[2]) for call in plot.call_args_list]
    assert drawn == [(pytest.approx([0.8, 0.3]), 2), (pytest.approx([0.9, 0.4]), 4)]


def test_a_label_says_the_personal_name_and_the_detectors_class(result: PersonalResults) -> None:
    result.coarse = torch.tensor([1.0, 0, 1, 1])  # a mug of mine that the detector takes for a ball
    for each in (result, result.numpy()):
        with mock.patch.object(Annotator, "box_label", autospec=True) as label:
            each.plot()
        assert {call.args[2]: call.kwargs["color"] for call in label.call_args_list} == {
            "mug 0.80": colors(0, True), "ball 0.30": colors(1, True),
            "my mug (ball) 0.90": colors(2, True), "my ball (ball) 0.40": colors(3, True),
        }  # fmt: skip
    assert result.boxes.cls.tolist() == [2, 0, 3, 1]
    assert result.names == NAMES


def test_a_picture_equals_the_two_parts_drawn_by_ultralytics(result: PersonalResults) -> None:
    parts = []
    for rows in ([1, 3], [0, 2]):
        labels = NAMES | {2: "my mug (mug)", 3: "my ball (ball)"}
        parts.append(Results(result.orig_img, "desk.jpg", labels, torch.tensor(BOXES)[rows]))
    expected = parts[1].plot(line_width=2, conf=False, img=parts[0].plot(line_width=1, conf=False))
    np.testing.assert_array_equal(result.plot(conf=False), expected)
    assert (result.orig_img == 90).all()


def test_saving_writes_one_picture_with_all_boxes(result: PersonalResults, tmp_path: Path) -> None:
    assert result.save(tmp_path / "drawn.png") == tmp_path / "drawn.png"
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "drawn.png")), result.plot())
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.png"]
    assert result.plot(pil=True).size == (200, 120)
