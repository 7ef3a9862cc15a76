"""Published episodes: taken as they are, and refused where they do not fit the images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocha_pipe.data.benchmarks.episode_files import ImageNames
from mocha_pipe.data.benchmarks.episodes import Episode, draw_episodes
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.errors import EpisodeError
from mocha_pipe.data.types import PersonalBenchmark

Build = Callable[..., Path]


def perseg(root: Path, change: Callable[[list[Any]], Any] = lambda episodes: episodes) -> PersonalBenchmark:
    """PerSeg with a changed episode file."""
    file = root / "episodes.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    return open_benchmark("perseg", root)


def draw(benchmark: PersonalBenchmark, shots: int = 1, **options: Any) -> tuple[Episode, ...]:
    return draw_episodes(benchmark, **{"episodes": 2, "reserve": shots, "seed": 0, **options}, shots=shots)


def images_of(benchmark: PersonalBenchmark, rows: np.ndarray) -> list[str]:
    stems = [Path(record.name).stem for record in benchmark.source.records for _ in record.class_ids]
    return [stems[row] for row in rows.ravel()]


@pytest.fixture(scope="module")
def built(build_perseg: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_perseg(tmp_path_factory.mktemp("built") / "perseg")


@pytest.fixture
def root(built: Path, bent: Callable[[Path], Path]) -> Path:
    return bent(built)


def test_support_and_query_are_those_of_the_file(root: Path) -> None:
    benchmark = perseg(root)
    for number, episode in enumerate(draw(benchmark, seed=7)):
        assert images_of(benchmark, episode.support) == [f"{thing:02}_{number}" for thing in range(39)]
        asked = [Path(benchmark.source.records[image].name).stem for image in episode.query]
        assert asked == [f"{thing:02}_{copy}" for thing in range(39) for copy in range(3) if copy != number]
        assert (episode.index, episode.seed, episode.shots) == (number, 7, 1)


def test_a_seed_does_not_change_published_episodes_but_other_shots_are_drawn_with_it(root: Path) -> None:
    benchmark = perseg(root)
    for shots, same in ((1, True), (2, False)):
        one, other = (draw(benchmark, shots, seed=seed)[0].support for seed in (0, 1))
        assert np.array_equal(one, other) is same


def test_without_the_file_episodes_are_drawn(root: Path) -> None:
    (root / "episodes.json").unlink()
    benchmark = open_benchmark("perseg", root)
    assert benchmark.published == {}
    assert not np.array_equal(draw(benchmark, seed=0)[0].support, draw(benchmark, seed=1)[0].support)


def test_the_episodes_are_part_of_the_fingerprint(root: Path) -> None:
    assert perseg(root).fingerprint() != perseg(root, lambda episodes: episodes[::-1]).fingerprint()


def test_each_file_serves_its_shots_and_images_that_none_names_are_not_read(
    build_handheld: Build, tmp_path: Path
) -> None:
    root = build_handheld(tmp_path / "core50", 50)
    (root / "train/images/00_3.jpg").write_bytes(b"named by no episode")
    benchmark = open_benchmark("core50", root)
    assert len(benchmark.source.records) == 50 * 3
    assert sorted(benchmark.published) == [1, 2]
    assert images_of(benchmark, draw(benchmark, 2)[1].support)[:4] == ["00_1", "00_2", "01_1", "01_2"]
    for file in root.glob("episodes_*.json"):
        file.unlink()
    (root / "train/images/00_3.jpg").unlink()
    assert len(open_benchmark("core50", root).source.records) == 50 * 4 - 1


def test_the_number_of_query_images_can_be_limited(root: Path) -> None:
    benchmark = perseg(root)
    few, all_of_them = draw(benchmark, query_images=5)[0], draw(benchmark)[0]
    assert len(few.query) == 5
    assert set(few.query.tolist()) < set(all_of_them.query.tolist())


def test_more_images_than_shots_teach_in_the_order_of_the_file(root: Path) -> None:
    benchmark = perseg(root, lambda episodes: [{"train": ["00_2.jpg", *episodes[0]["train"]], "val": ["38_2.jpg"]}])
    assert images_of(benchmark, draw(benchmark, episodes=1)[0].support)[:2] == ["00_2", "01_0"]


@pytest.mark.parametrize("form", ["00_0", "images/00_0.jpg", "/home/author/perseg/images/00_0.jpg", "./00_0.jpg"])
def test_names_may_have_other_folders_or_no_suffix(root: Path, form: str) -> None:
    plain = perseg(root)
    assert perseg(root, lambda episodes: [{**episodes[0], "train": [form, *episodes[0]["train"][1:]]}]).published == {
        1: plain.published[1][:1]
    }


def test_a_name_that_stands_for_several_images_is_none_of_them() -> None:
    names = ImageNames(["a/x.jpg", "b/x.jpg", "b/y.z.png"])
    assert [names.find(name, "", "") for name in ("a/x", "b/x.jpg", "y.z", "home/b/y.z.png")] == [
        "a/x.jpg",
        "b/x.jpg",
        "b/y.z.png",
        "b/y.z.png",
    ]
    with pytest.raises(EpisodeError, match=r"^it has x, which stands for several images; mend it$"):
        names.find("x.jpg", "it has x", "mend it")
    with pytest.raises(EpisodeError, match=r"^it has w, which is no image there; mend it$"):
        names.find("w.jpg", "it has w", "mend it")


_SHAPE = 'a list of {"train": [image names], "val": [image names]}'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {}, f"must be {_SHAPE}, found a dict; get the file again"),
        (lambda _: [], f"must be {_SHAPE}, found an empty list; get the file again"),
        (
            lambda e: [e[0], {"train": e[1]["train"]}],
            f"must be {_SHAPE}, but episode 1 has no list of names under 'val'; get the file again",
        ),
        (
            lambda e: [e[0], {**e[1], "train": [3]}],
            f"must be {_SHAPE}, but episode 1 has no list of names under 'train'; get the file again",
        ),
        (
            lambda e: [e[0], {**e[1], "val": ["gone.jpg"]}],
            "episode 1 has 'gone.jpg' in 'val', which is no image there; get images and file of one version, or move "
            "the file away to draw episodes in its place",
        ),
        (
            lambda e: [e[0], {"train": e[1]["train"][1:], "val": ["38_2"]}],
            "every object must be in 1 of the images in 'train', but episode 1 has 0 of 'backpack'; get the file "
            "again, or move it away to draw episodes in its place",
        ),
        (
            lambda e: [{"train": e[0]["train"], "val": [*e[0]["val"], "05_0"]}],
            "an image that teaches must not be asked about, but episode 0 has images/05_0.jpg in 'train' and in "
            "'val'; take it out of one",
        ),
    ],
)
def test_a_bad_file_is_refused(root: Path, change: Callable[[list[Any]], Any], message: str) -> None:
    with pytest.raises(EpisodeError) as refused:
        perseg(root, change)
    assert str(refused.value) == f"{root}/episodes.json: {message}"


def test_a_file_that_is_no_json(root: Path) -> None:
    (root / "episodes.json").write_text("[{")
    with pytest.raises(EpisodeError, match=r"episodes\.json: must be JSON, found Expecting .*; get the file again$"):
        open_benchmark("perseg", root)


def test_a_file_of_k_shots_has_k_images_of_every_object(build_handheld: Build, tmp_path: Path) -> None:
    root = build_handheld(tmp_path / "icub", 32)
    (root / "episodes_1shot.json").rename(root / "episodes_2shot.json")
    with pytest.raises(EpisodeError) as refused:
        open_benchmark("icubworld", root)
    assert str(refused.value) == (
        f"{root}/episodes_2shot.json: every object must be in 2 of the images in 'train', but episode 0 has 1 of "
        "'bottle0'; get the file again, or move it away to draw episodes in its place"
    )


def test_more_episodes_than_published(root: Path) -> None:
    with pytest.raises(EpisodeError) as refused:
        draw(perseg(root), episodes=3)
    assert str(refused.value) == (
        "benchmark perseg was published with 2 episodes of 1 shots, asked for 3; pass --episodes 2"
    )


def test_more_shots_than_images(root: Path) -> None:
    with pytest.raises(EpisodeError) as refused:
        draw(perseg(root), 5)
    assert str(refused.value) == (
        "object 'backpack' needs 6 images or more for 5 shots (5 to learn, 1 to ask about), found 3; pass --shots 2"
    )
