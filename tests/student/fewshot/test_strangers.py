"""Strangers: against plain loops, as a calibration on simulated draws, and as a file."""

import math
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.trainer import _measure_strangers
from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.fewshot.strangers import (
    STRANGERS_FILE,
    CalibrationError,
    accept_above,
    certainty,
    kept_rate,
    load_strangers,
    most_objects,
    promise,
    save_strangers,
    shortfall,
    stranger_closeness,
)
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.student_files import load_student, save_student

SEEDS, RATES = st.integers(0, 10_000), st.floats(0.02, 0.9)
some = settings(max_examples=25, deadline=None)


def regions(seed: int, *, count: int = 40, classes: int = 4, images: int = 9, dim: int = 6):
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(count, dim)).astype(np.float32)
    return shape, rng.integers(0, classes, count), rng.integers(0, images, count)


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def plain_closeness(rows, coarse, image, seed: int, count: int = 1) -> list[float]:
    order = sorted(range(len(rows)), key=lambda r: (coarse[r], image[r], r))
    found = []
    rng = np.random.default_rng(seed)
    for _ in range(count):
        for region, draw in zip(order, rng.random(len(rows)), strict=True):
            partners = [r for r in order if coarse[r] == coarse[region] and image[r] != image[region]]
            if partners:
                partner = partners[math.floor(draw * len(partners))]
                found.append(cosine(np.float64(rows[region]), np.float64(rows[partner])))
    return sorted(found)


@some
@given(
    seed=SEEDS, count=st.integers(0, 40), classes=st.integers(1, 8), images=st.integers(1, 12), draw=st.integers(0, 9),
    partners=st.integers(1, 3),
)  # fmt: skip
def test_equals_plain_loops(seed: int, count: int, classes: int, images: int, draw: int, partners: int) -> None:
    rows, coarse, image = regions(seed, count=count, classes=classes, images=images)
    found = stranger_closeness(rows, coarse, image, seed=draw, partners=partners)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(plain_closeness(rows, coarse, image, draw, partners)), atol=1e-6)


def test_equal_seeds_repeat_bitwise_and_others_draw_other_partners() -> None:
    first, second, other = (stranger_closeness(*regions(1), seed=seed) for seed in (5, 5, 6))
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


@some
@given(seed=SEEDS)
def test_lengths_of_vectors_and_numbers_of_classes_and_images_do_not_matter(seed: int) -> None:
    rows, coarse, image = regions(seed)
    scales = np.random.default_rng(seed).uniform(0.1, 10, (len(rows), 1))
    found = stranger_closeness(rows * scales, 3 * coarse + 7, image * 2 + 100)
    np.testing.assert_allclose(found, stranger_closeness(rows, coarse, image), atol=1e-6)


@some
@given(seed=SEEDS)
def test_the_order_of_the_regions_does_not_matter_where_it_draws_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, 5))
    coarse, image = np.repeat(np.arange(10), 2), np.tile([3, 8], 10)  # everyone has one partner
    order = rng.permutation(20)
    found = stranger_closeness(rows[order], coarse[order], image[order], seed=seed)
    np.testing.assert_array_equal(found, stranger_closeness(rows, coarse, image))
    rows, coarse, image = regions(seed)
    order = rng.permutation(len(rows))
    assert len(stranger_closeness(rows[order], coarse[order], image[order])) == len(
        stranger_closeness(rows, coarse, image)
    )


def test_over_many_draws_every_partner_is_drawn_alike() -> None:
    rows, coarse, image = regions(3, count=12, classes=2, images=4)
    pairs = [
        np.mean([cosine(rows[r], rows[p]) for p in range(12) if coarse[p] == coarse[r] and image[p] != image[r]])
        for r in range(12)
    ]
    copies = 2 * np.repeat(np.arange(3000), 12)  # each with classes of its own: as many draws at once
    drawn = stranger_closeness(np.tile(rows, (3000, 1)), np.tile(coarse, 3000) + copies, np.tile(image, 3000))
    assert drawn.mean() == pytest.approx(np.mean(pairs), abs=0.01)


def test_a_class_that_is_in_one_image_only_has_no_strangers() -> None:
    rows = np.eye(4, dtype=np.float32)
    assert stranger_closeness(rows, np.array([0, 0, 1, 2]), np.array([5, 5, 5, 6])).shape == (0,)
    assert stranger_closeness(rows[:0], np.zeros(0, int), np.zeros(0, int)).shape == (0,)


@some
@given(seed=SEEDS)
def test_certainty_equals_a_plain_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strangers = np.sort(np.round(rng.normal(size=rng.integers(0, 30)), 1).astype(np.float32))
    asked = np.append(np.round(rng.normal(size=20), 1), [-np.inf, 99])
    found = certainty(asked, strangers)
    for value, share in zip(np.float32(asked), certainty(np.float32(asked), strangers), strict=True):
        assert share == pytest.approx(sum(s < value for s in strangers) / (len(strangers) + 1))
    assert found.dtype == np.float32
    assert (found[-2], found[-1] < 1) == (0, True)
    assert (np.diff(found[np.argsort(asked)]) >= 0).all()


@some
@given(seed=SEEDS, rate=st.floats(0.05, 0.9))
def test_a_certainty_above_one_minus_the_rate_is_a_closeness_above_the_threshold(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    strangers = np.sort(np.round(rng.normal(size=rng.integers(20, 60)), 1).astype(np.float32))
    asked = np.round(rng.normal(size=50), 1).astype(np.float32)
    accepted = asked > accept_above(strangers, rate, 1)
    np.testing.assert_array_equal(certainty(asked, strangers) >= 1 - rate - 1e-6, accepted)


def plain_threshold(strangers: np.ndarray, rate: float) -> float:
    """The lowest of the scores that the right number of scores, or fewer, are at or above."""
    allowed = int(rate * (len(strangers) + 1) + 1e-9)
    return min(t for t in strangers if sum(u > t for u in strangers) < allowed)


@some
@given(seed=SEEDS, rate=RATES, objects=st.integers(1, 3))
def test_the_threshold_equals_a_plain_search(seed: int, rate: float, objects: int) -> None:
    strangers = np.round(np.random.default_rng(seed).normal(size=150), 1)
    threshold = accept_above(strangers, rate, objects)
    assert threshold == plain_threshold(strangers, rate / objects)
    assert np.mean(strangers > threshold) <= rate / objects


@some
@given(seed=SEEDS, shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_the_threshold_moves_with_the_strangers_whatever_their_order(seed: int, shift: float, scale: float) -> None:
    strangers = np.random.default_rng(seed).normal(size=50)
    moved = np.exp(np.random.default_rng(seed).permutation(strangers) * scale + shift)
    assert accept_above(moved, 0.1, 1) == pytest.approx(np.exp(accept_above(strangers, 0.1, 1) * scale + shift))
    assert accept_above(moved, 0.1, 1) == accept_above(moved, 0.1, 1)


def test_the_threshold_of_normal_scores_approaches_its_formula() -> None:
    errors = [abs(accept_above(np.random.default_rng(1).normal(size=n), 0.05, 1) - 1.6449) for n in (30, 1000, 100_000)]
    assert errors[-1] < min(0.02, errors[0])


@settings(max_examples=8, deadline=None)
@given(count=st.integers(20, 60), rate=st.floats(0.06, 0.5))
def test_one_more_stranger_is_accepted_as_often_as_stated(count: int, rate: float) -> None:
    draws = np.random.default_rng(count).standard_cauchy((4000, count + 1))  # no moments: nothing is assumed
    accepted = np.mean([row[-1] > accept_above(row[:-1], rate, 1) for row in draws])
    noise = 4 * math.sqrt(rate / 4000)
    assert rate - 1 / (count + 1) - noise < accepted < rate + noise


def test_with_ties_no_more_strangers_are_accepted_than_stated() -> None:
    draws = np.random.default_rng(0).integers(0, 4, (4000, 41))
    assert np.mean([row[-1] > accept_above(row[:-1], 0.1, 1) for row in draws]) <= 0.1


def test_as_few_strangers_as_a_rate_needs_are_enough() -> None:
    assert accept_above(np.arange(19.0), 0.05, 1) == 18
    assert accept_above(np.arange(99.0), 0.29, 1) == 70  # 0.29 * 100 is a little less than 29
    assert accept_above(np.array([-np.inf] * 9 + [0.5] * 10), 0.6, 1) == -np.inf


def test_strangers_get_one_of_four_names_at_most_at_the_stated_rate() -> None:
    """Whole draws: regions that measure, objects that are learnt from one photo each, one more stranger."""
    objects, rate, draws = 4, 0.2, 2000
    rng = np.random.default_rng(objects)
    count = np.zeros(draws, bool)
    for draw in range(draws):
        things = rng.standard_cauchy((60 + objects + 1, 5))  # no moments: nothing is assumed about embeddings
        strangers = stranger_closeness(things[:60], np.zeros(60, int), np.arange(60), seed=draw)
        closeness = max(cosine(things[-1], known) for known in things[60:-1])
        count[draw] = closeness > accept_above(strangers, rate, objects)
    noise = 4 * math.sqrt(rate / draws)
    assert count.mean() < rate + noise
    assert count.mean() > rate / 2  # and not because nothing is accepted at all


def test_more_objects_ask_for_more_closeness() -> None:
    strangers = np.linspace(-1, 1, 200, dtype=np.float32)
    thresholds = [accept_above(strangers, 0.1, objects) for objects in (1, 2, 10)]
    assert thresholds == sorted(set(thresholds))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    closeness = stranger_closeness(*regions(0))
    save_strangers(tmp_path, closeness[::-1])
    np.testing.assert_array_equal(load_strangers(tmp_path), closeness)
    save_strangers(tmp_path, closeness[:0])
    assert load_strangers(tmp_path).shape == (0,)
    assert [path.name for path in tmp_path.iterdir()] == [STRANGERS_FILE]


def test_a_distilled_student_is_measured_on_its_validation_images(
    tiny_models: dict[str, str], val_source: DetectionSource, tmp_path: Path
) -> None:
    model = DistillModel(tiny_models["v8"], num_classes=3, features="fine", target_dim=8)
    folder = save_student(model, tmp_path / "student", image_size=64, meta={})
    _measure_strangers(folder, val_source, torch.device("cpu"))
    rows = RegionEmbedder(load_student(folder), image_size=64).embed_pool(val_source).region_embedding
    coarse = np.concatenate([record.class_ids for record in val_source.records])
    image = np.repeat(np.arange(8), [len(record.class_ids) for record in val_source.records])
    found = load_strangers(folder)
    assert len(found) > 5
    np.testing.assert_allclose(found, np.array(plain_closeness(rows, coarse, image, 0, 16)), atol=1e-5)


def message(error: pytest.ExceptionInfo[MochaError]) -> str:
    assert isinstance(error.value, ValueError)
    return str(error.value)


def test_a_student_without_strangers(tmp_path: Path) -> None:
    with pytest.raises(StudentModelError) as error:
        load_strangers(tmp_path)
    expected = f"{tmp_path / STRANGERS_FILE}: no such file; run `mocha-pipe distill` again, which measures it."
    assert message(error) == expected


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": np.zeros(3, np.float32)},
        {"closeness": np.zeros(3)},
        {"closeness": np.zeros((3, 1), np.float32)},
        {"closeness": np.array([1, 0], np.float32)},
        {"closeness": np.array([0, np.nan], np.float32)},
    ],
)
def test_damaged_strangers(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, tmp_path / STRANGERS_FILE)
    with pytest.raises(StudentModelError) as error:
        load_strangers(tmp_path)
    assert message(error) == (
        f"{tmp_path / STRANGERS_FILE}: must hold `closeness`, a row of ascending float32; found something else; "
        "run `mocha-pipe distill` again, which measures it."
    )


def test_strangers_that_are_no_tensors(tmp_path: Path) -> None:
    (tmp_path / STRANGERS_FILE).write_bytes(b"no tensors")
    with pytest.raises(
        StudentModelError, match="ascending float32; found something else; run `mocha-pipe distill` again"
    ):
        load_strangers(tmp_path)


def test_too_few_strangers_give_the_strictest_threshold_and_say_what_it_keeps() -> None:
    assert accept_above(np.arange(18.0), 0.05, 1) == accept_above(np.arange(18.0), 1 / 19, 1) == 17
    assert shortfall(18, 0.05, 1) == (
        "a false-accept rate of 0.05 for 1 competing prototype needs 19 or more strangers, and the student has 18: "
        "names are given at the strictest threshold there is, which keeps a rate of 0.053; distil with more validation "
        "images for a lower one"
    )
    assert shortfall(19, 0.05, 1) is None
    assert accept_above(np.linspace(0, 1, 50), 0.05, 4) == accept_above(np.linspace(0, 1, 50), 4 / 51, 4) == 1
    assert str(shortfall(50, 0.05, 4)).startswith(
        "a false-accept rate of 0.05 for 4 competing prototypes needs 79 or more strangers, and the student has 50: "
    )
    assert accept_above(np.linspace(0, 1, 79), 0.05, 4) == 1
    assert shortfall(79, 0.05, 4) is None


def test_without_strangers_whatever_has_a_nearest_prototype_gets_its_name() -> None:
    assert accept_above(np.zeros(0), 0.05, 3) == -1
    assert "keeps a rate of 1;" in str(shortfall(0, 0.05, 3))


@given(seed=SEEDS, rate=RATES, objects=st.integers(1, 40), count=st.integers(1, 60))
@some
def test_the_kept_rate_is_one_that_a_threshold_of_its_own_keeps(
    seed: int, rate: float, objects: int, count: int
) -> None:
    strangers = np.random.default_rng(seed).normal(size=count)
    kept = kept_rate(count, rate, objects)
    assert kept >= rate
    assert (kept == rate) == (objects <= most_objects(count, rate))
    if kept < 1:
        assert accept_above(strangers, kept, objects) == accept_above(strangers, rate, objects)


def test_what_a_student_promises() -> None:
    assert promise(499, 0.05) == "0.05 for up to 25 competing objects; 0.002 is the lowest, for one object"
    assert promise(19, 0.05) == "0.05 for up to 1 competing object; 0.05 is the lowest, for one object"
    assert promise(6, 0.05) == (
        "not 0.05: 0.14 is the lowest, for one object, with 6 strangers; distil with more validation images"
    )


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5.0])
@pytest.mark.parametrize("objects", [1, 100])
def test_a_rate_that_is_no_share_is_refused_however_many_objects_share_it(rate: float, objects: int) -> None:
    with pytest.raises(CalibrationError) as error:
        accept_above(np.linspace(0, 1, 500), rate, objects)
    expected = f"a false-accept rate must be above 0 and below 1, found {rate:g}; 0.05 accepts one of twenty"
    assert message(error) == expected
