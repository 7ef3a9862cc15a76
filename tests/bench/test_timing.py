"""Pairs of timed calls, on a clock that is set by hand."""

import pytest

from bench import timing
from bench.timing import Pairs, figures_by_size


def test_both_ways_are_timed_and_each_goes_first_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []

    def work(name: str, took: float) -> None:
        order.append(name)
        clock[0] += took

    monkeypatch.setattr(timing, "thread_time", lambda: clock[0])
    pairs = Pairs()
    for turn in range(3):
        pairs.take(turn, lambda: work("plain", 2), lambda turn=turn: work("personal", 4 + turn))  # type: ignore[misc]
    assert order == ["personal", "plain", "plain", "personal", "personal", "plain"]
    assert (pairs.plain, pairs.personal, pairs.ratio) == ([2, 2, 2], [4, 5, 6], 2.5)
    assert str(pairs) == "5000.0 / 2000.0 ms per image"


def test_the_largest_size_has_the_target_and_the_plain_name() -> None:
    pairs = Pairs(plain=[2.0], personal=[3.0])
    found = figures_by_size("ratio", {320: pairs, 640: pairs, 160: pairs}, target=1.1, model="a/b.yaml", what="4 boxes")
    assert {name: figure.target for name, figure in found.items()} == {
        "ratio_320px": None, "ratio": 1.1, "ratio_160px": None
    }  # fmt: skip
    assert {figure.value for figure in found.values()} == {1.5}
    assert found["ratio_320px"].note == "3000.0 / 2000.0 ms per image; b, 320 px, 4 boxes, one thread, CPU"
