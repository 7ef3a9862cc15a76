"""The parts of the graph against what they stand for: learners, and means over a box."""

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch

from mocha_pipe.student.fewshot.learner import UNKNOWN, PrototypeLearner
from mocha_pipe.student.fewshot.prototypes import LEARNERS, make_learner
from mocha_pipe.student.network.features import box_means, box_slots
from mocha_pipe.student.personal.graph import GRAPH_LEARNERS, _means, _named_once
from mocha_pipe.student.personal.naming import named_once

CLASSES = 4


def nearest_in_graph(learner: PrototypeLearner, queries: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Row of the nearest prototype, UNKNOWN for the last row, which stands for none."""
    known = np.vstack([learner.compared(), np.zeros_like(queries[:1])])
    classes = np.append(learner.coarse_, -1)
    arrays = (queries, coarse, known.astype(np.float32), classes)
    scores = GRAPH_LEARNERS[learner.name](*map(torch.from_numpy, arrays))
    assert scores.isfinite().all()
    rows = scores.argmax(dim=1).numpy()
    # Of rows that stand for one vector the graph may take any; the learner takes the first.
    same = (
        (learner.compared()[:, None] == learner.compared()).all(axis=2).argmax(axis=1) if len(classes) > 1 else rows[:0]
    )
    return np.append(same, UNKNOWN)[rows]


def fitted(name: str, rng: np.random.Generator, shots: int, dim: int = 16) -> PrototypeLearner:
    """Objects of all classes but the last."""
    coarse = rng.integers(0, CLASSES - 1, shots)
    return make_learner(name).learn(rng.standard_normal((shots, dim)), coarse, rng.integers(0, 6, shots))


@pytest.mark.parametrize("name", LEARNERS)
def test_the_nearest_prototype_is_the_learners(name: str) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        learner = fitted(name, rng, shots=12)
        queries, coarse = rng.standard_normal((40, 16)).astype(np.float32), rng.integers(0, CLASSES, 40)
        rows, _ = learner.nearest(queries, coarse)
        np.testing.assert_array_equal(nearest_in_graph(learner, queries, coarse), rows)
    assert (rows == UNKNOWN).any() == (name == "conditional")


@pytest.mark.parametrize("name", LEARNERS)
def test_a_query_very_near_to_a_prototype_is_no_trouble(name: str) -> None:
    rng = np.random.default_rng(0)
    learner = fitted(name, rng, shots=12)
    noise = rng.standard_normal(learner.prototypes_.shape) * np.logspace(-8, -2, len(learner.prototypes_))[:, None]
    for queries in (learner.prototypes_, (learner.prototypes_ + noise).astype(np.float32)):
        rows, _ = learner.nearest(queries, learner.coarse_)
        np.testing.assert_array_equal(nearest_in_graph(learner, queries, learner.coarse_), rows)
        if name in ("conditional", "gallery"):  # the others may prefer a longer one
            np.testing.assert_array_equal(rows, np.arange(len(rows)))


@pytest.mark.parametrize("name", LEARNERS)
def test_without_prototypes_nothing_is_near(name: str) -> None:
    nothing = make_learner(name).learn(np.zeros((0, 16)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    queries = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    assert (nearest_in_graph(nothing, queries, np.arange(5)) == UNKNOWN).all()


def test_means_are_those_of_box_means() -> None:
    torch.manual_seed(0)
    level = torch.randn(1, 5, 9, 7)
    corners = torch.rand(30, 2, 2).sort(dim=1).values.flatten(1)
    corners[:3] = torch.tensor([[0, 0, 1, 1], [0.4, 0.4, 0.4, 0.4], [-0.2, 0.5, 0.3, 1.7]])
    expected = box_means([level], box_slots(torch.zeros(30, dtype=torch.int64), num_images=1), corners)
    torch.testing.assert_close(_means(level[0], corners), expected, rtol=0, atol=1e-6)
    assert _means(level[0], corners[:0]).shape == (0, 5)


@pytest.mark.parametrize("seed", range(20))
def test_one_thing_has_its_name_once_as_in_the_predictor(seed: int) -> None:
    """Boxes of one class and name, which are NMS's affair, are apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.permutation(np.repeat(np.arange(3), 10))
    corner = np.zeros((30, 2))
    for own in range(3):
        corner[coarse == own] = 6 * np.arange(10)[:, None] + rng.uniform(0, 1.5, (10, 2))
    boxes = np.hstack([corner, corner + rng.uniform(9, 11, (30, 2))]).astype(np.float32)
    objects = np.array([0, 1, 1, 0])
    personal = rng.integers(-1, 4, 30)
    scores = np.sort(rng.random(30).astype(np.float32))[::-1].copy()
    stay = _named_once(*map(torch.from_numpy, (boxes, scores, personal, objects)))
    expected = named_once(boxes, np.append(objects, UNKNOWN)[personal], coarse)
    assert stay.tolist() == np.flatnonzero(expected).tolist()
    assert expected.sum() < 30
