"""Tiny data sets on disk, sound unless a test bends them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from mocha_pipe.data.source import open_source, read_split

WriteImage = Callable[..., Path]


@pytest.fixture
def write_image() -> WriteImage:
    """write_image(path, width, height, seed=0, orientation=None): noise, so that two seeds differ in bytes."""

    def write(path: Path, width: int = 40, height: int = 20, seed: int = 0, orientation: int | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        Image.fromarray(pixels).save(path, exif=exif)
        return path

    return write


@pytest.fixture
def make_yolo(tmp_path: Path, write_image: WriteImage) -> Callable[..., Path]:
    """make_yolo(labels, yaml_keys): a YOLO data set of 40 x 20 px images; returns its data.yaml.

    `labels` maps an image's path below images/ to the text of its label file, or to None for no file. `keys` are merged
    into data.yaml; a key set to None is left out.
    """

    def make(
        labels: Mapping[str, str | None] | None = None,
        keys: Mapping[str, Any] | None = None,
        root: Path = tmp_path / "set",
    ) -> Path:
        if labels is None:
            labels = {"train/a.jpg": "0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.1 0.2\n", "train/b.jpg": "1 0.5 0.5 1 1\n"}
        for seed, (name, text) in enumerate(labels.items()):
            write_image(root / "images" / name, seed=seed)
            if text is not None:
                label = (root / "labels" / name).with_suffix(".txt")
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(text)
        content = {"train": "images/train", "val": "images/train", "names": ["ball", "mug", "star"], **(keys or {})}
        data = root / "data.yaml"
        data.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return data

    return make


@pytest.fixture
def make_coco(tmp_path: Path, write_image: WriteImage) -> Callable[..., Path]:
    """make_coco(**lists): annotations/instances_train.json beside train/ with 40 x 20 px images; returns the json.

    The lists replace `images`, `annotations` and `categories` of the sound json; `write` names the images to write.
    """

    def make(*, write: tuple[str, ...] = ("train/a.jpg", "train/b.jpg"), **lists: Any) -> Path:
        root = tmp_path / "set"
        for seed, name in enumerate(write):
            write_image(root / name, seed=seed)
        content = {
            "images": [
                {"id": 7, "file_name": "a.jpg", "width": 40, "height": 20},
                {"id": 3, "file_name": "b.jpg"},
            ],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 10]},
                {"id": 2, "image_id": 7, "category_id": 4, "bbox": [8, 8, 4, 4], "iscrowd": 0},
                {"id": 3, "image_id": 3, "category_id": 4, "bbox": [0, 0, 40, 20]},
            ],
            "categories": [{"id": 90, "name": "mug"}, {"id": 4, "name": "ball"}],
            **lists,
        }
        file = root / "annotations" / "instances_train.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        return file

    return make


@pytest.fixture
def problems_of() -> Callable[..., list[tuple[str, str, str]]]:
    """problems_of(data, split="train") -> (severity, where, message) of each problem found."""

    def read(data: Path, split: str = "train") -> list[tuple[str, str, str]]:
        return [(found.severity, found.where, found.message) for found in read_split(data, split).problems]

    return read


@pytest.fixture
def refusal() -> Callable[..., str]:
    """refusal(data, split="train", error=...) -> text of the error that open_source raises."""

    def refuse(data: Path, split: str = "train", error: type[Exception] = Exception) -> str:
        with pytest.raises(error) as caught:
            open_source(data, split)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse
