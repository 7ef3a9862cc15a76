"""Where the pictures of a COCO json are found, as tools lay them out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.source import open_source

Make = Callable[..., Path]
Problems = Callable[..., list[tuple[str, str, str]]]
Refusal = Callable[..., str]


@pytest.mark.parametrize(
    ("json_name", "folder"),
    [
        ("labels.json", "data"),  # FiftyOne
        ("result.json", "images"),  # Label Studio
        ("train/_annotations.coco.json", "train"),  # Roboflow
        ("annotations/instances_default.json", "images/default"),  # CVAT
        ("annotations/instances_train.json", "images/train"),  # Datumaro
        ("annotations/train.json", "train"),  # MMDetection
        ("annotations/train_annotations.json", "images/train"),
        ("train.json", "images/train"),
        ("train.json", "train"),
        ("annotations/instances.json", "img"),  # Supervisely
        ("boxes.json", "my photos"),
        ("a/b/boxes.json", "a/photos"),
    ],
)
def test_layouts_of_tools(make_coco: Make, json_name: str, folder: str) -> None:
    made = make_coco(write=(f"{folder}/a.jpg", f"{folder}/b.jpg"))
    file = made.parents[1] / json_name
    file.parent.mkdir(parents=True, exist_ok=True)
    made.rename(file)
    source = open_source(file)
    assert source.root == (made.parents[1] / folder).resolve()
    assert (source.num_regions, source.problems) == (3, ())


def test_several_folders_that_none_of_the_layouts_knows(make_coco: Make, refusal: Refusal) -> None:
    file = make_coco(write=("one/a.jpg", "two/a.jpg"))
    root = file.parents[1]
    assert refusal(file, error=DatasetError) == (
        f"{file}: pictures of this json lie in {root}/one and in {root}/two; put the json beside its own"
    )


def names(first: str, second: str) -> list[dict[str, object]]:
    return [{"id": 7, "file_name": first}, {"id": 3, "file_name": second}]


@pytest.mark.parametrize(
    "prefix",
    [
        "../media/upload/1/",
        "/data/local-files/?d=x/",
        "http://host/1/",
        "s3://bucket/x/",
        r"C:\Users\me\x" + "\\",
        "gone/",
    ],
)
def test_names_that_lead_elsewhere(make_coco: Make, problems_of: Problems, prefix: str) -> None:
    file = make_coco(write=("images/a.jpg", "images/b.jpg"), images=names(f"{prefix}a.jpg", f"{prefix}b.jpg"))
    ((severity, where, message),) = problems_of(file)
    assert (severity, where) == ("warning", str(file))
    assert message.startswith("file_name leads elsewhere, such as '")
    assert message.endswith(f"; taken for 'a.jpg' in {file.parents[1]}/images")
    assert [record.name for record in open_source(file).records] == ["a.jpg", "b.jpg"]


def test_parts_that_tell_the_pictures_apart_are_kept(make_coco: Make) -> None:
    write = ("images/x/a.jpg", "images/y/a.jpg")
    file = make_coco(write=write, images=names("/gone/set/x/a.jpg", "/gone/set/y/a.jpg"))
    source = open_source(file)
    assert [record.name for record in source.records] == ["x/a.jpg", "y/a.jpg"]
    assert [len(record.class_ids) for record in source.records] == [2, 1]


def test_last_parts_that_are_equal_are_not_guessed(make_coco: Make, refusal: Refusal) -> None:
    file = make_coco(write=("images/a.jpg",), images=names("/gone/x/a.jpg", "/gone/y/a.jpg"))
    assert "none of 2 images found, such as '/gone/x/a.jpg', looked in" in refusal(file, error=DatasetNotFoundError)


def test_absolute_paths_that_exist(make_coco: Make, tmp_path: Path, write_image: Make) -> None:
    for seed, name in enumerate(("x/a.jpg", "b.jpg")):
        write_image(tmp_path / "elsewhere" / name, seed=seed)
    folder = (tmp_path / "elsewhere").resolve()
    source = open_source(make_coco(write=(), images=names(f"{folder}/x/a.jpg", f"{folder}/b.jpg")))
    assert source.root == folder
    assert [record.name for record in source.records] == ["b.jpg", "x/a.jpg"]
    assert source.problems == ()


def test_an_absolute_path_that_does_not_exist(
    make_coco: Make, tmp_path: Path, write_image: Make, problems_of: Problems
) -> None:
    folder = write_image(tmp_path / "elsewhere" / "a.jpg").parent
    file = make_coco(write=(), images=names(f"{folder}/a.jpg", "/gone/b.jpg"))
    assert problems_of(file) == [
        (
            "error",
            str(file),
            "1 of 2 images are missing, the first is '/gone/b.jpg', while others have absolute paths; put them there",
        )
    ]


def test_names_of_windows(make_coco: Make) -> None:
    file = make_coco(write=("train/x/a.jpg", "train/x/b.jpg"), images=names(r"x\a.jpg", r".\x\b.jpg"))
    assert [record.name for record in open_source(file).records] == ["x/a.jpg", "x/b.jpg"]


def test_lvis_has_urls(make_coco: Make) -> None:
    url = "http://images.cocodataset.org/train2017/"
    images = [{"id": 7, "coco_url": f"{url}a.jpg"}, {"id": 3, "coco_url": f"{url}b.jpg"}]
    file = make_coco(write=("train2017/a.jpg", "train2017/b.jpg"), images=images)
    assert [record.name for record in open_source(file).records] == ["train2017/a.jpg", "train2017/b.jpg"]


def test_reading_does_not_need_the_other_folders(make_coco: Make) -> None:
    file = make_coco()
    content = json.loads(file.read_text())
    locked = file.parents[1] / "locked"
    locked.mkdir(mode=0)
    try:
        assert open_source(make_coco(**content)).num_regions == 3
    finally:
        locked.chmod(0o700)


URL = "https://me:pass@host/bucket/{}?X-Amz-Signature=secret"


def with_names(make_coco: Make, first: str, second: str, **more: Any) -> Path:
    return make_coco(images=[{"id": 7, "file_name": first}, {"id": 3, "file_name": second}], **more)


def test_urls_whose_pictures_are_here(make_coco: Make, problems_of: Problems) -> None:
    file = with_names(make_coco, URL.format("a.jpg"), URL.format("sub%20folder/b.jpg"))
    assert [record.name for record in open_source(file).records] == ["a.jpg", "b.jpg"]
    ((_, _, message),) = problems_of(file)
    assert message == (
        f"file_name leads elsewhere, such as 'host/bucket/a.jpg'; taken for 'a.jpg' in {file.parents[1] / 'train'}"
    )


def test_urls_whose_pictures_are_not_here(make_coco: Make, problems_of: Problems) -> None:
    file = with_names(make_coco, "a.jpg", URL.format("b.jpg"))
    ((_, _, message),) = problems_of(file)
    assert message.startswith("1 of 2 images are missing, the first is 'host/bucket/b.jpg'")


@pytest.mark.parametrize("others", ["a.jpg", "b%20b.jpg"])
@pytest.mark.parametrize(
    ("written", "on_disk"),
    [("caf\u00e9.jpg", "cafe\u0301.jpg"), ("cafe\u0301.jpg", "caf\u00e9.jpg"), ("my%20mug.jpg", "my mug.jpg")],
)
def test_names_that_are_spelt_otherwise_on_disk(make_coco: Make, others: str, written: str, on_disk: str) -> None:
    file = with_names(make_coco, others, written, write=(f"train/{unquote(others)}", f"train/{on_disk}"))
    assert {record.name for record in open_source(file).records} == {unquote(others), on_disk}


def test_a_file_is_not_taken_for_two_images(make_coco: Make, problems_of: Problems) -> None:
    file = with_names(make_coco, "caf\u00e9.jpg", "cafe\u0301.jpg", write=("train/caf\u00e9.jpg",))
    ((severity, _, message),) = problems_of(file)
    assert (severity, message.partition(",")[0]) == ("error", "1 of 2 images are missing")
