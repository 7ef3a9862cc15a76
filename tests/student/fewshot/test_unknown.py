import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.errors import MochaError
from mocha_pipe.student.fewshot.unknown import CalibrationError, auroc, calibrate, false_accept_at_recall, roc_curve

RATES = st.floats(0.02, 0.9)


def scores(seed: int, *, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores of regions of personal objects and of unrelated ones; with ties and with regions that nothing is near."""
    rng = np.random.default_rng(seed)
    known, unrelated = (rng.normal(shift, 1, rng.integers(1, 30)) for shift in (1, 0))
    if tied:
        known, unrelated = (np.where(rng.random(len(x)) < 0.1, -np.inf, np.round(x, 1)) for x in (known, unrelated))
    return known, unrelated


def plain_auroc(known: np.ndarray, unrelated: np.ndarray) -> float:
    pairs = [1.0 if k > u else 0.5 if k == u else 0.0 for k in known for u in unrelated]
    return sum(pairs) / len(pairs)


def plain_threshold(unrelated: np.ndarray, rate: float) -> float:
    """The lowest of the scores that the right number of scores, or fewer, are at or above."""
    allowed = int(rate * (len(unrelated) + 1) + 1e-9)
    return min(t for t in unrelated if sum(u > t for u in unrelated) < allowed)


@given(seed=st.integers(0, 10_000), tied=st.booleans())
def test_auroc_equals_a_plain_count_of_pairs(seed: int, tied: bool) -> None:
    known, unrelated = scores(seed, tied=tied)
    assert auroc(known, unrelated) == pytest.approx(plain_auroc(known, unrelated))


@given(seed=st.integers(0, 10_000), tied=st.booleans())
def test_the_curve_equals_plain_shares_and_its_area_is_auroc(seed: int, tied: bool) -> None:
    known, unrelated = scores(seed, tied=tied)
    curve = roc_curve(known, unrelated)
    assert sorted(set(known.tolist() + unrelated.tolist()), reverse=True) == curve.threshold[:-1].tolist()
    for threshold, accepted, recalled in zip(
        curve.threshold[:-1], curve.false_accept[:-1], curve.recall[:-1], strict=True
    ):
        assert accepted == pytest.approx(np.mean([u > threshold for u in unrelated]))
        assert recalled == pytest.approx(np.mean([k > threshold for k in known]))
    assert (curve.threshold[-1], curve.false_accept[-1], curve.recall[-1]) == (-np.inf, 1, 1)
    area = sum(
        (curve.false_accept[n] - curve.false_accept[n - 1]) * (curve.recall[n] + curve.recall[n - 1]) / 2
        for n in range(1, len(curve.recall))
    )
    assert area == pytest.approx(auroc(known, unrelated))


@given(seed=st.integers(0, 10_000), tied=st.booleans(), recall=st.floats(0.05, 1))
def test_the_rate_at_a_recall_equals_a_plain_search(seed: int, tied: bool, recall: float) -> None:
    known, unrelated = scores(seed, tied=tied)
    rates = [
        np.mean([u > t for u in unrelated])
        for t in [*known, *unrelated]
        if np.mean([k > t for k in known]) >= recall - 1e-9
    ]
    assert false_accept_at_recall(known, unrelated, recall) == pytest.approx(min(rates, default=1.0))


@given(seed=st.integers(0, 10_000), tied=st.booleans(), recall=st.floats(0.05, 1))
def test_a_region_that_counts_twice_is_two_regions(seed: int, tied: bool, recall: float) -> None:
    known, unrelated = scores(seed, tied=tied)
    rng = np.random.default_rng(seed)
    counts = tuple(rng.integers(1, 5, len(side)) for side in (known, unrelated))
    doubled = [np.repeat(side, count) for side, count in zip((known, unrelated), counts, strict=True)]
    weights = (counts[0] / 7, counts[1] / 3)
    assert auroc(known, unrelated, weights=weights) == pytest.approx(auroc(*doubled))
    rate = false_accept_at_recall(known, unrelated, recall, weights=weights)
    assert rate == pytest.approx(false_accept_at_recall(*doubled, recall))
    found, expected = roc_curve(known, unrelated, weights=weights), roc_curve(*doubled)
    np.testing.assert_array_equal(found.threshold, expected.threshold)
    np.testing.assert_allclose(found.false_accept, expected.false_accept, atol=1e-12)
    np.testing.assert_allclose(found.recall, expected.recall, atol=1e-12)


@given(seed=st.integers(0, 10_000), rate=RATES)
def test_the_threshold_equals_a_plain_search(seed: int, rate: float) -> None:
    unrelated = np.round(np.random.default_rng(seed).normal(size=80), 1)
    threshold = calibrate(unrelated, rate)
    assert threshold == plain_threshold(unrelated, rate)
    assert np.mean(unrelated > threshold) <= rate


def test_everything_repeats_bitwise() -> None:
    known, unrelated = scores(3)
    for figure in (auroc, false_accept_at_recall, lambda _, unrelated: calibrate(unrelated, 0.3)):
        assert figure(known, unrelated) == figure(known, unrelated)
    first, second = roc_curve(known, unrelated), roc_curve(known, unrelated)
    for name in ("threshold", "false_accept", "recall"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


@given(seed=st.integers(0, 10_000), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_only_the_order_of_scores_counts(seed: int, shift: float, scale: float) -> None:
    known, unrelated = scores(seed)
    order = np.random.default_rng(seed).permutation(len(unrelated))
    moved_known, moved = (np.exp(rows * scale + shift) for rows in (known, unrelated[order]))
    assert auroc(moved_known, moved) == auroc(known, unrelated)
    assert false_accept_at_recall(moved_known, moved) == false_accept_at_recall(known, unrelated)
    np.testing.assert_array_equal(roc_curve(moved_known, moved).recall, roc_curve(known, unrelated).recall)
    many = np.random.default_rng(seed).normal(size=50)
    expected = np.exp(calibrate(many, 0.1) * scale + shift)
    assert calibrate(np.exp(many * scale + shift), 0.1) == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), tied=st.booleans())
def test_exchanging_the_sides_turns_auroc_around(seed: int, tied: bool) -> None:
    known, unrelated = scores(seed, tied=tied)
    assert auroc(unrelated, known) == pytest.approx(1 - auroc(known, unrelated))
    assert auroc(known, known) == pytest.approx(0.5)


@given(seed=st.integers(0, 10_000))
def test_the_curve_never_turns_back(seed: int) -> None:
    curve = roc_curve(*scores(seed, tied=True))
    assert (curve.false_accept[0], curve.recall[0]) == (0, 0)
    assert (curve.threshold[1:] <= curve.threshold[:-1]).all()
    assert (np.diff(curve.false_accept) >= 0).all()
    assert (np.diff(curve.recall) >= 0).all()


def test_figures_of_normal_scores_approach_their_formulas() -> None:
    def phi(z: float) -> float:
        return (1 + math.erf(z / math.sqrt(2))) / 2

    errors = []
    for count in (30, 1000, 100_000):
        rng = np.random.default_rng(1)
        known, unrelated = rng.normal(2, 1, count), rng.normal(0, 1, count)
        errors.append(
            [
                abs(auroc(known, unrelated) - phi(2 / math.sqrt(2))),
                abs(false_accept_at_recall(known, unrelated) - phi(1.6449 - 2)),
                abs(calibrate(unrelated, 0.05) - 1.6449),
            ]
        )
    assert max(errors[-1]) < 0.02
    assert (np.array(errors[-1]) < np.array(errors[0])).all()


@settings(max_examples=8, deadline=None)
@given(count=st.integers(20, 60), rate=st.floats(0.06, 0.5))
def test_one_more_unrelated_region_is_accepted_as_often_as_stated(count: int, rate: float) -> None:
    draws = np.random.default_rng(count).standard_cauchy((4000, count + 1))  # no moments: nothing is assumed
    accepted = np.mean([row[-1] > calibrate(row[:-1], rate) for row in draws])
    noise = 4 * math.sqrt(rate / 4000)
    assert rate - 1 / (count + 1) - noise < accepted < rate + noise


def test_with_ties_no_more_is_accepted_than_stated() -> None:
    draws = np.random.default_rng(0).integers(0, 4, (4000, 41))
    assert np.mean([row[-1] > calibrate(row[:-1], 0.1) for row in draws]) <= 0.1


def test_as_few_scores_as_a_rate_needs_are_enough() -> None:
    assert calibrate(np.arange(19.0), 0.05) == 18
    assert calibrate(np.arange(99.0), 0.29) == 70  # 0.29 * 100 is a little less than 29
    assert calibrate(np.array([-np.inf] * 9 + [0.5] * 10), 0.6) == -np.inf


def test_regions_that_nothing_is_near_are_accepted_last() -> None:
    known, unrelated = np.array([0.9, -np.inf]), np.array([0.1, 0.2])
    assert auroc(known, unrelated) == 0.5
    assert false_accept_at_recall(known, unrelated, 0.5) == 0
    assert false_accept_at_recall(known, unrelated) == 1


def message(error: pytest.ExceptionInfo[MochaError]) -> str:
    assert isinstance(error.value, ValueError)
    return str(error.value)


def test_too_few_scores_for_the_rate() -> None:
    with pytest.raises(CalibrationError) as error:
        calibrate(np.arange(18.0), 0.05)
    assert message(error) == (
        "a false-accept rate of 0.05 needs 19 or more regions that are none of the objects, found 18; calibrate on "
        "more of them, or ask for a rate of 1/19 or more"
    )
    assert calibrate(np.arange(18.0), 1 / 19) == 17
    with pytest.raises(CalibrationError) as error:
        calibrate(np.zeros(0), 0.05)
    assert message(error).endswith("found 0; calibrate on more of them")


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5.0])
def test_a_rate_that_is_no_share(rate: float) -> None:
    with pytest.raises(CalibrationError) as error:
        calibrate(np.arange(99.0), rate)
    expected = f"a false-accept rate must be above 0 and below 1, found {rate:g}; 0.05 accepts one of twenty"
    assert message(error) == expected
