"""PODS: boxes from masks, who teaches and who is asked, kinds and the detector's words for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.benchmarks.episodes import draw_episodes
from mocha_pipe.data.benchmarks.opening import PUBLISHED, open_benchmark
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError


@pytest.fixture
def root(tmp_path: Path, build_pods: Callable[[Path], Path]) -> Path:
    return build_pods(tmp_path / "pods")


def test_a_box_is_that_of_its_mask(root: Path) -> None:
    benchmark = open_benchmark("pods", root)
    assert benchmark.source.class_names == ("mug_red", "tote_blank", "mug_blue")
    for record in benchmark.source.records:
        place = int(record.class_ids[0])
        np.testing.assert_array_equal(record.xyxy, [[6, 4, 18 - place, 12]])
        assert (record.width, record.height) == (24, 16)
        assert record.name.split("/")[1] == benchmark.source.class_names[place]


@pytest.mark.parametrize("bright", [1, 255])
def test_a_mask_may_count_to_one_or_to_255_and_be_a_jpeg(root: Path, bright: int) -> None:
    mask = Image.new("L", (24, 16))
    mask.paste(bright, (8, 8, 16, 16))  # whole blocks of a JPEG
    (root / "train_masks/mug_red/0.png").unlink()
    mask.save(root / f"train_masks/mug_red/0.{'png' if bright == 1 else 'jpg'}")
    records = {record.name: record for record in open_benchmark("pods", root).source.records}
    np.testing.assert_array_equal(records["train/mug_red/0.jpg"].xyxy, [[8, 8, 16, 16]])


def test_train_teaches_and_the_masked_part_of_test_is_asked_about(root: Path) -> None:
    benchmark = open_benchmark("pods", root)
    names = [record.name for record in benchmark.source.records]
    rows = [name for name, record in zip(names, benchmark.source.records, strict=True) for _ in record.class_ids]
    episode = draw_episodes(benchmark, episodes=1, shots=2, reserve=2, seed=0)[0]
    assert all(rows[row].startswith("train/") for row in episode.support.ravel())
    assert [names[image] for image in episode.query] == [name for name in names if name.startswith("test_dense/")]
    assert len(names) == 12, "a photograph without a mask is not read"


def test_kinds_are_classes_of_the_detector_unless_a_file_says_otherwise(root: Path) -> None:
    benchmark = open_benchmark("pods", root)
    assert [benchmark.coarse_names[coarse] for coarse in benchmark.coarse_of] == ["mug", "tote", "mug"]
    (root / "coarse.yaml").write_text("tote: handbag\n")
    other = open_benchmark("pods", root)
    assert [other.coarse_names[coarse] for coarse in other.coarse_of] == ["mug", "handbag", "mug"]
    (root / "coarse.yaml").write_text("bag: handbag\n")
    with pytest.raises(DatasetError) as refused:
        open_benchmark("pods", root)
    assert str(refused.value) == (
        f"{root}/coarse.yaml: every line is 'kind: class of the detector', but pods has no kind 'bag'; "
        "its kinds are mug, tote"
    )


def test_the_least_score_is_that_of_the_other_photographs() -> None:
    assert PUBLISHED["pods"].confidence == 0.1


@pytest.mark.parametrize("name", ["train", "train_masks", "test_dense", "test_dense_masks", "pods_info.json"])
def test_a_part_that_is_not_there(root: Path, name: str) -> None:
    (root / name).rename(root / "elsewhere")
    with pytest.raises(DatasetNotFoundError) as refused:
        open_benchmark("pods", root)
    assert str(refused.value) == (
        f"{root}: pods has '{name}', which is not in it; name the folder that holds it with --data"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: [], "must hold 'classes', a list, and 'class_to_sc', a map; get the file again"),
        (
            lambda info: {**info, "classes": []},
            "must hold 'classes', a list, and 'class_to_sc', a map; get the file again",
        ),
        (
            lambda info: {**info, "classes": ["../mug"], "class_to_sc": {"../mug": "mug"}},
            "every class must be the name of a folder and have a kind in 'class_to_sc', found '../mug'; "
            "get the file again",
        ),
        (
            lambda info: {**info, "class_to_sc": {}},
            "every class must be the name of a folder and have a kind in 'class_to_sc', found 'mug_red'; "
            "get the file again",
        ),
    ],
)
def test_a_file_of_objects_that_breaks_its_rules(root: Path, change: Callable[[Any], Any], message: str) -> None:
    file = root / "pods_info.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(DatasetError) as refused:
        open_benchmark("pods", root)
    assert str(refused.value) == f"{file}: {message}"


def test_masks_that_do_not_fit(root: Path) -> None:
    mask = root / "train_masks/mug_blue/0.png"
    rule = "a mask must show something and be as large as its image, 24 x 16"
    for image, found in ((Image.new("L", (24, 16)), "an empty one"), (Image.new("L", (16, 24), 9), "16 x 24 pixels")):
        image.save(mask)
        with pytest.raises(DatasetError) as refused:
            open_benchmark("pods", root)
        assert str(refused.value) == f"{mask}: {rule}, found {found}; get it again"
    mask.unlink()
    with pytest.raises(DatasetError) as refused:
        open_benchmark("pods", root)
    assert str(refused.value) == (
        f"{root}/train/mug_blue/0.jpg: every photograph needs a mask, none of its name in {mask.parent}; "
        "get the masks again"
    )


def test_an_object_without_photographs_to_learn_from(root: Path) -> None:
    for photo in (root / "train/mug_blue").iterdir():
        photo.unlink()
    with pytest.raises(DatasetError) as refused:
        open_benchmark("pods", root)
    assert (
        str(refused.value) == f"{root}/train/mug_blue: every object must have photographs, found none; put some there"
    )
