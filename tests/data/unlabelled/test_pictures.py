"""Pictures of folders and data sets: every content once, in an order that names do not decide."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.files import file_digest
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.types import Problem
from mocha_pipe.data.unlabelled.pictures import Look, Picture, find_pictures, look_at

WriteImage = Callable[..., Path]
Make = Callable[..., Path]


def digests(*places: Path) -> list[str]:
    return [each.digest for each in find_pictures(places).pictures]


def test_a_folder_with_all_its_subfolders(folder: Path, write_image: WriteImage) -> None:
    write_image(folder / ".hidden.jpg", seed=9)
    (folder / "notes.txt").write_text("no picture")
    found = find_pictures([folder])
    assert [each.digest for each in found.pictures] == sorted(
        file_digest(folder / name) for name in ("b.jpg", "a.png", "deep/c.JPG", "deep/er/d.webp")
    )
    assert (found.duplicates, found.problems, found.class_names) == (0, (), ())
    assert all((each.split, each.classes, len(each.xyxy)) == (None, (), 0) for each in found.pictures)


def test_one_picture_may_be_named(folder: Path) -> None:
    assert digests(folder / "b.jpg") == [file_digest(folder / "b.jpg")]


def test_equal_content_counts_once_and_names_do_not_matter(folder: Path, tmp_path: Path) -> None:
    before = digests(folder)
    shutil.copy(folder / "b.jpg", folder / "deep/again.jpg")
    (folder / "a.png").rename(folder / "zz.png")
    found = find_pictures([folder, folder / "deep"])
    assert [each.digest for each in found.pictures] == before
    assert found.duplicates == 4, "one copy, and three that the second folder holds again"


def test_what_cannot_be_read_is_a_problem_and_the_rest_goes_on(folder: Path) -> None:
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    found = find_pictures([folder])
    assert len(found.pictures) == 4
    (problem,) = found.problems
    assert problem.where == str(folder / "gone.jpg")
    assert problem.message == "no such image; put the file there or remove it from the data set"
    assert found.duplicates == 0


def test_a_data_set_brings_boxes_classes_and_splits(make_yolo: Make, folder: Path) -> None:
    data = make_yolo(
        {"train/a.jpg": "1 0.5 0.5 0.5 0.5\n", "val/e.jpg": "0 0.5 0.5 1 1\n2 0.5 0.5 0.2 0.2\n"},
        {"val": "images/val"},
    )
    found = find_pictures([folder, data])
    assert len(found.pictures) == 6
    assert found.class_names == ("ball", "mug", "star")
    of_set = {each.split: each for each in found.pictures if each.split}
    assert of_set["train"].classes == ("mug",)
    assert of_set["train"].xyxy.tolist() == [[10, 5, 30, 15]]
    assert of_set["val"].classes == ("ball", "star")


def test_of_a_picture_in_a_folder_and_a_data_set_the_latter_counts(make_yolo: Make) -> None:
    data = make_yolo()
    found = find_pictures([data.parent / "images", data])
    assert [each.split for each in found.pictures] == ["train", "train"]
    assert found.duplicates == 4, "the folder's two, and val, which names the images of train"


def test_a_single_split_leaves_the_splits_to_the_digests(make_yolo: Make, make_coco: Make) -> None:
    only_train = make_yolo(keys={"val": None})
    assert {each.split for each in find_pictures([only_train]).pictures} == {None}
    coco = find_pictures([make_coco()])
    assert {each.split for each in coco.pictures} == {None}
    assert sorted(coco.class_names) == ["ball", "mug"]


def test_packed_shards_are_a_data_set(make_yolo: Make, tmp_path: Path) -> None:
    data = make_yolo()
    pack(data, tmp_path / "shards")
    packed = find_pictures([tmp_path / "shards/dataset.json"])
    assert [each.digest for each in packed.pictures] == digests(data)
    assert look_at(packed.pictures[0]) == Look(width=40, height=20, sound=True)


def test_a_place_must_be_there_and_hold_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError) as refused:
        find_pictures([tmp_path / "empty"])
    assert str(refused.value) == (
        f"{tmp_path}/empty: must hold pictures (.jpg, .png, .webp and so on), found none; name a folder of pictures, "
        "or the data.yaml of a data set"
    )
    with pytest.raises(DatasetNotFoundError, match="nowhere: no such file"):
        find_pictures([tmp_path / "nowhere"])


def look(file: Path) -> Look | Problem:
    (picture,) = find_pictures([file]).pictures
    assert isinstance(picture, Picture)
    return look_at(picture)


def test_looking_decodes_and_tells_the_upright_size(tmp_path: Path, write_image: WriteImage) -> None:
    assert look(write_image(tmp_path / "a.jpg", 40, 20, orientation=6)) == Look(width=20, height=40, sound=True)


def test_bytes_after_a_jpeg_make_it_one_that_training_would_rewrite(tmp_path: Path, write_image: WriteImage) -> None:
    file = write_image(tmp_path / "a.jpg")
    file.write_bytes(file.read_bytes() + b"more")
    assert look(file) == Look(width=40, height=20, sound=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "cannot be read as an image (no known image format); replace or remove the file"),
        (None, "an image must be at least 10 x 10 pixels, found 40 x 5; remove it"),
    ],
)
def test_what_cannot_be_learnt_from_is_a_problem(
    tmp_path: Path, write_image: WriteImage, content: bytes | None, message: str
) -> None:
    file = write_image(tmp_path / "a.png", 40, 5)
    if content is not None:
        file.write_bytes(content)
    problem = look(file)
    assert isinstance(problem, Problem)
    assert (problem.where, problem.message) == (str(file), message)


def test_a_picture_that_is_cut_short_is_a_problem(tmp_path: Path, write_image: WriteImage) -> None:
    file = write_image(tmp_path / "a.png", 200, 200)
    file.write_bytes(file.read_bytes()[:5000])
    assert isinstance(look(file), Problem)
