"""Names for regions: nearest prototype of the own class, or none."""

import numpy as np
import pytest

from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.strangers import CalibrationError, accept_above
from mocha_pipe.student.personal.naming import Namer
from mocha_pipe.student.personal.profile import Profile

CLASSES = ("mug", "ball", "boot")
STRANGERS = np.linspace(-1, 0.95, 999).astype(np.float32)
WIDTH = 6
RNG = np.random.default_rng(0)


def make_profile(learner: str = "conditional") -> Profile:
    """Three mugs and a ball; no boot."""
    profile = Profile.empty("digest", CLASSES, learner=learner)
    for name, coarse in (("my mug", 0), ("your mug", 0), ("our mug", 0), ("my ball", 1)):
        profile = profile.add(name, RNG.standard_normal((2, WIDTH)), np.array([coarse, coarse]))
    return profile


def near(profile: Profile, noise: float, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Regions around random prototypes, some of them seen as another class."""
    rng = np.random.default_rng(1)
    rows = rng.integers(len(profile.learner.prototypes_), size=count)
    embeddings = profile.learner.prototypes_[rows] + noise * rng.standard_normal((count, WIDTH))
    coarse = np.where(rng.random(count) < 0.2, rng.integers(3, size=count), profile.learner.coarse_[rows])
    return embeddings.astype(np.float32), coarse.astype(np.int64)


def plainly(profile: Profile, embedding: np.ndarray, coarse: int, rate: float) -> tuple[int, float]:
    """One region, in words: candidates, the one that the learner prefers, its cosine, strangers below it."""
    learner = profile.learner
    mine = [row for row in range(len(learner.coarse_)) if learner.coarse_[row] == coarse]
    if not mine:
        return UNKNOWN, 0.0
    row = int(learner.nearest(embedding[None], np.array([coarse]))[0][0])
    vector = learner.prototypes_[row].astype(np.float64)
    cosine = float(vector @ embedding / np.linalg.norm(vector) / np.linalg.norm(embedding))
    if row not in mine or cosine <= accept_above(STRANGERS, rate, len(mine)):
        return UNKNOWN, 0.0
    return int(learner.personal_[row]), sum(stranger < cosine for stranger in STRANGERS) / (len(STRANGERS) + 1)


@pytest.mark.parametrize("learner", ["conditional", "gallery", "protonet", "simpleshot"])
def test_names_equal_a_loop_over_regions(learner: str) -> None:
    profile = make_profile(learner)
    embeddings, coarse = near(profile, 0.5)
    namer = Namer(profile, STRANGERS, 0.2)
    asked = namer.may_name(coarse)
    personal, sure = namer(embeddings[asked], coarse[asked])
    expected = [plainly(profile, *region, 0.2) for region in zip(embeddings[asked], coarse[asked], strict=True)]
    np.testing.assert_array_equal(personal, [name for name, _ in expected])
    np.testing.assert_allclose(sure, [certainty for _, certainty in expected], atol=0.0011)
    assert 0.1 < (personal == UNKNOWN).mean() < 0.9
    assert sure.dtype == np.float32
    assert personal.dtype == np.int64


def test_only_classes_with_an_object_are_worth_embedding() -> None:
    namer = Namer(make_profile(), STRANGERS, 0.05)
    np.testing.assert_array_equal(namer.may_name(np.array([0, 1, 2, 2, 0])), [True, True, False, False, True])


def test_a_profile_without_objects_names_nothing() -> None:
    namer = Namer(Profile.empty("digest", CLASSES), STRANGERS, 0.05)
    assert not namer.may_name(np.arange(3)).any()
    assert namer.names == dict(enumerate(CLASSES))


def test_names_count_on_from_the_coarse_classes() -> None:
    names = Namer(make_profile(), STRANGERS, 0.05).names
    assert [names[index] for index in range(7)] == [*CLASSES, "my mug", "your mug", "our mug", "my ball"]
    assert len(names) == 7


def test_strangers_get_a_name_at_the_stated_rate() -> None:
    rng = np.random.default_rng(2)
    profile = Profile.empty("digest", CLASSES).add("my mug", rng.standard_normal((1, 3)), np.array([0]))
    pairs = rng.standard_normal((2, 4000, 3))
    pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
    strangers = np.sort((pairs[0] * pairs[1]).sum(axis=1)).astype(np.float32)
    personal, _ = Namer(profile, strangers, 0.1)(rng.standard_normal((4000, 3), np.float32), np.zeros(4000, np.int64))
    assert (personal != UNKNOWN).mean() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("rate", [0.001, 0.3, 0.9])
def test_a_lower_rate_gives_fewer_names_and_no_other_ones(rate: float) -> None:
    profile = make_profile()
    embeddings, coarse = near(profile, 1.0)
    keep = coarse < 2
    strict, _ = Namer(profile, np.linspace(-1, 0.95, 9999), rate)(embeddings[keep], coarse[keep])
    loose, _ = Namer(profile, np.linspace(-1, 0.95, 9999), 0.99)(embeddings[keep], coarse[keep])
    assert (strict != UNKNOWN).sum() < (loose != UNKNOWN).sum()
    np.testing.assert_array_equal(strict[strict != UNKNOWN], loose[strict != UNKNOWN])


def test_the_thing_itself_is_certain_and_its_opposite_unknown() -> None:
    profile = make_profile()
    prototypes = profile.learner.prototypes_
    namer = Namer(profile, STRANGERS, 0.05)
    personal, sure = namer(prototypes, profile.learner.coarse_)
    np.testing.assert_array_equal(personal, profile.learner.personal_)
    np.testing.assert_allclose(sure, 0.999, atol=1e-6)
    personal, sure = namer(-prototypes, profile.learner.coarse_)
    assert (personal == UNKNOWN).all()
    assert (sure == 0).all()


def test_too_few_strangers_for_the_rate_are_refused() -> None:
    with pytest.raises(CalibrationError, match="59 or more"):
        Namer(make_profile(), np.linspace(0, 1, 50, dtype=np.float32), 0.05)
