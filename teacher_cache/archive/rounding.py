"""How a lossy archive rounds: each row to whole multiples of a step of its own, so that outliers cost no other row.

A row's step is a 28th of its root mean square, and half of that, again and again, while its cosine is below 0.9999.
Multiples are stored with 128 added: most of them then fit one byte, and the other byte of an int16 costs nothing.
Legend: n rows, D width.
"""

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.store.layout import FLOAT16_MAX

RULE = "every row to whole multiples of 1/28 of its root mean square, or less"
"""What the spec of a rounded cache says."""
LEAST_COSINE = 0.9999
"""Every row keeps this cosine with what it was."""
OFFSET = 128
_STEPS = 28  # leaves cosines of about 0.99993 and half of the bytes


def round_rows(values_nD: NDArray[np.float16]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:  # (n, D), (n,)
    """Multiples, with `OFFSET` added, and the step of each row. A row of NaN gets the step NaN, one of zeros 0."""
    values = values_nD.astype(np.float32)
    steps_n = (np.sqrt(np.square(values, dtype=np.float64).mean(axis=1)) / _STEPS).astype(np.float32)
    is_left = np.ones(len(values), bool)
    stored = np.full(values.shape, OFFSET, np.int16)
    while is_left.any():
        steps_n1 = np.where(steps_n[is_left] > 0, steps_n[is_left], 1)[:, None]
        multiples = np.nan_to_num(np.round(values[is_left] / steps_n1))
        assert np.abs(multiples).max(initial=0) + OFFSET <= np.iinfo(np.int16).max, "a row is wider than 10 ** 6"
        stored[is_left] = multiples.astype(np.int16) + OFFSET
        is_left = cosines(values_nD, restore_rows(stored, steps_n)) < LEAST_COSINE  # False for NaN
        steps_n[is_left] /= 2
    return stored, steps_n


def restore_rows(
    stored_nD: NDArray[np.int16], steps_n: NDArray[np.float32]
) -> NDArray[np.float16]:  # (n, D), (n,) -> (n, D)
    """The rounded rows."""
    values = (stored_nD.astype(np.float32) - OFFSET) * steps_n[:, None]
    restored_nD: NDArray[np.float16] = np.clip(values, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)
    return restored_nD


def cosines(exact_nD: NDArray[np.float16], rounded_nD: NDArray[np.float16]) -> NDArray[np.float64]:  # -> (n,)
    """Cosine of each row with what it became; 1 for a row of zeros that stayed one, NaN for a row of NaN."""
    exact, rounded = exact_nD.astype(np.float64), rounded_nD.astype(np.float64)
    products = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    dots = np.einsum("nd,nd->n", exact, rounded)
    is_same = (exact_nD == rounded_nD).all(axis=1)
    cosines_n: NDArray[np.float64] = np.where(is_same, 1.0, dots / np.where(products == 0, 1, products))
    return cosines_n


def kept_neighbours(exact_nD: NDArray[np.float16], rounded_nD: NDArray[np.float16]) -> float:
    """Share of the rows whose nearest other row, by cosine, is the same after rounding; n is at least 2."""
    return float((_nearest(exact_nD) == _nearest(rounded_nD)).mean())


def _nearest(rows_nD: NDArray[np.float16]) -> NDArray[np.int64]:
    rows = rows_nD.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    similarity_nn = rows @ rows.T
    np.fill_diagonal(similarity_nn, -2)
    nearest_n: NDArray[np.int64] = similarity_nn.argmax(axis=1)
    return nearest_n
