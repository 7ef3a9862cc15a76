import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.student.fewshot.confusion import confusion_by_coarse
from mocha_pipe.student.fewshot.metrics import MISSED, NamedBoxes, confusion, recognition_accuracy

some = settings(max_examples=25, deadline=None)
OUTCOMES = ("right", "mixed_up", "elsewhere", "unknown", "missed")


def world(seed: int, *, episodes: int = 3, objects: int = 7, classes: int = 3):
    """True and given names of every episode, their counts, and the coarse class of each object."""
    rng = np.random.default_rng(seed)
    coarse_of = rng.integers(0, classes, objects) * 2  # ids need not be dense
    asked = []
    for _ in range(episodes):
        count = rng.integers(1, 30)
        asked.append((rng.integers(0, objects, count), rng.integers(MISSED, objects, count)))
    return asked, np.stack([confusion(truth_of(truth), names, objects) for truth, names in asked]), coarse_of


def truth_of(personal: np.ndarray) -> NamedBoxes:
    return NamedBoxes(image=np.arange(len(personal)), xyxy=np.zeros((len(personal), 4)), personal=personal)


def plain_outcome(truth: int, name: int, coarse_of: np.ndarray) -> str:
    if name < 0:
        return "missed" if name == MISSED else "unknown"
    if name == truth:
        return "right"
    return "mixed_up" if coarse_of[name] == coarse_of[truth] else "elsewhere"


@some
@given(seed=st.integers(0, 10_000))
def test_shares_equal_a_plain_count(seed: int) -> None:
    asked, counts, coarse_of = world(seed)
    classes = confusion_by_coarse(counts, coarse_of)
    assert list(classes) == sorted(set(coarse_of.tolist()))
    for coarse, found in classes.items():
        expected = {outcome: [] for outcome in OUTCOMES}
        for truth, names in asked:
            pairs = [(t, n) for t, n in zip(truth, names, strict=True) if coarse_of[t] == coarse]
            outcomes = [plain_outcome(t, n, coarse_of) for t, n in pairs]
            for outcome in OUTCOMES:
                expected[outcome] += [100 * outcomes.count(outcome) / len(outcomes)] if outcomes else []
        shares = found.shares()
        assert tuple(shares) == OUTCOMES
        for outcome in OUTCOMES:
            np.testing.assert_allclose(shares[outcome], expected[outcome])


@some
@given(seed=st.integers(0, 10_000))
def test_every_count_is_in_one_place(seed: int) -> None:
    _, counts, coarse_of = world(seed)
    classes = confusion_by_coarse(counts, coarse_of).values()
    parts = [
        part.sum() for found in classes for part in (found.taken_for, found.elsewhere, found.unknown, found.missed)
    ]
    assert sum(parts) == counts.sum()
    for found in classes:
        for row, true in enumerate(found.objects):
            for column, name in enumerate(found.objects):
                np.testing.assert_array_equal(found.taken_for[:, row, column], counts[:, true, name])


@some
@given(seed=st.integers(0, 10_000))
def test_shares_sum_to_100_and_repeat_bitwise(seed: int) -> None:
    _, counts, coarse_of = world(seed)
    for coarse, found in confusion_by_coarse(counts, coarse_of).items():
        shares, again = found.shares(), confusion_by_coarse(counts, coarse_of)[coarse].shares()
        np.testing.assert_allclose(np.sum(list(shares.values()), axis=0), 100)
        assert all(shares[outcome].tobytes() == again[outcome].tobytes() for outcome in OUTCOMES)


def test_with_one_coarse_class_the_right_share_is_the_accuracy() -> None:
    asked, counts, coarse_of = world(5)
    right = confusion_by_coarse(counts, np.zeros_like(coarse_of))[0].shares()["right"]
    np.testing.assert_allclose(right, [recognition_accuracy(truth_of(truth), names) for truth, names in asked])


def test_an_episode_that_does_not_show_the_class_is_left_out() -> None:
    counts = np.zeros((3, 2, 4), np.int64)
    counts[0, 0, 0] = counts[2, 0, 1] = counts[1, 1, MISSED] = 1
    classes = confusion_by_coarse(counts, np.array([4, 9]))
    assert classes[4].shares()["right"].tolist() == [100, 0]
    assert classes[4].shares()["elsewhere"].tolist() == [0, 100]
    assert classes[9].shares()["missed"].tolist() == [100]


def test_shares_approach_what_they_were_drawn_with() -> None:
    errors = []
    for count in (40, 400, 40_000):
        names = np.random.default_rng(count).choice([0, 1, MISSED], count, p=[0.6, 0.3, 0.1])
        counts = confusion(truth_of(np.zeros(count, int)), names, 2)[None]
        shares = confusion_by_coarse(counts, np.array([0, 0]))[0].shares()
        errors.append(abs(shares["right"][0] - 60) + abs(shares["mixed_up"][0] - 30) + abs(shares["missed"][0] - 10))
    assert errors[-1] < 1.5
    assert errors[-1] < errors[0]
