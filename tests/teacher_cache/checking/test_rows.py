import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.checking.rows import row_facts

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -2.0, 6e-8, 65504.0, -65504.0, np.inf, -np.inf, np.nan])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 11), st.lists(NUMBERS, min_size=33, max_size=33), st.booleans())
def test_facts_are_those_of_arithmetic(width: int, numbers: list[float], has_signed_nan: bool) -> None:
    rows = np.resize(np.array(numbers, np.float16), (7, width))
    rows[5] = rows[5, 0]
    rows[6] = -np.float16(np.nan) if has_signed_nan else np.nan
    asked = np.arange(7) % 2 == 0
    facts = row_facts([rows[:4], rows[4:]], asked)
    values = rows.astype(np.float64)
    is_finite = np.isfinite(values).all(axis=1)
    np.testing.assert_array_equal(facts.is_finite, is_finite)
    is_flat = is_finite & (values.max(axis=1) == values.min(axis=1)) & (width > 1)
    np.testing.assert_array_equal(facts.is_flat, is_flat)
    np.testing.assert_array_equal(facts.is_empty, asked & np.isnan(values).all(axis=1))
    np.testing.assert_array_equal(facts.largest[is_finite], np.abs(values[is_finite]).max(axis=1))


def in_chunks(rows: NDArray[np.float16]) -> NDArray[np.float16]:
    """As they lie in a shard file: two rows a chunk, a gap behind each chunk."""
    padded = np.zeros((2, 2 * rows.shape[1] + 2), np.float16)
    padded[:, :-2] = rows.reshape(2, -1)
    return padded[:, :-2].reshape(2, 2, -1)


@pytest.mark.parametrize("num_rows", [3, 4])
def test_rows_lie_in_chunks_and_the_last_is_filled_up(num_rows: int) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float16)
    rows[2] = 1.5
    facts = row_facts([in_chunks(rows)], np.zeros(num_rows, bool))
    assert facts.is_flat.tolist() == [False, False, True, False][:num_rows]
    np.testing.assert_array_equal(facts.largest, np.abs(rows).max(axis=1)[:num_rows])
