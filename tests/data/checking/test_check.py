import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.checking.check import SplitReport, check_dataset
from mocha_pipe.data.errors import DatasetNotFoundError
from mocha_pipe.data.types import Problem

Make = Callable[..., Path]
LABELS = {
    "train/a.jpg": "0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.1 0.2\n1 0.25 0.5 0.1 0.2\n",
    "train/b.jpg": "",
    "val/c.png": "2 0.5 0.5 1 1\n",
}


def errors(splits: tuple[SplitReport, ...]) -> list[Problem]:
    return [problem for split in splits for problem in split.problems if problem.severity == "error"]


def test_sound_data_set(make_yolo: Make) -> None:
    splits = check_dataset(make_yolo(LABELS, {"val": "images/val"}))
    assert errors(splits) == []
    train, val = splits
    assert (train.split, train.images, train.background_images, train.regions) == ("train", 2, 1, 2)
    assert train.regions_per_class == {"ball": 1, "mug": 1, "star": 0}
    assert train.smallest_box == pytest.approx(4)
    assert train.largest_box == pytest.approx(200**0.5)
    assert [problem.severity for problem in train.problems] == ["warning"]
    assert (val.split, val.images, val.regions, val.problems) == ("val", 1, 1, ())


def test_every_image_is_decoded(make_yolo: Make) -> None:
    data = make_yolo(LABELS, {"val": "images/val"})
    image = data.parent / "images/val/c.png"
    image.write_bytes(image.read_bytes()[:-600])
    (problem,) = errors(check_dataset(data))
    assert problem.where == str(image)
    assert problem.message.startswith("cannot be read as an image (")


def test_an_unreadable_image_is_listed_once_and_not_counted(make_yolo: Make) -> None:
    data = make_yolo(LABELS, {"val": "images/val"})
    image = data.parent / "images/train/a.jpg"
    image.write_bytes(b"none")
    splits = check_dataset(data)
    (problem,) = errors(splits)
    assert (problem.where, problem.severity) == (str(image), "error")
    assert problem.message == "cannot be read as an image (no known image format); replace or remove the file"
    train = splits[0]
    assert (train.images, train.background_images, train.regions) == (1, 1, 0)
    assert train.regions_per_class == {"ball": 0, "mug": 0, "star": 0}
    assert train.smallest_box is None


def test_an_unreadable_image_of_a_coco_set_is_listed_once(make_coco: Make) -> None:
    file = make_coco()
    image = file.parents[1] / "train" / "a.jpg"
    image.write_bytes(b"none")
    splits = check_dataset(file)
    assert [problem.where for problem in errors(splits)] == [str(image)]
    assert (splits[0].images, splits[0].regions) == (1, 1)


def test_images_that_cannot_be_reached_are_listed(make_yolo: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_yolo(LABELS, {"val": "images/val"})

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("mocha_pipe.data.images._open_image", fail)
    message = "cannot be reached (Input/output error); bring the disk back and run the same command again"
    assert [problem.message for problem in errors(check_dataset(data))] == [message] * 3


def test_a_split_that_cannot_be_read_is_listed_beside_the_others(make_yolo: Make) -> None:
    data = make_yolo(LABELS, {"val": "images/nowhere"})
    train, val = check_dataset(data)
    assert (train.images, train.regions) == (2, 2)
    assert (val.images, val.regions, val.smallest_box, val.largest_box) == (0, 0, None, None)
    assert [(problem.where, problem.message) for problem in val.problems] == [
        (
            str(data),
            f"'val: images/nowhere' is not there, looked for {data.parent}/images/nowhere; mend 'val:' or 'path:'",
        )
    ]


def test_coco(make_coco: Make) -> None:
    (split,) = check_dataset(make_coco())
    assert (split.split, split.images, split.regions, split.regions_per_class) == (
        "train",
        2,
        3,
        {"ball": 2, "mug": 1},
    )


def warnings(splits: tuple[SplitReport, ...]) -> list[tuple[str, str]]:
    return [(found.where, found.message) for split in splits for found in split.problems]


def test_a_test_split_that_is_not_there_is_a_warning(make_yolo: Make) -> None:
    """Roboflow names one in every data.yaml; `yolo train` does not look at it."""
    data = make_yolo(LABELS, {"val": "images/val", "test": "../test/images"})
    splits = check_dataset(data)
    assert errors(splits) == []
    (problem,) = splits[2].problems
    assert problem.message == (
        f"'test: ../test/images' is not there, looked for {data.parent}/test/images; mend 'test:' or 'path:'; only a "
        "benchmark looks at 'test:'"
    )


def test_a_broken_test_split_is_an_error(make_yolo: Make) -> None:
    data = make_yolo(LABELS, {"val": "images/val", "test": "images"})
    (data.parent / "labels/val/c.txt").write_text("9 0.5 0.5 1 1\n")
    assert {problem.where for problem in errors(check_dataset(data))} == {f"{data.parent}/labels/val/c.txt:1"}


def test_no_box_of_the_first_class_is_a_warning(make_yolo: Make) -> None:
    data = make_yolo(
        {"train/a.jpg": "1 0.5 0.5 0.5 0.5\n2 0.5 0.5 1 1\n", "val/b.jpg": "1 0.5 0.5 1 1\n"}, {"val": "images/val"}
    )
    assert warnings(check_dataset(data)) == [
        (
            str(data),
            "no box has class id 0, which is 'ball'; if the labels count their classes from 1, subtract 1 from every "
            "id",
        )
    ]
    (data.parent / "labels/val/b.txt").write_text("0 0.5 0.5 1 1\n")
    assert warnings(check_dataset(data)) == []


def test_a_data_yaml_without_val_is_told(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "0 0.5 0.5 0.5 0.5\n1 0.2 0.2 0.1 0.1\n"}, {})
    data.write_text("\n".join(line for line in data.read_text().splitlines() if not line.startswith("val:")))
    assert warnings(check_dataset(data)) == [
        (
            str(data),
            "there is no split 'val', which a training is measured on; add 'val: images/val', or name another: distill "
            "--val OTHER.json",
        )
    ]


def test_one_region_is_too_few(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "0 0.5 0.5 0.5 0.5\n", "val/b.jpg": ""}, {"val": "images/val"})
    message = (str(data), "a teacher cache needs 2 or more different regions, train has 1; draw more boxes")
    assert warnings(check_dataset(data)) == [message]
    for folder, suffix in (("images", ".jpg"), ("labels", ".txt")):  # a copy is no other region
        shutil.copy(data.parent / folder / f"train/a{suffix}", data.parent / folder / f"train/z{suffix}")
    assert warnings(check_dataset(data)) == [message]


def test_no_box_at_all_is_said(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": "", "val/b.jpg": "0 0.5 0.5 0.5 0.5\n"}, {"val": "images/val"})
    message = (str(data), "a teacher cache needs 2 or more different regions, train has none; draw more boxes")
    assert warnings(check_dataset(data)) == [message]
    (data.parent / "labels/train/a.txt").write_text("9 0.5 0.5 0.5 0.5\n")  # there is another reason
    assert message not in warnings(check_dataset(data))


def test_what_training_cannot_decode_is_refused(make_yolo: Make) -> None:
    data = make_yolo({**LABELS, "train/f.tif": "0 0.5 0.5 1 1\n"}, {"val": "images/val"})
    Image.fromarray(np.full((20, 40), 0.5, np.float32)).save(data.parent / "images/train/f.tif")
    (problem,) = errors(check_dataset(data))
    assert problem.message == (
        "a picture has 8 or 16 bits per channel, found floating-point numbers; save it as PNG or JPEG"
    )


def test_a_name_that_is_no_utf8_can_be_printed(make_yolo: Make) -> None:
    data = make_yolo(LABELS, {"val": "images/val"})
    name = data.parent / "images/train" / os.fsdecode(b"caf\xe9.jpg")
    (data.parent / "images/train/b.jpg").rename(name)
    name.write_bytes(b"none")
    (problem,) = errors(check_dataset(data))
    assert problem.where == f"{data.parent}/images/train/caf\\xe9.jpg"
    assert problem.message == "cannot be read as an image (no known image format); replace or remove the file"


def test_file_that_is_not_there_is_raised(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"data\.yaml: no such file; pass the data\.yaml"):
        check_dataset(tmp_path / "data.yaml")
