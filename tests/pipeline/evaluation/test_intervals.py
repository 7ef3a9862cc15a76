"""Four proofs for the interval over seeds: equals a plain reference, repeats bitwise, keeps its limits, its algebra."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocha_pipe.pipeline.evaluation.intervals import seed_mean
from mocha_pipe.student.fewshot.bootstrap import Interval

QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 11: 2.228}  # as printed in tables, by number of figures
FIGURES = st.lists(st.floats(0, 100), min_size=2, max_size=8).map(np.array)


def half_width(interval: Interval) -> float:
    assert interval.high - interval.mean == pytest.approx(interval.mean - interval.low)
    return interval.high - interval.mean


@pytest.mark.parametrize("count", QUANTILES)
def test_equals_the_formula_with_quantiles_from_a_table(count: int) -> None:
    values = np.random.default_rng(count).uniform(0, 100, count).tolist()
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    found = seed_mean(np.array(values))
    assert found.mean == pytest.approx(mean)
    assert half_width(found) == pytest.approx(QUANTILES[count] * spread / math.sqrt(count), rel=2e-4)


def test_repeats_to_the_last_bit() -> None:
    values = np.random.default_rng(3).uniform(0, 100, 5)
    assert seed_mean(values) == seed_mean(values.copy())


@given(values=FIGURES, shift=st.floats(-50, 50), scale=st.floats(-10, 10))
def test_shift_moves_the_mean_and_scale_stretches_both(values: np.ndarray, shift: float, scale: float) -> None:
    found, moved = seed_mean(values), seed_mean(values * scale + shift)
    assert moved.mean == pytest.approx(found.mean * scale + shift, abs=1e-9)
    assert half_width(moved) == pytest.approx(half_width(found) * abs(scale), abs=1e-9)


@given(values=FIGURES)
def test_the_order_of_the_seeds_does_not_matter(values: np.ndarray) -> None:
    found, turned = seed_mean(values), seed_mean(values[::-1])
    assert (turned.mean, turned.high) == pytest.approx((found.mean, found.high), abs=1e-9)


def test_differences_by_seed_cancel_what_a_seed_does_to_both() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 60, 5)
    gain = seed_mean((hard + 10 + rng.normal(0, 0.5, 5)) - (hard + rng.normal(0, 0.5, 5)))
    assert gain.mean == pytest.approx(10, abs=1)
    assert half_width(gain) < 2


def test_one_seed_has_no_interval_and_equal_figures_have_no_width() -> None:
    assert seed_mean(np.array([7.0])) == Interval(mean=7.0, low=-math.inf, high=math.inf)
    assert seed_mean(np.full(3, 7.0)) == Interval(mean=7.0, low=7.0, high=7.0)


def test_many_seeds_approach_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(50, 8, 20_000)
    assert half_width(seed_mean(values)) == pytest.approx(1.96 * values.std() / np.sqrt(len(values)), rel=1e-3)


def test_three_seeds_cover_the_truth_in_95_of_100_sweeps() -> None:
    sweeps = [seed_mean(values) for values in np.random.default_rng(2).normal(50, 8, (2000, 3))]
    covered = np.mean([found.low <= 50 <= found.high for found in sweeps])
    assert 0.935 < covered < 0.965


def test_json_form() -> None:
    assert Interval(mean=1.0, low=0.5, high=1.5).to_json() == {"mean": 1.0, "ci95": [0.5, 1.5]}
    assert seed_mean(np.array([1.0])).to_json() == {"mean": 1.0, "ci95": None}
