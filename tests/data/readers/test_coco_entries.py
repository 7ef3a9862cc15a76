"""Ids, kinds and classes of a COCO json as tools write them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocha_pipe.data.checking.check import check_dataset
from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.source import open_source

Make = Callable[..., Path]
Problems = Callable[..., list[tuple[str, str, str]]]
Refusal = Callable[..., str]
BOX = {"image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    "write", [float, str, lambda number: f"{number}.0"], ids=["pandas", "texts", "text of a float"]
)
def test_ids_that_are_not_written_as_whole_numbers(make_coco: Make, write: Callable[[int], Any]) -> None:
    sound = make_coco()
    content = json.loads(sound.read_text())
    expected = open_source(sound).fingerprint()
    for key in ("images", "categories"):
        content[key] = [{**entry, "id": write(entry["id"])} for entry in content[key]]
    for entry in content["annotations"]:
        entry.update(image_id=write(entry["image_id"]), category_id=write(entry["category_id"]))
    assert open_source(make_coco(**content)).fingerprint() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "seven"}, "image_id must be a whole number, found 'seven'; remove the annotation"),
        ({"image_id": 7.5}, "image_id must be a whole number, found 7.5; remove the annotation"),
        ({"image_id": True}, "image_id must be a whole number, found True; remove the annotation"),
        ({"image_id": float("nan")}, "image_id must be a whole number, found nan; remove the annotation"),
        ({"category_id": None}, "category_id must be a whole number, found None; mend the id"),
        ({"category_id": "5"}, "category_id 5 is not in 'categories'; mend the id"),
    ],
)
def test_ids_that_are_none(make_coco: Make, problems_of: Problems, change: dict[str, Any], message: str) -> None:
    file = make_coco(annotations=[BOX, {**BOX, **change}])
    assert problems_of(file) == [("error", f"{file}: annotations[1]", message)]


def test_without_a_usable_entry_the_first_reasons_are_told(make_coco: Make, refusal: Refusal) -> None:
    images = [{"id": "a", "file_name": "a.jpg"}, {"id": 1, "file_name": ""}, {"id": 2}]
    file = make_coco(images=images, annotations=[])
    assert refusal(file, error=DatasetError) == (
        f"{file}: split 'train' is empty, none of 3 entries of 'images' can be used: images[0]: id must be a whole "
        "number, found 'a'; mend it, images[1]: an image is {'id': whole number, 'file_name': path}, found "
        "{'file_name': '', 'id': 1}; mend it (and 1 more)"
    )


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (
            {"images": [], "annotations": [{"image_id": 1, "segments_info": [{}]}], "categories": []},
            "a panoptic json, whose annotations are segments",
        ),
        ({"images": [], "categories": []}, "an image-info json, which has images and no annotations"),
        (
            {"images": [], "annotations": [{"image_id": 1, "caption": "a mug"}]},
            "a captions json, whose annotations are sentences",
        ),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}], "a list of a detector's results"),
        ([{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}], "Label Studio's own json"),
        ([{"image": "a.jpg", "annotations": []}], "a CreateML json"),
        ({"shapes": [], "imagePath": "a.jpg"}, "a labelme json of one image"),
        ({"info": {}, "categories": {}, "items": []}, "Datumaro's own json"),
        ({"samples": []}, "FiftyOne's own json"),
        ({"size": {}, "objects": []}, "Supervisely's own json of one image"),
        ({"_via_img_metadata": {}}, "a project of VIA"),
    ],
)
def test_other_kinds_of_json_are_called_so(tmp_path: Path, refusal: Refusal, content: Any, kind: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content))
    assert refusal(file, error=DatasetError) == (
        f"{file}: is {kind}; export it as COCO detection, which has boxes (instances_*.json)"
    )


def test_keypoints_have_boxes(make_coco: Make) -> None:
    file = make_coco(annotations=[{**BOX, "keypoints": [1, 2, 2], "num_keypoints": 1}])
    assert open_source(file).num_regions == 1


def test_a_compressed_json(make_coco: Make, refusal: Refusal) -> None:
    file = make_coco()
    file.write_bytes(gzip.compress(file.read_bytes()))
    assert refusal(file) == f"{file}: is compressed with gzip; unpack it: gunzip -c IN > OUT.json"


def test_a_json_with_a_byte_order_mark(make_coco: Make) -> None:
    file = make_coco()
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert open_source(file).num_regions == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (100_000 * "[", "is not valid JSON (brackets in brackets, too many to follow); export it again"),
        ('{"images": [' + 400 * "9" + "]}", "is not valid JSON (a number of 400 digits); export it again"),
    ],
    ids=["deep", "digits"],
)
def test_hostile_json_is_one_line(tmp_path: Path, refusal: Refusal, text: str, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    assert refusal(file, error=DatasetError) == f"{file}: {message}"


def test_hostile_names_are_no_traceback(make_coco: Make, problems_of: Problems) -> None:
    names = (300 * "x", "\ud800", "a\0b")
    images = [{"id": 7, "file_name": "a.jpg"}, *({"id": n, "file_name": name} for n, name in enumerate(names))]
    found = problems_of(make_coco(images=images, annotations=[]))
    assert [severity for severity, _, _ in found] == 3 * ["error"]
    assert "1 of 2 images are missing, the first is 'xxx" in found[2][2]


def test_categories_of_one_name_of_which_one_is_in_use(make_coco: Make, problems_of: Problems) -> None:
    categories = [{"id": 0, "name": "mug"}, {"id": 4, "name": "ball"}, {"id": 90, "name": "mug"}]
    file = make_coco(categories=categories)
    assert problems_of(file) == [
        (
            "warning",
            str(file),
            "categories 0 and 90 are all called 'mug' and are taken for one class, as only one of them is in use",
        )
    ]
    source = open_source(file)
    assert source.class_names == ("mug", "ball")
    assert [record.class_ids.tolist() for record in source.records] == [[0, 1], [1]]


def test_categories_of_one_name_that_are_both_in_use(make_coco: Make, refusal: Refusal) -> None:
    file = make_coco(categories=[{"id": 4, "name": "mug"}, {"id": 90, "name": "mug"}])
    assert refusal(file) == f"{file}: categories 4 and 90 are all called 'mug'; give each a name of its own"


@pytest.mark.parametrize("name", ["", " ", None, 3, "\ud800"])
def test_a_category_without_a_name(make_coco: Make, refusal: Refusal, name: object) -> None:
    file = make_coco(categories=[{"id": 4, "name": name}])
    assert refusal(file).startswith(f"{file}: a category is {{'id': whole number, 'name': text}}, found {{'id': 4, ")


class TestSplits:
    @pytest.fixture
    def data(self, make_coco: Make) -> Path:
        """A data.yaml without names, whose train and val are two json with the same images."""
        train = make_coco()
        (train.parent / "instances_val.json").write_bytes(train.read_bytes())
        (train.parents[1] / "train").rename(train.parents[1] / "images")
        data = train.parents[1] / "data.yaml"
        data.write_text("train: annotations/instances_train.json\nval: annotations/instances_val.json\n")
        return data

    def change(self, data: Path, **lists: Any) -> None:
        file = data.parent / "annotations" / "instances_val.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **lists}))

    def test_a_split_with_some_of_the_categories(self, data: Path) -> None:
        self.change(data, categories=[{"id": 90, "name": "mug"}], annotations=[{**BOX, "category_id": 90}])
        val = open_source(data, "val")
        assert val.class_names == open_source(data).class_names == ("ball", "mug")
        np.testing.assert_array_equal(val.records[0].class_ids, [1])
        (warning,) = val.problems
        assert warning.message == ("categories ['mug'] are mapped by name to ['ball', 'mug'] of the data set")

    def test_categories_in_another_order(self, data: Path) -> None:
        self.change(data, categories=[{"id": 4, "name": "mug"}, {"id": 90, "name": "ball"}])
        val = open_source(data, "val")
        assert val.class_names == ("ball", "mug")
        assert val.records[0].class_ids.tolist() == [0, 1]
        assert open_source(data).records[0].class_ids.tolist() == [1, 0]

    def test_the_training_split_may_have_some_of_the_categories(self, data: Path) -> None:
        categories = [{"id": 1, "name": "ant"}, {"id": 4, "name": "ball"}, {"id": 90, "name": "mug"}]
        self.change(data, categories=categories)
        assert open_source(data).class_names == ("ant", "ball", "mug")
        assert open_source(data).records[0].class_ids.tolist() == [2, 1]

    def test_categories_that_differ_are_found_by_check(self, data: Path) -> None:
        self.change(data, categories=[{"id": 90, "name": "mug"}, {"id": 4, "name": "star"}])
        problems = [problem for split in check_dataset(data) for problem in split.problems]
        assert [problem.severity for problem in problems] == ["error", "error"]
        assert problems[0].message == (
            "the splits must have the same categories: ['star'] are here alone, ['ball'] are in "
            f"{data.parent}/annotations/instances_train.json alone; make the categories of both json equal"
        )

    def test_a_broken_split_leaves_the_others_alone(self, data: Path) -> None:
        (data.parent / "annotations" / "instances_val.json").write_text("{")
        assert open_source(data).class_names == ("ball", "mug")


def test_annotations_of_a_refused_image_are_not_listed_too(make_coco: Make, problems_of: Problems) -> None:
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": 5}, {"id": 4, "file_name": "a.jpg"}]
    boxes = [{**BOX, "image_id": number} for number in (7, 3, 4, 5)]
    found = [message for _, _, message in problems_of(make_coco(images=images, annotations=boxes))]
    assert found == [
        "an image is {'id': whole number, 'file_name': path}, found {'file_name': 5, 'id': 3}; mend it",
        "image file_name 'a.jpg' is there twice; keep one entry per image",
        "image_id 5 is not in 'images'; remove the annotation",
    ]


def test_a_json_of_via_is_called_so(tmp_path: Path) -> None:
    file = tmp_path / "via.json"
    file.write_text(json.dumps({"a.jpg99": {"filename": "a.jpg", "size": 99, "regions": [], "file_attributes": {}}}))
    with pytest.raises(DatasetError, match=r"is a json of VIA, as makesense.ai writes it too; export it as COCO"):
        open_source(file)


@pytest.mark.parametrize("other", ["cafe\u0301", "caf\u00e9 "])
def test_categories_that_look_alike_have_one_name(make_coco: Make, refusal: Refusal, other: str) -> None:
    categories = [{"id": 4, "name": "caf\u00e9"}, {"id": 5, "name": other}]
    boxes = [{**BOX, "category_id": number} for number in (4, 5)]
    assert open_source(make_coco(categories=categories, annotations=boxes[:1])).class_names == ("caf\u00e9",)
    message = refusal(make_coco(categories=categories, annotations=boxes))
    assert message.endswith("categories 4 and 5 are all called 'caf\u00e9'; give each a name of its own")
