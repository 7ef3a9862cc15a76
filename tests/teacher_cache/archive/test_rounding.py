import numpy as np
import pytest
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.archive.rounding import (
    LEAST_COSINE,
    OFFSET,
    cosines,
    kept_neighbours,
    restore_rows,
    round_rows,
)

RANDOM = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float16)


def outliers() -> NDArray[np.float16]:
    """A few dimensions two hundred times as large as the rest, as language models have them."""
    rows = RANDOM.copy()
    rows[:, :2] *= 200
    return rows


@pytest.mark.parametrize(
    "rows",
    [
        RANDOM,
        outliers(),
        (RANDOM * 10_000).astype(np.float16),
        (RANDOM * 1e-6).astype(np.float16),  # hardly more than float16 can tell from zero
        np.eye(8, dtype=np.float16) * 65504,
        -np.eye(8, dtype=np.float16) * 65504,
        np.full((2, 5), 6e-8, np.float16),
    ],
)
def test_every_row_keeps_its_direction(rows: NDArray[np.float16]) -> None:
    stored, steps = round_rows(rows)
    assert (stored.dtype, steps.dtype) == (np.int16, np.float32)
    back = restore_rows(stored, steps)
    assert back.dtype == np.float16
    assert np.isfinite(back).all()
    has_length = (rows != 0).any(axis=1)
    assert cosines(rows, back)[has_length].min() >= LEAST_COSINE


def test_most_multiples_fit_a_byte() -> None:
    stored, _ = round_rows(RANDOM)
    assert (stored // 256 == 0).mean() > 0.99


def test_rows_of_zeros_and_of_nan_stay_what_they_are() -> None:
    rows = np.stack([RANDOM[0], np.zeros(96), np.full(96, np.nan)]).astype(np.float16)
    stored, steps = round_rows(rows)
    assert stored[1].tolist() == [OFFSET] * 96
    back = restore_rows(stored, steps)
    assert not back[1].any()
    assert np.isnan(back[2]).all()
    assert cosines(rows, back)[1] == 1


def test_a_row_that_a_28th_would_bend_gets_a_smaller_step() -> None:
    rows = np.full((2, 128), 0.00157, np.float16)  # just below half of the step that the large number asks for
    rows[:, 0] = 1
    rows[1] = RANDOM[0, 0]
    exact = rows.astype(np.float64)
    stored, steps = round_rows(rows)
    assert steps[0] == pytest.approx(np.sqrt((exact[0] ** 2).mean()) / 56, rel=1e-5)
    assert steps[1] == pytest.approx(np.sqrt((exact[1] ** 2).mean()) / 28, rel=1e-5)
    assert cosines(rows, restore_rows(stored, steps)).min() >= LEAST_COSINE


def test_neighbours_are_counted() -> None:
    rows = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.2, 0.9]], np.float16)
    assert kept_neighbours(rows, 3 * rows) == 1
    turned = rows.copy()
    turned[3] = [0.7, 0.4]  # from the side of row 2 to that of row 1, which keeps its own
    assert kept_neighbours(rows, turned) == pytest.approx(1 - 2 / 4) or kept_neighbours(rows, turned) == 0.75
