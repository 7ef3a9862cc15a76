"""Pictures that are there more than once, by their content."""

import shutil
from collections.abc import Callable
from pathlib import Path

from mocha_pipe.data.checking.check import check_dataset

Make = Callable[..., Path]
LINE = "0 0.5 0.5 0.5 0.5\n"
TWO = "1 0.25 0.5 0.5 1\n0 0.5 0.5 1 1\n"


def copy(data: Path, name: str, other: str, labels: str | None) -> None:
    """The picture `name` once more as `other`, with these labels."""
    for folder in ("images", "labels"):
        (data.parent / folder / other).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(data.parent / "images" / name, data.parent / "images" / other)
    if labels is not None:
        (data.parent / "labels" / other).with_suffix(".txt").write_text(labels)


def warnings(data: Path) -> list[str]:
    return [f"{found.where}: {found.message}" for split in check_dataset(data) for found in split.problems]


def test_the_same_picture_with_other_boxes_is_a_warning(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": TWO, "train/z.jpg": LINE, "val/v.jpg": LINE}, {"val": "images/val"})
    copy(data, "train/a.jpg", "train/b.jpg", "")
    copy(data, "train/a.jpg", "train/c.jpg", LINE)
    root = data.parent
    assert warnings(data) == [
        f"{root}/images/train/b.jpg: 2 pictures are there twice with other boxes, such as {root}/images/train/a.jpg; "
        "keep one of each"
    ]


def test_the_same_picture_with_the_same_boxes_in_another_order_is_none(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": TWO, "val/v.jpg": LINE}, {"val": "images/val"})
    copy(data, "train/a.jpg", "train/b.jpg", "".join(reversed(TWO.splitlines(keepends=True))))
    assert warnings(data) == []


def test_validation_pictures_that_are_training_pictures_are_a_warning(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": LINE, "train/b.jpg": LINE, "val/v.jpg": LINE}, {"val": "images/val"})
    copy(data, "train/a.jpg", "val/w.jpg", LINE)
    root = data.parent
    assert warnings(data) == [
        f"{root}/images/val/w.jpg: 1 picture is in 'train' too, such as {root}/images/train/a.jpg; figures say little "
        "where they were measured on both"
    ]
    data.write_text(data.read_text().replace("images/val", "images/train"))
    ((line),) = warnings(data)
    assert line.startswith(f"{root}/images/train/a.jpg: 2 pictures are in 'train' too, such as")
