from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError

Make = Callable[..., Path]
KEYS = {"train": None, "val": None, "test": "images", "coarse_names": ["mug", "ball"], "coarse": [1, 0, 1]}
LABELS = {"a.jpg": "0 0.5 0.5 0.5 0.5\n", "b.jpg": "2 0.5 0.5 0.5 0.5\n"}


def test_benchmark(make_yolo: Make) -> None:
    benchmark = open_benchmark(make_yolo(LABELS, KEYS).parent)
    assert benchmark.name == "set"
    assert benchmark.source.split == "test"
    assert benchmark.source.class_names == ("ball", "mug", "star")
    assert benchmark.source.num_regions == 2
    assert benchmark.coarse_names == ("mug", "ball")
    assert benchmark.coarse_of.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"coarse_names": names}, f"'coarse_names:' must list the detector's classes, found {names}")
            for names in (None, [], {"mug": 0})
        ),
        (
            {"coarse_names": ["mug", "mug"]},
            "classes 0 and 1 are both called 'mug' in 'coarse_names:'; give each a name of its own",
        ),
        (
            {"coarse_names": [True, "mug"]},
            "the name of a class must be a text, but yaml reads name 0 of 'coarse_names:' (true) as True; write it in "
            "quotes",
        ),
        *(
            (
                {"coarse": ids},
                f"'coarse:' must list an id of 'coarse_names:', 0 to 1, for each of the 3 'names:', found {ids}",
            )
            for ids in (None, [0, 1.5, 0], [0, 1], [0, 1, 2], [0, -1, 0], [0, 1, True])
        ),
        ({"names": ["x", "y", "x"]}, "classes 0 and 2 are both called 'x' in 'names:'; give each a name of its own"),
        ({"test": None, "train": "images"}, "key 'test:' is missing, splits found: 'train:'; add 'test: images/test'"),
    ],
)
def test_keys_that_do_not_fit(make_yolo: Make, change: dict[str, Any], message: str) -> None:
    data = make_yolo(LABELS, {**KEYS, **change})
    with pytest.raises(DatasetError) as caught:
        open_benchmark(data.parent)
    assert str(caught.value) == f"{data}: {message}"


NAMES = "perseg, pod, pod-crop-light, pod-crop-dark, pod-val, pod-light, pod-dark, pods, core50, icubworld"


def test_a_folder_with_neither_photographs_nor_yaml(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as refused:
        open_benchmark(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: a benchmark holds one subfolder of photographs per object, or a data.yaml, found neither; put "
        "them there or name another folder"
    )


def test_a_benchmark_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as refused:
        open_benchmark(tmp_path / "desk")
    assert str(refused.value) == (
        f"{tmp_path}/desk: no such benchmark; name a folder, or one of {NAMES} and its folder with --data, or make the "
        "miniature one: mocha-pipe data miniature"
    )


def test_a_published_name_needs_a_folder_and_a_folder_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError) as alone:
        open_benchmark("perseg")
    assert str(alone.value) == "the benchmark perseg needs to know where it lies; name its folder with --data"
    with pytest.raises(DatasetError) as both:
        open_benchmark("desk", tmp_path)
    assert str(both.value) == (
        f"--data is the folder of a published benchmark ({NAMES}), but --benchmark is desk; name one of them, or leave "
        "out --data where --benchmark is a folder itself"
    )


def test_without_data_a_folder_called_like_a_published_benchmark_is_a_folder(
    make_yolo: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_yolo(LABELS, KEYS, root=tmp_path / "perseg")
    assert open_benchmark("perseg").source.class_names == ("ball", "mug", "star")


def test_fingerprint_sees_labels_and_coarse_classes(make_yolo: Make) -> None:
    first, again = (open_benchmark(make_yolo(LABELS, KEYS).parent).fingerprint() for _ in range(2))
    other_coarse = open_benchmark(make_yolo(LABELS, {**KEYS, "coarse": [1, 0, 0]}).parent).fingerprint()
    other_label = open_benchmark(make_yolo({**LABELS, "a.jpg": "1 0.5 0.5 0.5 0.5\n"}, KEYS).parent).fingerprint()
    assert first == again
    assert len({first, other_coarse, other_label}) == 3
