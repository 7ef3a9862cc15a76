"""Who exists in the miniature world, and where each object may be seen."""

import numpy as np
import pytest

from mocha_pipe.data.miniature.objects import SHAPES, PersonalObject, Split, personal_objects, random_object

SPLITS: tuple[Split, ...] = ("train", "val", "benchmark")


@pytest.mark.parametrize("split", SPLITS)
def test_random_object_belongs_to_its_split(split: Split) -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        drawn = [random_object(rng, shape, split) for _ in range(20)]
        assert {(thing.shape, thing.split) for thing in drawn} == {(shape, split)}
        assert all((thing.main == thing.second) == (thing.pattern == "plain") for thing in drawn)
        assert all(thing.sticker not in (thing.main, thing.second) for thing in drawn)


def test_benchmark_objects_of_one_shape_share_their_two_colours() -> None:
    things = personal_objects(np.random.default_rng(3), 4, "benchmark")
    assert [thing.shape for thing in things] == [shape for shape in SHAPES for _ in range(4)]
    assert len({thing.name for thing in things}) == len(things)
    for shape in SHAPES:
        colours = {frozenset((thing.main, thing.second)) for thing in things if thing.shape == shape}
        assert len(colours) == 1
        assert len(next(iter(colours))) == 2
    assert {thing.split for thing in things} == {"benchmark"}


def test_draws_repeat_under_a_seed_and_differ_under_another() -> None:
    first, again, other = (personal_objects(np.random.default_rng(seed), 3, "benchmark") for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("thing", "caption"),
    [
        (PersonalObject("mug", "red", "red", "plain"), "a red mug"),
        (PersonalObject("mug", "orange", "orange", "plain"), "an orange mug"),
        (PersonalObject("ring", "blue", "white", "dotted"), "a blue and white dotted ring"),
        (
            PersonalObject("star", "red", "white", "split", "orange"),
            "a red and white split star with an orange sticker",
        ),
    ],
)
def test_caption(thing: PersonalObject, caption: str) -> None:
    assert thing.caption == caption
