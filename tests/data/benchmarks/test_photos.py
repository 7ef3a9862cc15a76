"""A folder of photographs: what is a box, what a coarse class, and what is asked about."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.benchmarks.episodes import draw_episodes
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.errors import DatasetError, EpisodeError
from mocha_pipe.data.types import PersonalBenchmark

WriteScene = Callable[..., Path]
BOX = "0 0.5 0.5 0.5 0.5\n"


@pytest.fixture
def desk(tmp_path: Path, write_scene: WriteScene) -> Callable[..., Path]:
    """desk({"my mug": ["a.jpg", ...]}): a folder of photographs without boxes."""

    def make(objects: dict[str, Sequence[str]]) -> Path:
        for name, photos in objects.items():
            (tmp_path / "desk" / name).mkdir(parents=True)
            for photo in photos:
                write_scene(tmp_path / "desk" / name / photo)
        return tmp_path / "desk"

    return make


def boxes_of(benchmark: PersonalBenchmark) -> dict[str, list[list[float]]]:
    return {record.name: record.xyxy.tolist() for record in benchmark.source.records}


def test_the_folder_is_the_object_and_its_last_word_the_coarse_class(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": ["a.jpg"], "Ana's mug_2": ["a.jpg", "holiday/b.jpg"], "ball1": ["a.png"], ".git": []})
    benchmark = open_benchmark(folder)
    assert benchmark.source.class_names == ("Ana's mug_2", "ball1", "my mug")
    assert [benchmark.coarse_names[coarse] for coarse in benchmark.coarse_of] == ["mug", "ball", "mug"]
    assert {record.name: record.class_ids.tolist() for record in benchmark.source.records} == {
        "Ana's mug_2/a.jpg": [0],
        "Ana's mug_2/holiday/b.jpg": [0],
        "ball1/a.png": [1],
        "my mug/a.jpg": [2],
    }


def test_coarse_yaml_wins_over_the_name(desk: Callable[..., Path]) -> None:
    folder = desk({"my cup": ["a.jpg"], "my mug": ["a.jpg"], "123": ["a.jpg"]})
    (folder / "coarse.yaml").write_text("my cup: mug\n'123': clock\n")
    benchmark = open_benchmark(folder)
    assert [benchmark.coarse_names[coarse] for coarse in benchmark.coarse_of] == ["clock", "mug", "mug"]


def test_labels_lie_beside_the_image_or_in_labels_and_their_class_id_is_not_read(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": ["a.jpg", "b.jpg", "images/c.jpg"]})
    for place in ("a.txt", "labels/b.txt", "labels/c.txt"):
        (folder / "my mug" / place).parent.mkdir(exist_ok=True)
        (folder / "my mug" / place).write_text(BOX.replace("0 ", "7 ", 1))
    benchmark = open_benchmark(folder)
    assert boxes_of(benchmark) == {f"my mug/{name}.jpg": [[6, 4, 18, 12]] for name in ("a", "b", "images/c")}
    assert benchmark.notes == ()
    assert benchmark.query is None


def test_without_any_box_the_whole_picture_is_the_object_and_everything_is_asked_about(
    desk: Callable[..., Path],
) -> None:
    benchmark = open_benchmark(desk({"my mug": ["a.jpg", "b.jpg"], "my ball": ["a.jpg", "b.jpg"]}))
    assert list(boxes_of(benchmark).values()) == [[[0, 0, 24, 16]]] * 4
    episode = draw_episodes(benchmark, episodes=1, shots=1, reserve=1, seed=0)[0]
    assert len(episode.query) == 2
    assert benchmark.notes == (
        "no image of desk has a label file, so the whole picture is the object's box: a detection counts only where "
        "it covers half of the picture; draw boxes for figures that say more",
    )


def test_where_some_have_boxes_only_those_are_asked_about(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": [f"{number}.jpg" for number in range(5)]})
    for number in (2, 3):
        (folder / f"my mug/{number}.txt").write_text(BOX)
    benchmark = open_benchmark(folder)
    assert benchmark.query == (2, 3)
    for episode in draw_episodes(benchmark, episodes=20, shots=1, reserve=1, seed=0):
        assert set(episode.query.tolist()) == {2, 3} - set(episode.support.ravel().tolist())
    assert benchmark.notes == (
        "3 of 5 images of desk have no label file: they teach with the whole picture, and are not asked about",
    )


def test_who_is_asked_about_is_part_of_the_fingerprint(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": ["a.jpg", "b.jpg", "c.jpg"]})
    seen = {open_benchmark(folder).fingerprint()}
    for name in "ab":
        (folder / f"my mug/{name}.txt").write_text("0 0.5 0.5 1 1\n")  # the box that it had without
        seen.add(open_benchmark(folder).fingerprint())
    assert len(seen) == 3


def test_an_empty_label_file_is_a_picture_without_the_object(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": ["a.jpg", "b.jpg", "c.jpg"]})
    for name, text in (("a", BOX), ("b", BOX), ("c", "")):
        (folder / f"my mug/{name}.txt").write_text(text)
    benchmark = open_benchmark(folder)
    assert boxes_of(benchmark)["my mug/c.jpg"] == []
    for episode in draw_episodes(benchmark, episodes=9, shots=1, reserve=1, seed=0):
        assert 2 in episode.query.tolist()


def test_queries_that_show_nothing_are_refused(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": ["a.jpg", "b.jpg", "c.jpg"]})
    (folder / "my mug/c.txt").write_text("")
    with pytest.raises(EpisodeError) as refused:
        draw_episodes(open_benchmark(folder), episodes=1, shots=1, reserve=1, seed=0)
    assert str(refused.value) == (
        "an episode needs an object to ask about, but none of the 1 query images of episode 0 shows one; label more "
        "images"
    )


def test_boxes_of_something_else_are_refused(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": ["a.jpg", "b.jpg"]})
    (folder / "my mug/a.txt").write_text(BOX)
    (folder / "my mug/b.txt").write_text("0 0.5 0.5 0.5 0.5\n3 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DatasetError) as refused:
        open_benchmark(folder)
    assert str(refused.value) == (
        f"{folder}/my mug: all boxes here must be 'my mug', under one class id, found class ids 0 "
        f"({folder}/my mug/b.txt) and 3 ({folder}/my mug/b.txt); keep the boxes of it"
    )


def test_one_label_file_for_two_images_is_refused(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": ["a.jpg", "a.png"]})
    (folder / "my mug/a.txt").write_text(BOX)
    with pytest.raises(DatasetError, match=r"is the label file of both a\.jpg and a\.png; rename one image"):
        open_benchmark(folder)


def test_an_object_without_images(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": ["a.jpg"], "notes": []})
    with pytest.raises(DatasetError) as refused:
        open_benchmark(folder)
    assert str(refused.value) == (
        f"{folder}/notes: every subfolder is an object with images, found none; put some there or remove it"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "his mug: mug",
            "every line is 'object: coarse class', but there is no object 'his mug'; the subfolders are 123, my mug",
        ),
        (
            "my mug: mug",
            "'123' must have a coarse class of the detector, found None; write a line such as '123: mug'",
        ),
        (
            "123: clock\nmy mug: [mug]",
            "'my mug' must have a coarse class of the detector, found ['mug']; write a line such as 'my mug: mug'",
        ),
    ],
)
def test_coarse_classes_that_do_not_fit(desk: Callable[..., Path], text: str, message: str) -> None:
    folder = desk({"my mug": ["a.jpg"], "123": ["a.jpg"]})
    (folder / "coarse.yaml").write_text(text)
    with pytest.raises(DatasetError) as refused:
        open_benchmark(folder)
    assert str(refused.value) == f"{folder}/coarse.yaml: {message}"


def test_a_link_that_leads_out_of_the_folder(
    desk: Callable[..., Path], tmp_path: Path, write_scene: WriteScene
) -> None:
    folder = desk({"my mug": ["a.jpg"]})
    write_scene(tmp_path / "elsewhere/b.jpg")
    (folder / "my mug/more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError) as refused:
        open_benchmark(folder)
    assert str(refused.value) == (
        f"{folder}/my mug/more/b.jpg: an image must lie in the benchmark's folder {folder}, but a link leads out of "
        "it; copy the images there"
    )


def test_a_box_counts_in_the_upright_picture(desk: Callable[..., Path]) -> None:
    folder = desk({"my mug": []})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(folder / "my mug/a.jpg", exif=exif)
    assert boxes_of(open_benchmark(folder)) == {"my mug/a.jpg": [[0, 0, 16, 24]]}
