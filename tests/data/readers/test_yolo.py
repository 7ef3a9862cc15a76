from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.readers.yolo import label_path
from mocha_pipe.data.source import open_source, read_split, splits_of

Make = Callable[..., Path]
Problems = Callable[..., list[tuple[str, str, str]]]
Refusal = Callable[..., str]
LINE = "0 0.5 0.5 0.5 0.5\n"


def names(data: Path, split: str = "train") -> list[str]:
    return [record.name for record in open_source(data, split).records]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/images/a.b.png", "/images/labels/a.b.txt"),
        ("/d/train/images.jpg", "/d/train/images.txt"),
        ("/d/photos/a.jpg", "/d/photos/a.txt"),
    ],
)
def test_label_path_changes_the_last_images_folder(image: str, label: str) -> None:
    assert label_path(Path(image)) == Path(label)


def test_a_split_is_a_folder_a_list_file_or_a_list_of_those(make_yolo: Make) -> None:
    data = make_yolo(
        {"train/a.jpg": LINE, "train/deep/b.JPG": LINE, "more/c.png": LINE},
        {"val": ["more.txt", "images/train/deep"], "test": "more.txt"},
    )
    (data.parent / "more.txt").write_text("./images/more/c.png\n\n./readme.md\n")
    assert names(data, "train") == ["images/train/a.jpg", "images/train/deep/b.JPG"]
    assert names(data, "val") == ["images/more/c.png", "images/train/deep/b.JPG"]
    assert names(data, "test") == ["images/more/c.png"]


def test_list_entries_are_absolute_or_from_the_list_or_from_the_working_folder(
    make_yolo: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_yolo({f"train/{stem}.jpg": LINE for stem in "abc"}, {"train": "lists/train.txt"})
    (data.parent / "lists").mkdir()
    (data.parent / "lists" / "train.txt").write_text(
        f"\ufeff{data.parent}/images/train/a.jpg\n./../images/train/b.jpg\nimages/train/c.jpg\n"
    )
    monkeypatch.chdir(data.parent)
    assert names(data) == [f"images/train/{stem}.jpg" for stem in "abc"]


def test_hidden_files_are_no_images(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": LINE, "train/.b.jpg": LINE, "train/.trash/c.jpg": LINE})
    assert names(data) == ["images/train/a.jpg"]


def test_boxes_stand_in_the_upright_image(make_yolo: Make, write_image: Make) -> None:
    data = make_yolo({"train/a.jpg": "0 0.5 0.25 0.5 0.5\n"})
    write_image(data.parent / "images/train/a.jpg", 40, 20, orientation=6)
    record = open_source(data).records[0]
    assert (record.width, record.height) == (20, 40)
    np.testing.assert_allclose(record.xyxy, [[5, 0, 15, 20]])


def test_pose_data_set_gives_its_boxes(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "0 0.5 0.5 0.5 0.5 0.1 0.2 2\n"}, {"kpt_shape": [1, 3]})
    np.testing.assert_allclose(open_source(data).records[0].xyxy, [[10, 5, 30, 15]])


def test_boxes_are_clipped_to_the_image(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "0 0.1 0.5 0.4 1.01\n"})
    np.testing.assert_allclose(open_source(data).records[0].xyxy, [[0, 0, 12, 20]])


def test_one_stem_in_two_folders_is_two_images(make_yolo: Make) -> None:
    data = make_yolo(
        {"train/cats/0001.jpg": "0 0.5 0.5 0.5 0.5\n", "train/dogs/0001.jpg": "1 0.25 0.5 0.5 1\n2 0.5 0.5 1 1\n"}
    )
    first, second = open_source(data).records
    assert (first.name, second.name) == ("images/train/cats/0001.jpg", "images/train/dogs/0001.jpg")
    assert (first.class_ids.tolist(), second.class_ids.tolist()) == ([0], [1, 2])
    np.testing.assert_allclose(first.xyxy, [[10, 5, 30, 15]])
    np.testing.assert_allclose(second.xyxy, [[0, 0, 20, 20], [0, 0, 40, 20]])


def test_two_images_that_share_a_label_file(make_yolo: Make, problems_of: Problems) -> None:
    data = make_yolo({"train/a.jpg": LINE, "train/a.png": LINE})
    label = f"{data.parent}/labels/train/a.txt"
    assert problems_of(data) == [
        ("warning", label, "is the label file of both a.jpg and a.png, and each has its boxes")
    ]
    assert [len(record.class_ids) for record in open_source(data).records] == [1, 1]


def test_images_without_label_file_are_background_with_one_warning(make_yolo: Make, problems_of: Problems) -> None:
    data = make_yolo({"train/a.jpg": LINE, "train/b.jpg": None, "train/c.jpg": None, "train/d.jpg": ""})
    root = data.parent
    assert problems_of(data) == [
        (
            "warning",
            f"{data}: train",
            "2 of 4 images have no label file and count as background, the first is "
            f"{root}/images/train/b.jpg (looked for {root}/labels/train/b.txt)",
        )
    ]
    assert [len(record.class_ids) for record in open_source(data).records] == [1, 0, 0, 0]


def test_no_label_file_at_all_is_an_error(make_yolo: Make, refusal: Refusal) -> None:
    data = make_yolo({"train/a.jpg": None, "train/b.jpg": None})
    assert refusal(data, error=DatasetError) == (
        f"{data}: train: no image has a label file, looked in {data.parent}/labels/train (for a.txt and so on); "
        "put the labels there"
    )


def test_all_problems_of_a_split_are_collected(make_yolo: Make, problems_of: Problems) -> None:
    data = make_yolo(
        {"train/a.jpg": "7 0 0 0 0\n", "train/b.jpg": LINE, "train/c.jpg": LINE, "train/d.jpg": "0 2 0 0 0\n"}
    )
    (data.parent / "images/train/b.jpg").write_bytes(b"")
    truncated = data.parent / "images/train/c.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-50])
    assert [(severity, where.removeprefix(f"{data.parent}/")) for severity, where, _ in problems_of(data)] == [
        ("error", "labels/train/a.txt:1"),
        ("error", "images/train/b.jpg"),
        ("error", "images/train/c.jpg"),
        ("error", "labels/train/d.txt:1"),
    ]


def test_image_listed_twice_is_used_once(make_yolo: Make, problems_of: Problems) -> None:
    data = make_yolo({"train/a.jpg": LINE}, {"train": ["images/train", "images"]})
    assert names(data) == ["images/train/a.jpg"]
    assert problems_of(data) == [
        ("warning", f"{data}: train", "1 image is listed more than once and used once, the first is images/train/a.jpg")
    ]


def test_path_holds_images_of_two_folders(make_yolo: Make, tmp_path: Path) -> None:
    first = make_yolo({"a.jpg": LINE}, root=tmp_path / "one")
    make_yolo({"b.jpg": LINE}, root=tmp_path / "two")
    first.write_text(f"path: ..\ntrain: [one/images, {tmp_path}/two/images]\nnames: [ball]\n")
    assert names(first) == ["one/images/a.jpg", "two/images/b.jpg"]


def test_boxes_of_an_unreadable_image_are_shares_of_a_pixel(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "0 0.5 0.5 0.5 0.25\n2 0.25 0.5 0.5 1\n", "train/b.jpg": LINE})
    (data.parent / "images/train/a.jpg").write_bytes(b"none")
    reading = read_split(data, "train")
    record = reading.records[0]
    assert (record.readable, record.width, record.height, record.class_ids.tolist()) == (False, 1, 1, [0, 2])
    np.testing.assert_allclose(record.xyxy, [[0.25, 0.375, 0.75, 0.625], [0, 0, 0.5, 1]])
    (problem,) = reading.problems
    assert (problem.severity, problem.unreadable) == ("error", True)


def test_labels_of_an_unreadable_image_are_checked_too(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "7 0.5 0.5 0.5 0.5\n", "train/b.jpg": LINE})
    (data.parent / "images/train/a.jpg").write_bytes(b"none")
    with pytest.raises(DatasetError, match=r"a\.txt:1: unknown class id 7"):
        open_source(data, keep_unreadable=True)


@pytest.mark.parametrize("ids", ["1 2 3", "1 3 3", "3 3 3"])
def test_ids_that_count_from_one_are_recognised(make_yolo: Make, problems_of: Problems, ids: str) -> None:
    """Sahi and pylabel write COCO's ids, 1 to n, beside n names."""
    first, second, third = ids.split()
    box = " 0.5 0.5 0.5 0.5\n"
    data = make_yolo({"train/a.jpg": first + box, "train/b.jpg": second + box + third + " 0.1 0.1 0.2 0.2\n"})
    ((severity, where, message),) = problems_of(data)
    count = ids.count("3")
    lines = f"{count} lines have" if count > 1 else "1 line has"
    place = "a.txt:1" if first == "3" else "b.txt:1" if second == "3" else "b.txt:2"
    assert (severity, where, message) == (
        "error",
        f"{data}: train",
        f"class ids count from 0, and these seem to count from 1: {lines} class id 3 and none has 0, the first is "
        f"{data.parent}/labels/train/{place}; subtract 1 from every id, or put a name that nothing has before the "
        "others in 'names:'",
    )


@pytest.mark.parametrize("remedy", ["subtract", "name"])
def test_both_remedies_for_ids_that_count_from_one_help(make_yolo: Make, remedy: str) -> None:
    ids = "012" if remedy == "subtract" else "123"
    names = ["ball", "mug", "star"] if remedy == "subtract" else ["nothing", "ball", "mug", "star"]
    data = make_yolo({f"train/{number}.jpg": f"{number} 0.5 0.5 0.5 0.5\n" for number in ids}, {"names": names})
    source = open_source(data)
    assert [source.class_names[record.class_ids[0]] for record in source.records] == ["ball", "mug", "star"]


def test_ids_with_a_zero_among_them_do_not_count_from_one(make_yolo: Make, problems_of: Problems) -> None:
    data = make_yolo({"train/a.jpg": LINE, "train/b.jpg": "3 0.5 0.5 0.5 0.5\n"})
    message = "unknown class id 3, the class names have ids 0 to 2; mend the id or add the name"
    assert problems_of(data) == [("error", f"{data.parent}/labels/train/b.txt:1", message)]


def test_missing_names(make_yolo: Make, refusal: Refusal) -> None:
    data = make_yolo(keys={"names": None})
    assert refusal(data, error=DatasetError) == (
        f"{data}: key 'names:' is missing; add 'names: [first class, second class]' in the order of the ids"
    )


def test_empty_split(make_yolo: Make, refusal: Refusal) -> None:
    data = make_yolo()
    (data.parent / "images" / "none").mkdir()
    data.write_text("train: images/none\nnames: [ball]\n")
    assert refusal(data, error=DatasetError) == (
        f"{data}: split 'train' is empty, no image in {data.parent}/images/none; put images there or mend 'train:'"
    )


def test_list_file_that_is_no_text(make_yolo: Make, refusal: Refusal) -> None:
    data = make_yolo(keys={"train": "images/train/a.jpg"})
    assert refusal(data, error=DatasetError) == (
        f"{data.parent}/images/train/a.jpg: is no list of image paths in UTF-8; name a folder or a .txt list"
    )


def test_yaml_without_split(make_yolo: Make) -> None:
    data = make_yolo(keys={"train": None, "val": None})
    with pytest.raises(DatasetError) as caught:
        splits_of(data)
    assert str(caught.value) == f"{data}: names no split; add 'train: images/train' and 'val: images/val'"


def test_lines_that_were_written_as_corners(make_yolo: Make, problems_of: Problems) -> None:
    corners = [(0.1, 0.1, 0.5, 0.6), (0.2, 0.3, 0.6, 0.9), (0, 0, 1, 1), (0.2, 0.2, 0.3, 0.5), (0.7, 0.6, 0.9, 0.95)]
    data = make_yolo({"train/a.jpg": "".join(f"0 {x1} {y1} {x2} {y2}\n" for x1, y1, x2, y2 in corners)})
    read = "in all 5 lines the last two numbers exceed the two before, and as width and height some leave the image"
    told = f"boxes seem to be corners x1 y1 x2 y2: {read}"
    remedy = "a label line is class x_center y_center width height, export the labels again"
    assert problems_of(data) == [("warning", f"{data}: train", f"{told}; {remedy}")]
    rows = [((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners]
    text = "".join("0 {} {} {} {}\n".format(*row) for row in rows)
    assert problems_of(make_yolo({"train/a.jpg": text})) == []


@pytest.mark.parametrize("other", ["images/train/a.json", "labels/train/a.xml"])
def test_labels_of_another_format_are_named(make_yolo: Make, refusal: Refusal, other: str) -> None:
    data = make_yolo({"train/a.jpg": None, "train/b.jpg": None})
    file = data.parent / other
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    assert refusal(data, error=DatasetError).endswith(f"; {file} is a label of another format, export it as YOLO")
