import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.student.fewshot import bootstrap
from mocha_pipe.student.fewshot.bootstrap import Interval, mean_interval

some = settings(max_examples=10, deadline=None)  # of 10,000 resamples each
FIGURES = st.lists(st.floats(0, 100), min_size=1, max_size=12).map(np.array)


def plain_interval(values: np.ndarray, seed: int) -> tuple[float, float, float]:
    """One resample at a time, and the percentiles by sorting."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (1000, len(values)))
    means = sorted(sum(values[i] for i in row) / len(values) for row in drawn)
    ends = []
    for share in (0.025, 0.975):
        place = share * (len(means) - 1)
        low = int(place)
        ends.append(means[low] + (place - low) * (means[min(low + 1, len(means) - 1)] - means[low]))
    return sum(values) / len(values), ends[0], ends[1]


def as_tuple(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def test_equals_one_resample_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bootstrap._RESAMPLES == 10_000
    monkeypatch.setattr(bootstrap, "_RESAMPLES", 1000)
    values = np.random.default_rng(3).uniform(0, 100, 7)
    np.testing.assert_allclose(as_tuple(mean_interval(values, seed=5)), plain_interval(values, 5))


def test_memory_is_bounded_whatever_the_number_of_episodes() -> None:
    values = np.random.default_rng(3).uniform(0, 100, 2000)  # 320 MB if all resamples were drawn at once
    mean_interval(values[:2], seed=5)  # imports what it needs
    tracemalloc.start()
    mean_interval(values, seed=5)
    assert tracemalloc.get_traced_memory()[1] < 64e6
    tracemalloc.stop()


def test_drawing_in_parts_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).uniform(0, 100, 7)
    whole = mean_interval(values, seed=5)
    monkeypatch.setattr(bootstrap, "_DRAWN_AT_ONCE", 7 * 999 + 3)
    assert mean_interval(values, seed=5) == whole


def test_repeats_under_its_seed_and_moves_under_another() -> None:
    values = np.random.default_rng(3).uniform(0, 100, 7)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_constant_has_no_width(count: int) -> None:
    interval = mean_interval(np.full(count, 0.1), seed=0)
    np.testing.assert_allclose(as_tuple(interval), 0.1, rtol=1e-12)


@some
@given(values=FIGURES, shift=st.floats(-50, 50), scale=st.floats(0.01, 10))
def test_shift_and_scale_carry_over(values: np.ndarray, shift: float, scale: float) -> None:
    moved = mean_interval(values * scale + shift, seed=0)
    expected = np.array(as_tuple(mean_interval(values, seed=0))) * scale + shift
    np.testing.assert_allclose(as_tuple(moved), expected, atol=1e-9)


@some
@given(values=FIGURES, seed=st.integers(0, 100))
def test_the_gain_is_antisymmetric_and_zero_over_itself(values: np.ndarray, seed: int) -> None:
    other = np.random.default_rng(seed).uniform(0, 100, len(values))
    gain, loss = mean_interval(values - other, seed=seed), mean_interval(other - values, seed=seed)
    np.testing.assert_allclose(as_tuple(gain), [-loss.mean, -loss.high, -loss.low], atol=1e-9)
    assert as_tuple(mean_interval(values - values, seed=seed)) == (0, 0, 0)


def test_pairing_cancels_what_makes_an_episode_hard() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 60, 40)
    gain = mean_interval((hard + 10 + rng.normal(0, 1, 40)) - (hard + rng.normal(0, 1, 40)), seed=0)
    assert 9 < gain.low < gain.mean < gain.high < 11


def test_covers_the_truth_and_narrows_with_more_episodes() -> None:
    rng = np.random.default_rng(7)
    covered, widths = 0, {}
    for count in (10, 40):
        intervals = [mean_interval(rng.normal(50, 8, count), seed=trial) for trial in range(40)]
        widths[count] = np.mean([interval.high - interval.low for interval in intervals])
        covered += sum(interval.low <= 50 <= interval.high for interval in intervals)
    assert 66 <= covered <= 80
    assert np.isclose(widths[10] / widths[40], 2, rtol=0.15)
    assert np.isclose(widths[40], 2 * 1.96 * 8 / np.sqrt(40), rtol=0.05)


def test_json_form() -> None:
    assert Interval(mean=1.0, low=0.5, high=1.5).to_json() == {"mean": 1.0, "ci95": [0.5, 1.5]}
    assert Interval(mean=1.0, low=-math.inf, high=math.inf).to_json() == {"mean": 1.0, "ci95": None}
