"""What a student is validated on: a split of the data set, or another COCO json."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.source import open_source
from mocha_pipe.pipeline.run.datasets import distill_data, seen_in_training
from mocha_pipe.pipeline.settings.loading import load_config

CATEGORIES = [{"id": 1, "name": "ball"}, {"id": 2, "name": "mug"}]


def coco(folder: Path, name: str, categories: list[dict[str, Any]], **box: Any) -> Path:
    """One picture and one box of class 2, in a folder of its own beside the json."""
    (folder / name).mkdir(parents=True)
    Image.new("RGB", (40, 20), (len(name), 0, 0)).save(folder / name / "a.png")
    annotation = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], **box}
    file = folder / f"{name}.json"
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [annotation], "categories": categories}
    file.write_text(json.dumps(content))
    return file


def opened(data: Path, val: str) -> Any:
    return distill_data(load_config(None, {"data": {"path": data, "val": val}}))


def test_another_json_is_validated_on_by_the_names_of_its_categories(tmp_path: Path) -> None:
    data = coco(tmp_path, "train", CATEGORIES)
    other = coco(tmp_path, "other", [{"id": 2, "name": "ball"}])
    train, _, val, shards = opened(data, str(other))
    assert [record.path.parent.name for source in (train, val) for record in source.records] == ["train", "other"]
    assert val.class_names == train.class_names == ("ball", "mug")
    assert [source.records[0].class_ids.tolist() for source in (train, val)] == [[1], [0]]
    assert shards == ()
    assert seen_in_training(train, val) is None


def test_a_json_alone_is_validated_on_its_own_images(tmp_path: Path) -> None:
    data = coco(tmp_path, "train", CATEGORIES)
    train, _, val, _ = opened(data, "val")
    assert seen_in_training(train, val) == (
        "1 of 1 validation images are training images: figures, the choice of the best epoch and the threshold for "
        "unknown things then rest on what the student has seen; name others with 'val:' in data.yaml, or with --val "
        "OTHER.json"
    )


def test_a_json_of_other_categories_is_refused(tmp_path: Path) -> None:
    data = coco(tmp_path, "train", CATEGORIES)
    other = coco(tmp_path, "other", [{"id": 2, "name": "boot"}])
    with pytest.raises(DatasetError) as caught:
        opened(data, str(other))
    assert str(caught.value) == (
        f"{other}: categories ['boot'] differ from {data} ['ball', 'mug']; export both from one project"
    )


def test_a_json_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"other\.json: no such file"):
        opened(coco(tmp_path, "train", CATEGORIES), str(tmp_path / "other.json"))


def test_images_in_both_splits_of_a_yaml_are_counted(tmp_path: Path) -> None:
    coco(tmp_path, "train", CATEGORIES)
    data = tmp_path / "data.yaml"
    data.write_text("train: train.json\nval: train.json\n")
    warning = seen_in_training(open_source(data), open_source(data, "val"))
    assert warning is not None
    assert warning.startswith("1 of 1 validation images are training images: ")
