from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.readers.labels import Labels, read_labels

COLUMNS = "5 numbers (class x_center y_center width height) or a polygon (class x1 y1 x2 y2 x3 y3 ...)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


def parse(file: Path, text: str, keypoint_numbers: int = 0) -> Labels:
    file.write_text(text)
    labels = read_labels(file, 3, keypoint_numbers)
    assert labels is not None
    return labels


def test_boxes_blank_lines_float_ids_and_byte_order_mark(file: Path) -> None:
    labels = parse(file, "\ufeff0 0.5 0.5 0.2 0.4\n\n  2.0 0.1 0.2 0.2 0.1  \n")
    assert labels.class_ids.tolist() == [0, 2]
    assert labels.cxcywhn.tolist() == [[0.5, 0.5, 0.2, 0.4], [0.1, 0.2, 0.2, 0.1]]
    assert labels.problems == ()


def test_polygon_becomes_the_box_around_it(file: Path) -> None:
    labels = parse(file, "1 0.2 0.1 0.6 0.3 0.4 0.9\n0 0 0 0.5 0 0.5 0.5 0 0.5\n")
    np.testing.assert_allclose(labels.cxcywhn, [[0.4, 0.5, 0.4, 0.8], [0.25, 0.25, 0.5, 0.5]])
    assert labels.problems == ()


def test_pose_labels_lose_their_keypoints(file: Path) -> None:
    labels = parse(file, "0 0.5 0.5 0.2 0.4 0.1 0.1 2 0.2 0.2 0\n", keypoint_numbers=6)
    assert labels.cxcywhn.tolist() == [[0.5, 0.5, 0.2, 0.4]]


def test_empty_file_is_no_object_and_a_missing_one_is_none(file: Path) -> None:
    assert parse(file, "").cxcywhn.shape == (0, 4)
    file.unlink()
    assert read_labels(file, 3, 0) is None


@pytest.mark.parametrize("line", ["0 -0.01 0.5 0.2 0.2", "0 1.01 0.5 0.2 0.2", "0 0.5 0.5 1.005 1"])
def test_an_overshoot_of_one_hundredth_is_let_pass(file: Path, line: str) -> None:
    assert parse(file, line).problems == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5", f"a label line is {COLUMNS}, found 3 values; mend or delete the line"),
        (
            "0 0.5 0.5 0.2 0.2 0.9",
            f"a label line is {COLUMNS}, found 6 values, as where a prediction has its confidence at the "
            "end; mend or delete the line",
        ),
        ("0,0.5,0.5,0.2,0.2", f"a label line is {COLUMNS}, found 1 value between blanks; mend or delete the line"),
        ("0 0 0 1 0 1 1 0", f"a label line is {COLUMNS}, found 8 values; mend or delete the line"),
        ("0 0.5 half 0.2 0.2", "a label line is numbers, found 'half'; mend the line"),
        ("0 0.5 nan 0.2 0.2", "coordinates must be finite, found nan; mend or delete the line"),
        ("0 0.5 0.5 inf 0.2", "coordinates must be finite, found inf; mend or delete the line"),
        ("3 0.5 0.5 0.2 0.2", "unknown class id 3, the class names have ids 0 to 2; mend the id or add the name"),
        ("-1 0.5 0.5 0.2 0.2", "unknown class id -1, the class names have ids 0 to 2; mend the id or add the name"),
        ("0.5 0.5 0.5 0.2 0.2", "unknown class id 0.5, the class names have ids 0 to 2; mend the id or add the name"),
        ("nan 0.5 0.5 0.2 0.2", "unknown class id nan, the class names have ids 0 to 2; mend the id or add the name"),
        (
            "0 20 1.005 10 10",
            "coordinates are shares of the image in 0..1, found 20; divide pixels by its width and height",
        ),
        (
            "0 0.5 -0.02 0.2 0.2",
            "coordinates are shares of the image in 0..1, found -0.02; divide pixels by its width and height",
        ),
        (
            "0 0.5 0.5 -0.005 0.2",
            "coordinates are shares of the image in 0..1, found -0.005; divide pixels by its width and height",
        ),
    ],
)
def test_bad_line(file: Path, line: str, message: str) -> None:
    labels = parse(file, f"\n{line}\n")
    assert len(labels.class_ids) == 0
    assert [(found.severity, found.where, found.message) for found in labels.problems] == [
        ("error", f"{file}:2", message)
    ]


@pytest.mark.parametrize(
    "line",
    ["0 0.5 0.5 0 0.2", "0 0.5 0.5 0.2 0", "1 .2 .1 0.000000 0.000000", "0 -0.01 0.5 0.01 0.2", "0 1.01 0.5 0.01 0.2"],
)
def test_box_without_area_is_dropped_with_a_warning(file: Path, line: str) -> None:
    """A click, or a point of another tool: many tools write these, and `yolo train` accepts them."""
    labels = parse(file, f"2 0.5 0.5 0.2 0.2\n{line}\n")
    assert labels.class_ids.tolist() == [2]
    assert [(found.severity, found.where, found.message) for found in labels.problems] == [
        ("warning", f"{file}:2", "1 box has no area inside the image; dropped")
    ]


def test_boxes_without_area_are_counted_in_one_warning(file: Path) -> None:
    labels = parse(file, "0 0.5 0.1 0.5 0.2 0.5 0.3\n0 0.1 0.1 0.5 0.1 0.1 0.6\n0 0.2 0.2 0.2 0.2 0.2 0.2\n")
    assert len(labels.class_ids) == 1
    assert [found.message for found in labels.problems] == ["2 boxes have no area inside the image; dropped"]


def test_two_polygons_with_one_bounding_box_stay_two(file: Path) -> None:
    labels = parse(file, "0 .1 .1 .5 .1 .1 .6\n0 .5 .6 .5 .1 .1 .6\n0 0.1 0.10 .5 .1 .1 .6\n")
    np.testing.assert_allclose(labels.cxcywhn, [[0.3, 0.35, 0.4, 0.5]] * 2)
    assert [found.message for found in labels.problems] == ["1 duplicate line dropped; delete repeated lines"]


def test_lines_whose_id_is_the_number_of_classes_are_told_apart(file: Path) -> None:
    labels = parse(file, "3 0.5 0.5 0.2 0.2\n4 0.5 0.5 0.2 0.2\n3 0.5\n")
    assert [found.where for found in labels.problems] == [f"{file}:1", f"{file}:2", f"{file}:3"]
    assert labels.one_too_high == labels.problems[:1]


def test_every_bad_line_is_found_and_the_good_ones_stay(file: Path) -> None:
    labels = parse(file, "9 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\nx\n")
    assert [found.where for found in labels.problems] == [f"{file}:1", f"{file}:3"]
    assert labels.class_ids.tolist() == [0]


def test_repeated_lines_are_dropped_in_place_with_a_warning(file: Path) -> None:
    labels = parse(file, "1 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n1 0.50 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n")
    assert labels.class_ids.tolist() == [1, 0]
    assert [(found.severity, found.where, found.message) for found in labels.problems] == [
        ("warning", f"{file}:3", "2 duplicate lines dropped; delete repeated lines")
    ]


def test_boxes_and_polygons_in_one_file(file: Path) -> None:
    labels = parse(file, "0 0.5 0.5 0.2 0.2\n0 0 0 1 0 1 1\n")
    assert [(found.where, found.message) for found in labels.problems] == [
        (str(file), "mixes boxes and polygons, which `yolo train` drops; write one kind")
    ]


def test_binary_label_file(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    labels = read_labels(file, 3, 0)
    assert labels is not None
    assert labels.problems[0].message.startswith("cannot be read as UTF-8 text (")


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 0.5 0.2 0.4\n2 0.1 0.2 0.2 0.1\n",
        "1 0.2 0.1 0.6 0.3 0.4 0.9\n0 0 0 0.5 0 0.5 0.5 0 0.5\n",
        "1 -0.2 0.1 0.6 0.3 0.4 0.9\n",
        "0 -0.01 0.5 0.2 0.2\n0 1.01 0.5 0.2 0.2\n",
        "0 -0.02 0.5 0.2 0.2\n",
        "0 0.5 0.5 1.02 0.2\n",
        "0 0.5 0.5 -0.005 0.2\n",
        "3 0.5 0.5 0.2 0.2\n",
        "0.5 0.5 0.5 0.2 0.2\n",
        "0 0.5 0.5\n",
        "0 0.5 0.5 0.2 0.2 0.9\n",
        "0 0.5 0.5 0.2 0.2\n0 0 0 1 0 1 1\n",
        "0 0.5 nan 0.2 0.2\n",
        "",
        "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n",
        "0 .1 .1 .5 .1 .1 .6\n0 .5 .6 .5 .1 .1 .6\n",
        "0 .1 .1 .5 .1 .1 .6\n0 .5 .6 .5 .1 .1 .6\n1 .1 .1 .5 .1 .1 .6\n0 .1 .1 .5 .1 .1 .6\n",
        "0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0 0\n",
        "0 1.005 0.5 0.01 0.2\n",
    ],
)
def test_ultralytics_accepts_and_reads_the_same(file: Path, tmp_path: Path, text: str) -> None:
    from mocha_pipe.student.environment import prepare_environment

    prepare_environment()
    from ultralytics.data.utils import verify_image_label

    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    ours = parse(file, text)
    theirs = verify_image_label((str(tmp_path / "a.png"), str(file), "", False, 3, 0, 0, False))
    assert (theirs[1] is not None) == (not any(found.severity == "error" for found in ours.problems))
    if theirs[1] is not None:
        rows = np.column_stack([ours.class_ids, ours.cxcywhn])
        cx, _, w, h = theirs[1][:, 1:].T.astype(np.float64)
        has_area = (np.minimum(cx + w / 2, 1) - np.maximum(cx - w / 2, 0) > 1e-7) & (h > 0)
        assert len(rows) == has_area.sum()
        np.testing.assert_allclose(np.sort(rows, axis=0), np.sort(theirs[1][has_area], axis=0), atol=1e-6)


def test_a_long_word_is_told_in_short(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for word in ("1" * 400, "x" * 400):
        file.write_text(f"{word} 0.5 0.5 0.1 0.1\n")
        labels = read_labels(file, 2, 0)
        assert labels is not None
        assert len(labels.problems[0].message) < 200
