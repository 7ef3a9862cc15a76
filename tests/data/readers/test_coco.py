from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.source import open_source

Make = Callable[..., Path]
Problems = Callable[..., list[tuple[str, str, str]]]
Refusal = Callable[..., str]
BOX = {"image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]}


def test_categories_and_boxes(make_coco: Make) -> None:
    source = open_source(make_coco())
    assert (source.class_names, source.split) == (("ball", "mug"), "train")
    a, b = source.records
    assert (a.name, a.class_ids.tolist()) == ("a.jpg", [1, 0])
    np.testing.assert_array_equal(a.xyxy, [[10, 5, 30, 15], [8, 8, 12, 12]])
    np.testing.assert_array_equal(b.xyxy, [[0, 0, 40, 20]])


@pytest.mark.parametrize("folder", ["annotations", "annotations/images", "train", "images/train", "images", "."])
def test_places_where_images_are_found(make_coco: Make, folder: str) -> None:
    file = make_coco(write=(f"{folder}/a.jpg", f"{folder}/b.jpg"))
    source = open_source(file)
    assert source.root == (file.parents[1] / folder).resolve()
    assert [record.name for record in source.records] == ["a.jpg", "b.jpg"]


def test_the_json_is_beside_its_images_first(make_coco: Make) -> None:
    file = make_coco(write=("train/a.jpg", "train/b.jpg", "annotations/a.jpg", "annotations/b.jpg"))
    assert open_source(file).root == file.parent


def test_boxes_are_clipped(make_coco: Make) -> None:
    source = open_source(make_coco(annotations=[{**BOX, "bbox": [-5, -5, 100, 10]}]))
    np.testing.assert_array_equal(source.records[0].xyxy, [[0, 0, 40, 5]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "image_id 99 is not in 'images'; remove the annotation"),
        ({"image_id": [7]}, "image_id must be a whole number, found [7]; remove the annotation"),
        ({"category_id": 5}, "category_id 5 is not in 'categories'; mend the id"),
        *(
            (
                {"bbox": bbox},
                f"bbox must be four finite numbers x y width height, the last two 0 or more, found {bbox!r}; mend it",
            )
            for bbox in ([1, 2, 3], None, [1, 2, "3", 4], [1, 2, 3, float("nan")], [1, 2, -3, 4], [1, 2, 3, -4])
        ),
        (
            {"bbox": [50, 2, 3, 4]},
            "bbox [50.0, 2.0, 3.0, 4.0] lies outside the image of 40 x 20; mend or remove the annotation",
        ),
    ],
)
def test_bad_annotation(make_coco: Make, problems_of: Problems, change: dict[str, Any], message: str) -> None:
    file = make_coco(annotations=[BOX, {**BOX, **change}])
    assert problems_of(file) == [("error", f"{file}: annotations[1]", message)]


def test_annotation_that_is_no_map(make_coco: Make, problems_of: Problems) -> None:
    file = make_coco(annotations=[3])
    assert problems_of(file) == [("error", f"{file}: annotations[0]", "an annotation is a map, found 3; remove it")]


@pytest.mark.parametrize(("width", "height"), [(3.0, 0.0), (1e-07, 3.0), (3.0, 1e-07)])
def test_box_without_area_is_dropped_with_a_warning(
    make_coco: Make, problems_of: Problems, width: float, height: float
) -> None:
    file = make_coco(annotations=[{**BOX, "bbox": [1, 2, width, height]}])
    assert problems_of(file) == [
        ("warning", f"{file}: annotations[0]", f"bbox [1.0, 2.0, {width}, {height}] has no area; dropped")
    ]
    assert open_source(file).num_regions == 0


def test_repeated_annotation_is_dropped_with_a_warning(make_coco: Make, problems_of: Problems) -> None:
    file = make_coco(annotations=[BOX, {**BOX, "bbox": [5, 5, 5, 5]}, {**BOX, "id": 9}])
    image = file.parents[1] / "train" / "a.jpg"
    assert problems_of(file) == [("warning", str(image), "1 duplicate annotation dropped")]
    np.testing.assert_array_equal(open_source(file).records[0].xyxy, [[1, 2, 4, 6], [5, 5, 10, 10]])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"id": 7, "file_name": "c.jpg"}, "image id 7 is there twice; keep one entry per image"),
        ({"id": 1, "file_name": "./a.jpg"}, "image file_name 'a.jpg' is there twice; keep one entry per image"),
        ({"id": 1}, "an image is {'id': whole number, 'file_name': path}, found {'id': 1}; mend it"),
    ],
)
def test_bad_image_entry(make_coco: Make, problems_of: Problems, image: dict[str, Any], message: str) -> None:
    file = make_coco(images=[{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}, image])
    assert problems_of(file) == [("error", f"{file}: images[2]", message)]


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/a.jpg"])
def test_image_outside_the_folder_of_the_others(make_coco: Make, problems_of: Problems, name: str) -> None:
    file = make_coco(images=[{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": name}], annotations=[])
    told = "/a.jpg" if name == "/a.jpg" else "../a.jpg"
    assert problems_of(file) == [
        ("error", str(file), f"file_name '{told}' leaves the image folder; write a path inside it")
    ]


def test_image_that_leaves_by_a_link(make_coco: Make, problems_of: Problems, tmp_path: Path, write_image: Make) -> None:
    write_image(tmp_path / "outside" / "c.jpg")
    file = make_coco(images=[{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "link/c.jpg"}], annotations=[])
    folder = file.parents[1] / "train"
    (folder / "link").symlink_to(tmp_path / "outside")
    assert problems_of(file) == [
        ("error", str(file), f"file_name 'link/c.jpg' leaves the image folder {folder} by a link; copy the image")
    ]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"width": 41, "height": 20}, "41 x 20; mend the json or put the right image there"),
        ({"width": "wide"}, "wide x None; mend the json or put the right image there"),
        ({"width": 20, "height": "40"}, "20 x 40: width and height are swapped; mend the json"),
        ({"height": -20}, "None x -20; mend the json or put the right image there"),
        ({"height": 1e300}, "None x 1e+300; mend the json or put the right image there"),
    ],
)
def test_stated_size_must_be_the_images(
    make_coco: Make, problems_of: Problems, size: dict[str, Any], message: str
) -> None:
    file = make_coco(images=[{"id": 7, "file_name": "a.jpg", **size}, {"id": 3, "file_name": "b.jpg"}])
    assert problems_of(file) == [
        ("error", f"{file.parents[1]}/train/a.jpg", f"the image is 40 x 20 (upright), but the json says {message}")
    ]


@pytest.mark.parametrize("stated", [(None, None), (0, 0), (float("nan"), 20), ("40", "20"), (40.0, "20.0"), ("", 20)])
def test_sizes_as_exporters_write_them(make_coco: Make, problems_of: Problems, stated: tuple[Any, Any]) -> None:
    entry = {"id": 7, "file_name": "a.jpg", "width": stated[0], "height": stated[1]}
    assert problems_of(make_coco(images=[entry, {"id": 3, "file_name": "b.jpg"}])) == []


def test_size_before_the_exif_orientation(make_coco: Make, problems_of: Problems, write_image: Make) -> None:
    file = make_coco()
    image = write_image(file.parents[1] / "train" / "a.jpg", 40, 20, orientation=6)
    assert problems_of(file) == [
        (
            "error",
            str(image),
            "the image is 20 x 40 (upright), but the json says 40 x 20, which is the picture as stored, before its "
            "EXIF orientation; turn the files themselves (exiftran -ai or jhead -autorot) and label them again, or "
            "export with upright sizes",
        )
    ]


def test_an_unreadable_image_has_the_size_that_the_json_states(make_coco: Make) -> None:
    file = make_coco()
    (file.parents[1] / "train" / "a.jpg").write_bytes(b"none")
    record = open_source(file, keep_unreadable=True).records[0]
    assert (record.readable, record.width, record.height, record.class_ids.tolist()) == (False, 40, 20, [1, 0])
    np.testing.assert_array_equal(record.xyxy, [[10, 5, 30, 15], [8, 8, 12, 12]])


@pytest.mark.parametrize("size", [{}, {"width": 100}, {"width": "wide", "height": 1e300}])
def test_an_unreadable_image_without_a_size_is_as_large_as_its_boxes(make_coco: Make, size: dict[str, Any]) -> None:
    boxes = [{**BOX, "bbox": [8, 8, 4.5, 4]}, {**BOX, "bbox": [-3, 2, 13, 30.25]}]
    file = make_coco(
        images=[{"id": 7, "file_name": "a.jpg", **size}, {"id": 3, "file_name": "b.jpg"}], annotations=boxes
    )
    for name in ("a.jpg", "b.jpg"):
        (file.parents[1] / "train" / name).write_bytes(b"none")
    a, b = open_source(file, keep_unreadable=True).records
    assert (a.readable, a.width, a.height) == (False, 13, 33)
    np.testing.assert_array_equal(a.xyxy, [[8, 8, 12.5, 12], [0, 2, 10, 32.25]])
    assert (b.readable, b.width, b.height, len(b.class_ids)) == (False, 1, 1, 0)


def test_annotations_of_an_unreadable_image_are_checked_too(make_coco: Make) -> None:
    file = make_coco(annotations=[{**BOX, "bbox": [50, 2, 3, 4]}])
    (file.parents[1] / "train" / "a.jpg").write_bytes(b"none")
    with pytest.raises(DatasetError, match=r"annotations\[0\]: bbox .* lies outside the image of 40 x 20"):
        open_source(file, keep_unreadable=True)


def test_some_images_missing(make_coco: Make, problems_of: Problems) -> None:
    file = make_coco(write=("train/b.jpg",))
    assert problems_of(file) == [
        (
            "error",
            str(file),
            f"1 of 2 images are missing, the first is 'a.jpg', looked in {file.parents[1]}/train; put them there",
        )
    ]


def test_all_images_missing_names_the_places_tried(make_coco: Make, refusal: Refusal) -> None:
    file = make_coco(write=())
    root = file.parents[1]
    assert refusal(file, error=DatasetNotFoundError) == (
        f"{file}: none of 2 images found, such as 'a.jpg', looked in {root}/annotations and {root}, and there in "
        "images, data, train, images/train, data/train, instances, images/instances and data/instances; put them in "
        "one of these"
    )


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"images": []}, "split 'train' is empty, 'images' lists none; add images"),
        ({"images": None}, "COCO json needs the list 'images', found none; export it as COCO detection"),
        ({"annotations": {}}, "COCO json needs the list 'annotations', found none; export it as COCO detection"),
        ({"categories": []}, "'categories' is empty; add one {'id': 1, 'name': ...} per class"),
        (
            {"categories": [{"id": "one", "name": "ball"}]},
            "a category is {'id': whole number, 'name': text}, found {'id': 'one', 'name': 'ball'}; mend it",
        ),
        (
            {"categories": [{"id": 4, "name": "ball"}, {"id": 4, "name": "mug"}]},
            "category id 4 is there twice; give each category an id of its own",
        ),
    ],
)
def test_json_without_what_it_needs(make_coco: Make, refusal: Refusal, lists: dict[str, Any], message: str) -> None:
    annotations = {} if "annotations" in lists or "categories" in lists else {"annotations": []}
    file = make_coco(**{**annotations, **lists})
    assert refusal(file, error=DatasetError) == f"{file}: {message}"


def test_json_that_cannot_be_parsed(make_coco: Make, refusal: Refusal) -> None:
    file = make_coco()
    file.write_text("{")
    assert refusal(file, error=DatasetError) == (
        f"{file}: is not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "export it again"
    )


def test_names_of_the_yaml_must_be_the_categories(make_coco: Make, refusal: Refusal) -> None:
    file = make_coco()
    data = file.parents[1] / "data.yaml"
    data.write_text("train: annotations/instances_train.json\nnames: [ball, cup]\n")
    assert refusal(data, error=DatasetError) == (
        f"{file}: categories ['ball', 'mug'] differ from 'names:' ['ball', 'cup']; remove 'names:'"
    )
    data.write_text("train: annotations/instances_train.json\nnames: {0: ball, 1: mug}\n")
    assert open_source(data).num_regions == 3


def test_boxes_that_were_written_as_corners(make_coco: Make, problems_of: Problems) -> None:
    corners = [[4, 2, 20, 12], [10, 5, 24, 18], [1, 1, 39, 19], [8, 4, 12, 10], [20, 10, 38, 19]]
    file = make_coco(annotations=[{**BOX, "bbox": bbox} for bbox in corners])
    read = "in all 5 the last two numbers exceed the first two, and as width and height some leave the image"
    told = f"each bbox seems to be corners x1 y1 x2 y2: {read}; COCO has x y width height, export it again"
    assert problems_of(file) == [("warning", str(file), told)]
    sized = [[left, top, right - left, bottom - top] for left, top, right, bottom in corners]
    assert problems_of(make_coco(annotations=[{**BOX, "bbox": bbox} for bbox in sized])) == []
    whole = [[0, 0, 40 - step, 20 - step] for step in range(5)]
    assert problems_of(make_coco(annotations=[{**BOX, "bbox": bbox} for bbox in whole])) == []
