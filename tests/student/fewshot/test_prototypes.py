import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.errors import MochaError
from mocha_pipe.student.fewshot.learner import UNKNOWN, PrototypeError
from mocha_pipe.student.fewshot.prototypes import LEARNERS, make_learner

NAMES = tuple(LEARNERS)
some = settings(max_examples=25, deadline=None)


def world(seed: int = 0, *, objects: int = 9, classes: int = 3, shots: int = 3, queries: int = 40, dim: int = 16):
    """Support and queries: object p is of coarse class p % classes; queries scatter about the objects' centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(objects, dim))
    personal = np.repeat(np.arange(objects), shots)
    support = centres[personal] + 0.4 * rng.normal(size=(len(personal), dim))
    asked = rng.integers(0, objects, queries)
    query = centres[asked] + 0.4 * rng.normal(size=(queries, dim))
    as_float = (support.astype(np.float32), query.astype(np.float32))
    return as_float[0], personal % classes, personal, as_float[1], asked % classes, asked, centres


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    powers = [np.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def cosine(a, b) -> float:
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def plain_means(support, coarse, personal) -> dict[tuple[int, int], np.ndarray]:
    means = {}
    for pair in sorted(set(zip(coarse, personal, strict=True))):
        rows = [row for row, c, p in zip(support, coarse, personal, strict=True) if (c, p) == pair]
        means[pair] = np.float64(rows).mean(axis=0)
    return means


def plain_scores(name: str, row, row_coarse, support, coarse, personal) -> dict[int, float]:
    """Scores of the candidates for one query, one distance at a time in float64, by personal id."""
    if name == "gallery":
        scores: dict[int, float] = {}
        for vector, who in zip(np.float64(support), personal, strict=True):
            scores[who] = max(scores.get(who, 0), cosine(row, vector))
        return scores
    if name == "simpleshot":
        row, support = row / np.linalg.norm(row), [vector / np.linalg.norm(vector) for vector in support]
    means = plain_means(support, coarse, personal)
    if name != "conditional":
        return dict(
            zip((p for _, p in means), softmax([-(((row - m) ** 2).sum()) for m in means.values()]), strict=True)
        )
    candidates = {p: mean for (c, p), mean in means.items() if c == row_coarse}
    shares = [
        softmax([1 / (distance(row, mean) + 1e-5) for mean in candidates.values()])
        for distance in (
            lambda a, b: 1 - cosine(a, b),
            lambda a, b: np.abs(a - b).mean(),
            lambda a, b: ((a - b) ** 2).mean(),
        )
        if candidates
    ]
    return dict(zip(candidates, (sum(column) / 3 for column in zip(*shares, strict=True)), strict=True))


@pytest.mark.parametrize("name", NAMES)
@some
@given(seed=st.integers(0, 10_000))
def test_equals_plain_loops(name: str, seed: int) -> None:
    objects, classes, shots, queries, dim = np.random.default_rng(seed).integers([1, 1, 1, 1, 8], [20, 7, 5, 15, 40])
    support, coarse, personal, query, query_coarse, _, _ = world(
        seed, objects=objects, classes=classes, shots=shots, queries=queries, dim=dim
    )
    query_coarse = np.where(np.arange(queries) % 7 == 0, 99, query_coarse)  # a class without prototypes
    names, scores = make_learner(name).learn(support, coarse, personal).predict(query, query_coarse)
    assert (names.dtype, scores.dtype) == (np.int64, np.float32)
    for row, row_coarse, given_name, score in zip(np.float64(query), query_coarse, names, scores, strict=True):
        expected = plain_scores(name, row, row_coarse, support, coarse, personal)
        best = max(expected.values(), default=0.0)
        assert score == pytest.approx(best, abs=1e-5)
        assert expected.get(given_name, 0.0) == pytest.approx(best, abs=1e-5)
        assert (given_name == UNKNOWN) == (not expected)


@pytest.mark.parametrize("name", NAMES)
def test_repeats_bitwise(name: str) -> None:
    support, coarse, personal, query, query_coarse, _, _ = world()
    first, second = (make_learner(name).learn(support, coarse, personal) for _ in range(2))
    for left, right in zip(first.predict(query, query_coarse), second.predict(query, query_coarse), strict=True):
        assert left.tobytes() == right.tobytes()
    assert first.prototypes_.tobytes() == second.prototypes_.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_more_shots_bring_prototypes_to_the_class_mean_and_names_to_the_truth(name: str) -> None:
    errors, hits = [], []
    for shots in (1, 10, 100):
        support, coarse, personal, query, query_coarse, asked, centres = world(5, shots=shots, dim=6, queries=400)
        learner = make_learner(name).learn(support, coarse, personal)
        order = np.argsort(learner.personal_)
        if not learner.unit_length:
            errors.append(np.abs(learner.prototypes_[order] - centres).max())
        hits.append((learner.predict(query, query_coarse)[0] == asked).mean())
    assert errors == sorted(errors, reverse=True)
    assert learner.unit_length or errors[-1] < 0.15
    assert hits[-1] > max(hits[0], 0.85)


def test_prototypes_are_sorted_means_with_counts() -> None:
    rows = np.array([[1, 0], [3, 2], [10, 10]], np.float32)
    learner = make_learner("conditional").learn(rows, np.array([4, 4, 1]), np.array([7, 7, 9]))
    np.testing.assert_array_equal(learner.prototypes_, [[10, 10], [2, 1]])
    np.testing.assert_array_equal(learner.coarse_, [1, 4])
    np.testing.assert_array_equal(learner.personal_, [9, 7])
    np.testing.assert_array_equal(learner.counts_, [1, 2])


@pytest.mark.parametrize("name", NAMES)
@some
@given(seed=st.integers(0, 1000), cut=st.integers(0, 27))
def test_the_running_mean_is_the_mean_in_any_order_and_in_any_portions(name: str, seed: int, cut: int) -> None:
    support, coarse, personal, *_ = world(seed)
    whole = make_learner(name).learn(support, coarse, personal)
    order = np.random.default_rng(seed).permutation(len(support))
    head, tail = order[:cut], order[cut:]
    portions = make_learner(name).learn(support[head], coarse[head], personal[head])
    portions.learn(support[tail], coarse[tail], personal[tail])
    if name == "gallery":  # every region stays, in the order of arrival within an object
        whole.prototypes_, portions.prototypes_ = (np.sort(rows.prototypes_, axis=0) for rows in (whole, portions))
    np.testing.assert_allclose(portions.prototypes_, whole.prototypes_, atol=1e-6)
    np.testing.assert_array_equal(portions.personal_, whole.personal_)
    np.testing.assert_array_equal(portions.counts_, whole.counts_)


def test_a_new_object_leaves_the_others_untouched() -> None:
    support, coarse, personal, *_ = world()
    learner = make_learner("conditional").learn(support, coarse, personal)
    before = learner.prototypes_[learner.personal_ != 50].tobytes()
    learner.learn(np.ones((1, support.shape[1]), np.float32), np.array([0]), np.array([50]))
    assert 50 in learner.personal_
    assert learner.prototypes_[learner.personal_ != 50].tobytes() == before


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gallery"])
def test_one_candidate_scores_one(name: str) -> None:
    learner = make_learner(name).learn(np.ones((2, 4), np.float32), np.array([3, 3]), np.array([8, 8]))
    names, scores = learner.predict(np.random.default_rng(0).normal(size=(5, 4)), np.full(5, 3))
    np.testing.assert_array_equal(names, 8)
    np.testing.assert_array_equal(scores, 1)


@pytest.mark.parametrize("name", ["simpleshot", "gallery"])
@some
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_these_ignore_the_length_of_an_embedding(name: str, seed: int, scale: float) -> None:
    support, coarse, personal, query, query_coarse, _, _ = world(seed)
    learner = make_learner(name).learn(support, coarse, personal)
    scaled = make_learner(name).learn(support * np.float32(scale), coarse, personal)
    names, scores = learner.predict(query, query_coarse)
    names_scaled, scores_scaled = scaled.predict(query * np.float32(2 * scale), query_coarse)
    np.testing.assert_allclose(scores, scores_scaled, atol=1e-5)
    assert (names == names_scaled).mean() > 0.95  # equal but for ties within rounding


def test_conditional_candidates_share_the_coarse_class() -> None:
    support, coarse, personal, query, query_coarse, _, _ = world(queries=300)
    names, _ = make_learner("conditional").learn(support, coarse, personal).predict(query, query_coarse)
    np.testing.assert_array_equal(names % 3, query_coarse)


@pytest.mark.parametrize("name", ["conditional", "gallery"])
def test_a_support_picture_itself_scores_nearly_one(name: str) -> None:
    support, coarse, personal, *_ = world(shots=1)
    names, scores = make_learner(name).learn(support, coarse, personal).predict(support, coarse)
    np.testing.assert_array_equal(names, personal)
    assert 0.999 < scores.min() <= scores.max() <= 1


def test_the_gallery_keeps_every_region_by_object() -> None:
    rows = np.array([[3, 0], [0, 2], [0, 5], [4, 4]], np.float32)
    gallery = make_learner("gallery").learn(rows, np.array([4, 4, 1, 4]), np.array([7, 6, 9, 7]))
    np.testing.assert_allclose(gallery.prototypes_, [[0, 1], [0, 1], [1, 0], [0.5**0.5, 0.5**0.5]])
    np.testing.assert_array_equal(gallery.personal_, [9, 6, 7, 7])
    np.testing.assert_array_equal(gallery.coarse_, [1, 4, 4, 4])
    np.testing.assert_array_equal(gallery.counts_, [1, 1, 1, 1])


def test_one_picture_of_a_side_is_enough_for_the_gallery_but_not_for_a_mean() -> None:
    support = np.array([[1, 0], [-1, 0], [-0.5, 1], [-0.5, 1]], np.float32)  # object 0 has two sides
    personal, coarse, query = np.array([0, 0, 1, 1]), np.zeros(4, int), np.array([[-1, 0.3]], np.float32)
    assert make_learner("gallery").learn(support, coarse, personal).predict(query, coarse[:1])[0] == 0
    assert make_learner("simpleshot").learn(support, coarse, personal).predict(query, coarse[:1])[0] == 1


def test_the_gallery_names_the_nearest_of_regions_that_all_point_away_but_scores_it_zero() -> None:
    support = np.array([[-1, 0], [-1, 0.5]], np.float32)
    gallery = make_learner("gallery").learn(support, np.zeros(2, int), np.array([3, 8]))
    names, scores = gallery.predict(np.array([[1, 0.1]], np.float32), np.zeros(1, int))
    assert (names.tolist(), scores.tolist()) == ([8], [0])


@pytest.mark.parametrize("name", ["protonet", "simpleshot", "gallery"])
def test_the_coarse_class_does_not_matter_to_these(name: str) -> None:
    support, coarse, personal, query, query_coarse, _, _ = world()
    learner = make_learner(name).learn(support, coarse, personal)
    for left, right in zip(
        learner.predict(query, query_coarse), learner.predict(query, query_coarse + 50), strict=True
    ):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", NAMES)
def test_the_nearest_row_bears_the_name(name: str) -> None:
    support, coarse, personal, query, query_coarse, _, _ = world()
    query_coarse = np.where(np.arange(len(query)) % 7 == 0, 99, query_coarse)
    learner = make_learner(name).learn(support, coarse, personal)
    rows, scores = learner.nearest(query, query_coarse)
    names, expected_scores = learner.predict(query, query_coarse)
    assert [UNKNOWN if row == UNKNOWN else learner.personal_[row] for row in rows] == names.tolist()
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("name", NAMES)
def test_closeness_is_the_cosine_with_the_nearest_row(name: str) -> None:
    support, coarse, personal, query, query_coarse, _, _ = world()
    query_coarse = np.where(np.arange(len(query)) % 7 == 0, 99, query_coarse)
    learner = make_learner(name).learn(support, coarse, personal)
    rows, _ = learner.nearest(query, query_coarse)
    expected = [
        -np.inf if row == UNKNOWN else cosine(np.float64(vector), np.float64(learner.prototypes_[row]))
        for vector, row in zip(query, rows, strict=True)
    ]
    np.testing.assert_allclose(learner.closeness(query, rows), expected, atol=1e-6)
    np.testing.assert_allclose(learner.closeness(query * np.float32(3), rows), expected, atol=1e-6)
    assert learner.closeness(query, rows).tobytes() == learner.closeness(query, rows).tobytes()


def test_closeness_tells_what_a_share_among_one_candidate_cannot() -> None:
    learner = make_learner("conditional").learn(np.array([[1, 0, 0]], np.float32), np.zeros(1, int), np.zeros(1, int))
    query = np.array([[0.9, 0.1, 0], [0, 1, 0], [-1, 0, 0]], np.float32)
    rows, scores = learner.nearest(query, np.zeros(3, int))
    assert scores.tolist() == [1, 1, 1]
    near, far, opposite = learner.closeness(query, rows)
    assert near > 0.99
    assert (far, opposite) == (0, -1)


def test_without_supports_everything_is_unknown() -> None:
    for name in NAMES:
        learner = make_learner(name).learn(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
        names, scores = learner.predict(np.ones((3, 4)), np.zeros(3, int))
        np.testing.assert_array_equal(names, UNKNOWN)
        np.testing.assert_array_equal(scores, 0)
        assert learner.predict(np.zeros((0, 4)), np.zeros(0, int))[0].shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_all_that_a_learner_knows(name: str) -> None:
    support, coarse, personal, query, query_coarse, _, _ = world()
    learner, other = make_learner(name).learn(support, coarse, personal), make_learner(name)
    other.absorb(**learner.tensors())
    for left, right in zip(other.predict(query, query_coarse), learner.predict(query, query_coarse), strict=True):
        assert left.tobytes() == right.tobytes()
    np.testing.assert_array_equal(other.counts_, learner.counts_)


@pytest.mark.parametrize("name", NAMES)
def test_absorbing_another_learner_is_learning_from_both_supports(name: str) -> None:
    support, coarse, personal, *_ = world(shots=5)
    together = make_learner(name).learn(support, coarse, personal)
    cut = 23  # within an object
    parts = (slice(cut), slice(cut, None))
    first, second = (make_learner(name).learn(support[part], coarse[part], personal[part]) for part in parts)
    absorbed = first.absorb(**second.tensors())
    for key, value in absorbed.tensors().items():
        np.testing.assert_allclose(value, together.tensors()[key], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_learner_that_knows_nothing_takes_embeddings_of_any_width(name: str) -> None:
    nothing = make_learner(name).learn(np.zeros((0, 0)), np.zeros(0, int), np.zeros(0, int))
    rows, _ = nothing.nearest(np.ones((2, 5)), np.zeros(2, int))
    assert nothing.closeness(np.ones((2, 5)), rows).tolist() == [-np.inf, -np.inf]
    assert nothing.learn(np.ones((1, 5)), np.zeros(1, int), np.zeros(1, int)).prototypes_.shape == (1, 5)


OPEN = [name for name in NAMES if name != "conditional"]


def test_only_the_reference_lets_the_class_decide() -> None:
    assert {name: learner.by_class for name, learner in LEARNERS.items()} == {
        "conditional": True, "protonet": False, "simpleshot": False, "gallery": False
    }  # fmt: skip


@pytest.mark.parametrize("name", OPEN)
@some
@given(seed=st.integers(0, 1000))
def test_classes_at_enrolment_do_not_matter_to_these(name: str, seed: int) -> None:
    """A thing whose class changed from photo to photo is compared as one that kept its class."""
    support, coarse, personal, query, query_coarse, _, _ = world(seed)
    seen_as = np.random.default_rng(seed).integers(0, 4, len(support))
    steady, unsure = (make_learner(name).learn(support, classes, personal) for classes in (coarse, seen_as))
    expected, found = (learner.predict(query, query_coarse) for learner in (steady, unsure))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
    cosines = [learner.closeness(query, learner.nearest(query, query_coarse)[0]) for learner in (steady, unsure)]
    np.testing.assert_allclose(cosines[1], cosines[0], atol=1e-5)
    assert unsure.candidates(query_coarse).tolist() == steady.candidates(query_coarse).tolist()


def test_rows_of_one_object_are_compared_as_the_mean_of_its_photos() -> None:
    rows = np.array([[4, 0], [0, 2], [2, 2], [9, 9]], np.float32)
    learner = make_learner("protonet").learn(rows, np.array([0, 1, 0, 1]), np.array([5, 5, 5, 3]))
    np.testing.assert_allclose(learner.prototypes_, [[3, 1], [9, 9], [0, 2]])
    np.testing.assert_allclose(learner.compared(), [[2, 4 / 3], [9, 9], [2, 4 / 3]])
    assert (learner.coarse_.tolist(), learner.counts_.tolist()) == ([0, 1, 1], [2, 1, 1])
    for name in ("conditional", "gallery"):
        alone = make_learner(name).learn(rows, np.array([0, 1, 0, 1]), np.array([5, 5, 5, 3]))
        np.testing.assert_array_equal(alone.compared(), alone.prototypes_)


def test_candidates_are_those_of_the_class_or_all() -> None:
    rows, coarse, personal = np.eye(5, dtype=np.float32), np.array([0, 2, 2, 0, 0]), np.array([7, 7, 8, 9, 9])
    expected = {"conditional": [2, 0, 2, 0], "protonet": [3] * 4, "simpleshot": [3] * 4, "gallery": [5] * 4}
    for name in NAMES:
        learner = make_learner(name)
        assert learner.candidates(np.arange(4)).tolist() == [0] * 4
        assert learner.learn(rows, coarse, personal).candidates(np.arange(4)).tolist() == expected[name]


def message(error: pytest.ExceptionInfo[MochaError]) -> str:
    assert isinstance(error.value, ValueError)
    return str(error.value)


def test_unknown_learner() -> None:
    with pytest.raises(PrototypeError) as error:
        make_learner("svm")
    assert message(error) == "--learner must be one of conditional, protonet, simpleshot, gallery; found 'svm'."


@pytest.mark.parametrize("call", ["predict", "learn"])
def test_embeddings_of_another_width(call: str) -> None:
    learner = make_learner("conditional").learn(np.ones((1, 4)), np.zeros(1, int), np.zeros(1, int))
    arguments = [np.ones((1, 5)), np.zeros(1, int)] + [np.zeros(1, int)] * (call == "learn")
    with pytest.raises(PrototypeError) as error:
        getattr(learner, call)(*arguments)
    assert message(error) == (
        "prototypes and embeddings must have one width: the prototypes have 4, the embeddings 5. "
        "They come from different students; fit the prototypes again with this one."
    )
