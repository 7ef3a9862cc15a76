"""POD: who teaches and who is asked about lie in folders of their own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocha_pipe.data.benchmarks.episodes import draw_episodes
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.errors import DatasetNotFoundError, EpisodeError

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def built(build_pod: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pod(tmp_path_factory.mktemp("built") / "pod")


@pytest.fixture
def root(built: Path, bent: Callable[[Path], Path]) -> Path:
    return bent(built)


def change_lists(root: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    file = root / "class_to_images.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    return file


@pytest.mark.parametrize(
    ("name", "folder", "count"), [("pod", "val_crop", 2), ("pod-val", "val", 3), ("pod-light", "val_light", 4)]
)
def test_the_name_says_which_folder_is_asked_about(root: Path, name: str, folder: str, count: int) -> None:
    benchmark = open_benchmark(name, root)
    assert benchmark.name == name
    for episode in draw_episodes(benchmark, episodes=2, shots=1, reserve=1, seed=0):
        asked = [benchmark.source.records[image].name for image in episode.query]
        assert asked == [f"{folder}/images/{number:02}_0.jpg" for number in range(count)]


def test_light_and_dark_share_the_support(root: Path) -> None:
    taught = []
    for name in ("pod-light", "pod-dark"):
        benchmark = open_benchmark(name, root)
        episode = draw_episodes(benchmark, episodes=1, shots=1, reserve=1, seed=3)[0]
        records = [record for record in benchmark.source.records for _ in record.class_ids]
        taught.append([records[row].name for row in episode.support.ravel()])
    assert taught[0] == taught[1]
    assert all(name.startswith("train/") for name in taught[0])


def test_only_listed_images_teach_and_a_draw_depends_on_the_episode(root: Path) -> None:
    benchmark = open_benchmark("pod", root)
    assert sum(record.name.startswith("train/") for record in benchmark.source.records) == 45 * 2
    episodes = draw_episodes(benchmark, episodes=8, shots=1, reserve=1, seed=0)
    assert len({episode.support.tobytes() for episode in episodes}) == 8
    whole = draw_episodes(benchmark, episodes=1, shots=2, reserve=2, seed=0)[0]
    np.testing.assert_array_equal(np.sort(whole.support[0]), [0, 1])


def test_who_may_teach_is_part_of_the_fingerprint(root: Path) -> None:
    """An image that two objects list and show is there whichever of them it teaches."""
    (root / "train/labels/00_0.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n")
    one = open_benchmark("pod", root)
    change_lists(root, lambda lists: {**lists, "book2": ["00_0", *lists["book2"]]})
    both = open_benchmark("pod", root)
    assert one.source.fingerprint() == both.source.fingerprint()
    assert one.fingerprint() != both.fingerprint()


def test_without_lists_every_image_teaches_what_it_shows(root: Path) -> None:
    (root / "class_to_images.json").unlink()
    benchmark = open_benchmark("pod", root)
    assert draw_episodes(benchmark, episodes=1, shots=3, reserve=3, seed=0)[0].support.shape == (45, 3)


def test_too_few_listed_images(root: Path) -> None:
    with pytest.raises(EpisodeError) as refused:
        draw_episodes(open_benchmark("pod", root), episodes=1, shots=5, reserve=5, seed=0)
    assert str(refused.value) == (
        "object 'book1' needs 5 images or more for 5 shots (5 to learn), found 2; pass --shots 2"
    )


def test_a_folder_of_queries_that_is_not_there(root: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as refused:
        open_benchmark("pod-crop-dark", root)
    assert str(refused.value) == (
        f"{root}: pod-crop-dark has a folder 'val_crop_dark', which is not in it; "
        "name the folder that holds it with --data"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: [], "must be a map of object names to lists of image names; get the file again"),
        (lambda lists: {**lists, "toy3": "44_0"}, "must be a map of object names to lists of image names; "),
        (
            lambda lists: {**lists, "toy4": []},
            "its objects must be the 45 of POD (book1, book2 ... toy3), but 'toy4' is unknown; mend that name",
        ),
        (
            lambda lists: {name: lists[name] for name in lists if name != "mug2"},
            "its objects must be the 45 of POD (book1, book2 ... toy3), but 'mug2' is missing; mend that name",
        ),
        (
            lambda lists: {**lists, "book2": ["01_0", "01_9"]},
            "lists '01_9' for 'book2', which is no image there; put that image into train or take out the entry",
        ),
        (
            lambda lists: {**lists, "book2": ["00_0"]},
            "lists train/images/00_0.jpg for 'book2', but its labels have no such object (class id 1); take out the "
            "entry or mend the labels",
        ),
    ],
)
def test_lists_that_do_not_fit(root: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    file = change_lists(root, change)
    with pytest.raises(EpisodeError) as refused:
        open_benchmark("pod", root)
    assert str(refused.value).startswith(f"{file}: {message}")


def test_lists_that_are_no_json(root: Path) -> None:
    (root / "class_to_images.json").write_text("{")
    with pytest.raises(EpisodeError, match=r"class_to_images\.json: must be JSON, found .*; get the file again$"):
        open_benchmark("pod", root)
