from pathlib import Path

import numpy as np
import pytest

from mocha_pipe.data.benchmarks.episodes import Episode, draw_episodes
from mocha_pipe.data.errors import EpisodeError
from mocha_pipe.data.types import DetectionSource, ImageRecord, PersonalBenchmark

NAMES = ("red mug", "blue mug", "my ball")


def make_benchmark(names: tuple[str, ...] = NAMES, num_images: int = 30, rare: int | None = None) -> PersonalBenchmark:
    """Scene i holds two objects (i and i + 1 modulo P), the first of them twice; `rare` limits the first name."""
    order = [names.index(name) for name in NAMES]
    records = []
    for image in range(num_images):
        objects = [image % 3, image % 3, (image + 1) % 3]
        if rare is not None and image >= rare:
            objects = [1, 2, 2]
        records.append(
            ImageRecord(
                path=Path(f"{image:03}.jpg"),
                name=f"{image:03}.jpg",
                width=100,
                height=100,
                xyxy=np.tile([0.0, 0, 10, 10], (3, 1)),
                class_ids=np.array([order[number] for number in objects]),
            )
        )
    source = DetectionSource(root=Path(), split="test", class_names=names, records=tuple(records))
    return PersonalBenchmark(
        name="toy", source=source, coarse_names=("mug", "ball"), coarse_of=np.zeros(len(names), np.int64)
    )


BENCHMARK = make_benchmark()
CLASS_OF_ROW = np.concatenate([record.class_ids for record in BENCHMARK.source.records])


def draw(
    shots: int = 2, seed: int = 0, benchmark: PersonalBenchmark = BENCHMARK, **options: int
) -> tuple[Episode, ...]:
    return draw_episodes(benchmark, **{"episodes": 4, "reserve": 5, **options}, shots=shots, seed=seed)


def test_support_holds_the_first_region_of_each_object_in_different_images() -> None:
    for episode in draw(shots=5):
        assert (episode.support.shape, episode.support.dtype, episode.query.dtype) == ((3, 5), np.int64, np.int64)
        for class_id, rows in enumerate(episode.support):
            images = rows // 3
            assert len(set(images.tolist())) == 5
            for row, image in zip(rows, images, strict=True):
                assert row == np.flatnonzero((class_id == CLASS_OF_ROW) & (np.arange(90) // 3 == image))[0]


def test_no_support_image_is_asked_about() -> None:
    for episode in draw(shots=5):
        assert not set((episode.support // 3).ravel().tolist()) & set(episode.query.tolist())
        assert episode.query.tolist() == sorted(set(range(30)) - set((episode.support // 3).ravel().tolist()))


def test_the_same_seed_repeats_and_another_differs() -> None:
    for first, second, other in zip(draw(), draw(), draw(seed=1), strict=True):
        np.testing.assert_array_equal(first.support, second.support)
        np.testing.assert_array_equal(first.query, second.query)
        assert not np.array_equal(first.support, other.support)
    assert len({episode.support.tobytes() for episode in draw()}) == 4
    assert [(episode.index, episode.seed, episode.shots) for episode in draw(seed=7)] == [(i, 7, 2) for i in range(4)]


def test_draws_are_those_of_every_machine_and_version() -> None:
    episode = draw(shots=3, seed=0, query_images=4)[0]
    assert episode.support.tolist() == [[18, 53, 72], [11, 48, 30], [78, 60, 41]]
    assert episode.query.tolist() == [2, 4, 19, 23]


def test_more_episodes_do_not_change_the_first() -> None:
    for few, many in zip(draw(), draw(episodes=9), strict=False):
        np.testing.assert_array_equal(few.support, many.support)


def test_shots_nest_and_share_one_query() -> None:
    for one, two, five in zip(draw(shots=1), draw(shots=2), draw(shots=5), strict=True):
        np.testing.assert_array_equal(one.support, five.support[:, :1])
        np.testing.assert_array_equal(two.support, five.support[:, :2])
        np.testing.assert_array_equal(one.query, five.query)


def test_query_sample_is_sorted_seeded_and_part_of_the_whole() -> None:
    whole, sample = draw(), draw(query_images=6)
    for all_left, some in zip(whole, sample, strict=True):
        assert len(some.query) == 6
        assert some.query.tolist() == sorted(set(some.query.tolist()) & set(all_left.query.tolist()))
        np.testing.assert_array_equal(some.support, all_left.support)
    np.testing.assert_array_equal(draw(query_images=6)[0].query, sample[0].query)
    assert sample[0].query.tolist() != draw(query_images=6, seed=1)[0].query.tolist()
    assert len(draw(query_images=1000)[0].query) == len(whole[0].query)


def test_order_of_objects_does_not_matter() -> None:
    shuffled = ("my ball", "red mug", "blue mug")
    for first, second in zip(draw(), draw(benchmark=make_benchmark(shuffled)), strict=True):
        for name in NAMES:
            np.testing.assert_array_equal(first.support[NAMES.index(name)], second.support[shuffled.index(name)])
        np.testing.assert_array_equal(first.query, second.query)


@pytest.mark.parametrize(
    ("rare", "message"),
    [
        (
            3,
            "object 'red mug' needs 6 images or more for 5 shots (5 to learn, 1 to ask about), found 2; pass --shots 1",
        ),
        (
            1,
            "object 'red mug' needs 6 images or more for 5 shots (5 to learn, 1 to ask about), found 1; "
            "add images of it",
        ),
    ],
)
def test_object_in_too_few_images(rare: int, message: str) -> None:
    with pytest.raises(EpisodeError) as caught:
        draw(benchmark=make_benchmark(rare=rare))
    assert str(caught.value) == message


def test_no_image_left_for_the_query() -> None:
    with pytest.raises(EpisodeError) as caught:
        draw(benchmark=make_benchmark(num_images=9))
    assert str(caught.value) == "the 5 support images of each object use up all 9 images; pass a lower --shots"


@pytest.mark.parametrize("shots", [0, 6])
def test_shots_beyond_the_reserve(shots: int) -> None:
    with pytest.raises(EpisodeError) as caught:
        draw(shots=shots)
    assert str(caught.value) == f"--shots must be at least 1 and at most the reserve, found {shots} with a reserve of 5"
