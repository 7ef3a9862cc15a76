"""Small matrices: shares, what is cut off, and which come first."""

from typing import Any

import numpy as np
import pytest

from mocha_pipe.pipeline.report.matrices import MOST_OBJECTS, Matrix, matrices


def counts(objects: int, seed: int = 0, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    aside = {name: rng.integers(1, 9, objects).tolist() for name in ("elsewhere", "unknown", "missed")}
    return {
        "objects": [f"object {number}" for number in range(objects)],
        "taken_for": rng.integers(1, 40, (objects, objects)).tolist(),
        **aside,
        "shares": {"right": {"mean": 50.0, "ci95": [40.0, 60.0]}},
        **changes,
    }


def only(given: dict[str, Any]) -> Matrix:
    (found,) = matrices({"mug": given})
    return found


def shares(matrix: Matrix) -> list[list[float]]:
    return [[share for _, share in cells] for cells in matrix.rows.values()]


def test_a_row_is_what_one_object_was_taken_for() -> None:
    given = counts(3)
    found = only(given)
    assert found.columns == ("1", "2", "3", "elsewhere", "unknown", "missed")
    assert list(found.rows) == ["1 object 0", "2 object 1", "3 object 2"]
    for number, row in enumerate(shares(found)):
        counted = [*given["taken_for"][number], *(given[name][number] for name in ("elsewhere", "unknown", "missed"))]
        assert row == pytest.approx([100 * count / sum(counted) for count in counted])
        assert sum(row) == pytest.approx(100)
    assert [kind for kind, _ in found.rows["2 object 1"]] == ["wrong", "right", "wrong", "wrong", "lost", "lost"]


def test_what_never_happened_has_no_column() -> None:
    assert only(counts(2, elsewhere=[0, 0], unknown=[0, 1], missed=[0, 0])).columns == ("1", "2", "unknown")


def test_of_a_large_class_the_objects_with_the_fewest_right_names_are_shown() -> None:
    given = counts(20, seed=3)
    found = only(given)
    everything = np.column_stack([given["taken_for"], *(given[name] for name in ("elsewhere", "unknown", "missed"))])
    right = everything.diagonal() / everything.sum(axis=1)
    hardest = sorted(np.argsort(right)[:MOST_OBJECTS].tolist())
    assert list(found.rows) == [f"{number + 1} object {number}" for number in hardest]
    assert found.columns == (*(str(number + 1) for number in hardest), "others", "elsewhere", "unknown", "missed")
    assert found.left_out == 12
    for row, number in zip(shares(found), hardest, strict=True):
        assert sum(row) == pytest.approx(100)
        others = sum(given["taken_for"][number][other] for other in range(20) if other not in hardest)
        assert row[MOST_OBJECTS] == pytest.approx(100 * others / everything[number].sum())


def test_an_object_that_nobody_asked_about_gives_way() -> None:
    given = counts(MOST_OBJECTS + 1)
    given["taken_for"][0] = [0] * (MOST_OBJECTS + 1)
    for name in ("elsewhere", "unknown", "missed"):
        given[name][0] = 0
    assert "1 object 0" not in only(given).rows
    alone = counts(1, taken_for=[[0]], elsewhere=[0], unknown=[0], missed=[0])
    assert shares(only(alone)) == [[0.0]]


def test_classes_with_the_fewest_right_names_come_first() -> None:
    def right(mean: float) -> dict[str, Any]:
        return {"right": {"mean": mean, "ci95": [mean, mean]}}

    found = matrices({"a": counts(2, shares=right(70)), "b": counts(2, shares=right(30)), "c": counts(2)})
    assert [matrix.coarse for matrix in found] == ["b", "c", "a"]
    assert found[0].right["mean"] == 30
