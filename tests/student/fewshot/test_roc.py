import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.student.fewshot.roc import Scores, auroc, false_accept_at_recall, roc_curve

SEEDS = st.integers(0, 10_000)
some = settings(max_examples=25, deadline=None)

Side = np.ndarray


def drawn(seed: int, *, tied: bool = False) -> tuple[Side, Side]:
    """Scores of regions of personal objects and of unrelated ones; with ties and with regions that nothing is near."""
    rng = np.random.default_rng(seed)
    known, unrelated = (rng.normal(shift, 1, rng.integers(1, 30)) for shift in (1, 0))
    if tied:
        known, unrelated = (np.where(rng.random(len(x)) < 0.1, -np.inf, np.round(x, 1)) for x in (known, unrelated))
    return known, unrelated


def alike(known: Side, unrelated: Side) -> tuple[Scores, Scores]:
    """All regions count alike."""
    return Scores(known, np.ones(len(known))), Scores(unrelated, np.ones(len(unrelated)))


def plain_auroc(known: Side, unrelated: Side) -> float:
    pairs = [1.0 if k > u else 0.5 if k == u else 0.0 for k in known for u in unrelated]
    return sum(pairs) / len(pairs)


@some
@given(seed=SEEDS, tied=st.booleans())
def test_auroc_equals_a_plain_count_of_pairs(seed: int, tied: bool) -> None:
    known, unrelated = drawn(seed, tied=tied)
    assert auroc(*alike(known, unrelated)) == pytest.approx(plain_auroc(known, unrelated))


@some
@given(seed=SEEDS, tied=st.booleans())
def test_the_curve_equals_plain_shares_and_its_area_is_auroc(seed: int, tied: bool) -> None:
    known, unrelated = drawn(seed, tied=tied)
    false_accept, recall = roc_curve(*alike(known, unrelated))
    thresholds = sorted({*known.tolist(), *unrelated.tolist()}, reverse=True)
    for threshold, accepted, recalled in zip(thresholds, false_accept[:-1], recall[:-1], strict=True):
        assert accepted == pytest.approx(np.mean([u > threshold for u in unrelated]))
        assert recalled == pytest.approx(np.mean([k > threshold for k in known]))
    assert (false_accept[-1], recall[-1]) == (1, 1)
    area = sum((false_accept[n] - false_accept[n - 1]) * (recall[n] + recall[n - 1]) / 2 for n in range(1, len(recall)))
    assert area == pytest.approx(auroc(*alike(known, unrelated)))


@some
@given(seed=SEEDS, tied=st.booleans(), recall=st.floats(0.05, 1))
def test_the_rate_at_a_recall_equals_a_plain_search(seed: int, tied: bool, recall: float) -> None:
    known, unrelated = drawn(seed, tied=tied)
    rates = [
        np.mean([u > t for u in unrelated])
        for t in [*known, *unrelated]
        if np.mean([k > t for k in known]) >= recall - 1e-9
    ]
    assert false_accept_at_recall(*alike(known, unrelated), recall) == pytest.approx(min(rates, default=1.0))


@some
@given(seed=SEEDS, tied=st.booleans(), recall=st.floats(0.05, 1))
def test_a_region_that_counts_twice_is_two_regions(seed: int, tied: bool, recall: float) -> None:
    both = drawn(seed, tied=tied)
    rng = np.random.default_rng(seed)
    counts = [rng.integers(1, 5, len(side)) for side in both]
    doubled = alike(*(np.repeat(side, count) for side, count in zip(both, counts, strict=True)))
    weighted = (Scores(both[0], counts[0] / 7), Scores(both[1], counts[1] / 3))
    assert auroc(*weighted) == pytest.approx(auroc(*doubled))
    assert false_accept_at_recall(*weighted, recall) == pytest.approx(false_accept_at_recall(*doubled, recall))
    for found, expected in zip(roc_curve(*weighted), roc_curve(*doubled), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_everything_repeats_bitwise() -> None:
    both = drawn(3)
    for figure in (auroc, lambda *sides: false_accept_at_recall(*sides, 0.95)):
        assert figure(*alike(*both)) == figure(*alike(*both))
    for first, second in zip(roc_curve(*alike(*both)), roc_curve(*alike(*both)), strict=True):
        assert first.tobytes() == second.tobytes()


@some
@given(seed=SEEDS, shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_only_the_order_of_scores_counts(seed: int, shift: float, scale: float) -> None:
    known, unrelated = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(unrelated))
    plain, moved = alike(known, unrelated), alike(*(np.exp(rows * scale + shift) for rows in (known, unrelated[order])))
    assert auroc(*moved) == auroc(*plain)
    assert false_accept_at_recall(*moved, 0.95) == false_accept_at_recall(*plain, 0.95)
    np.testing.assert_array_equal(roc_curve(*moved), roc_curve(*plain))


@some
@given(seed=SEEDS, tied=st.booleans())
def test_exchanging_the_sides_turns_auroc_around(seed: int, tied: bool) -> None:
    known, unrelated = alike(*drawn(seed, tied=tied))
    assert auroc(unrelated, known) == pytest.approx(1 - auroc(known, unrelated))
    assert auroc(known, known) == pytest.approx(0.5)


@some
@given(seed=SEEDS)
def test_the_curve_never_turns_back(seed: int) -> None:
    for shares in roc_curve(*alike(*drawn(seed, tied=True))):
        assert shares[0] == 0
        assert (np.diff(shares) >= 0).all()


def test_figures_of_normal_scores_approach_their_formulas() -> None:
    def phi(z: float) -> float:
        return (1 + math.erf(z / math.sqrt(2))) / 2

    errors = []
    for count in (30, 1000, 100_000):
        rng = np.random.default_rng(1)
        both = alike(rng.normal(2, 1, count), rng.normal(0, 1, count))
        found = np.array([auroc(*both), false_accept_at_recall(*both, 0.95)])
        errors.append(np.abs(found - [phi(2 / math.sqrt(2)), phi(1.6449 - 2)]))
    assert max(errors[-1]) < 0.02
    assert (errors[-1] < errors[0]).all()


def test_regions_that_nothing_is_near_are_accepted_last() -> None:
    both = alike(np.array([0.9, -np.inf]), np.array([0.1, 0.2]))
    assert auroc(*both) == 0.5
    assert false_accept_at_recall(*both, 0.5) == 0
    assert false_accept_at_recall(*both, 0.95) == 1
