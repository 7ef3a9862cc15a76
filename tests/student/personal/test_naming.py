"""Names for regions: nearest prototype of the own class or of all, or none; and one name for one thing."""

import numpy as np
import pytest

from mocha_pipe.data.boxes import box_iou
from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.strangers import CalibrationError, accept_above
from mocha_pipe.student.personal.naming import SAME_THING_IOU, Namer, named_once
from mocha_pipe.student.personal.profile import Profile

CLASSES = ("mug", "ball", "boot")
STRANGERS = np.linspace(-1, 0.95, 999).astype(np.float32)
WIDTH = 6
RNG = np.random.default_rng(0)
OPEN = ["gallery", "protonet", "simpleshot"]


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
    mine = [row for row, own in enumerate(learner.coarse_) if own == coarse or learner.name != "conditional"]
    if not mine:
        return UNKNOWN, 0.0
    row = int(learner.nearest(embedding[None], np.array([coarse]))[0][0])
    vector = learner.prototypes_[row].astype(np.float64)
    cosine = float(vector @ embedding / np.linalg.norm(vector) / np.linalg.norm(embedding))
    if cosine <= accept_above(STRANGERS, rate, len(mine)):
        return UNKNOWN, 0.0
    return int(learner.personal_[row]), sum(stranger < cosine for stranger in STRANGERS) / (len(STRANGERS) + 1)


@pytest.mark.parametrize("learner", ["conditional", "gallery", "protonet", "simpleshot"])
def test_names_equal_a_loop_over_regions(learner: str) -> None:
    profile = make_profile(learner)
    embeddings, coarse = near(profile, 0.35)
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


def test_with_too_few_strangers_for_the_rate_the_closest_of_them_decides() -> None:
    few = np.linspace(0, 0.5, 50, dtype=np.float32)
    profile = make_profile()
    namer = Namer(profile, few, 0.05)
    assert "needs 59 or more strangers, and the student has 50" in str(namer.shortfall)
    personal, _ = namer(profile.learner.prototypes_, profile.learner.coarse_)
    assert (personal == profile.learner.personal_).all()
    assert Namer(profile, STRANGERS, 0.05).shortfall is None
    with pytest.raises(CalibrationError, match="above 0 and below 1"):
        Namer(Profile.empty("digest", CLASSES), few, 5)


def test_five_hundred_objects_of_one_class_have_their_names() -> None:
    rng = np.random.default_rng(0)
    profile = Profile.empty("digest", CLASSES)
    rows = directions(rng, 500).astype(np.float32)
    for number, row in enumerate(rows):
        profile = profile.add(f"mug {number}", row[None], np.zeros(1, np.int64))
    namer = Namer(profile, np.linspace(-1, 0.9, 491, dtype=np.float32), 0.05)
    personal, _ = namer(rows, np.zeros(500, np.int64))
    assert (personal == np.arange(500)).all()
    assert "keeps a rate of 1;" in str(namer.shortfall)


# --- where all objects compete ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", OPEN)
def test_a_thing_keeps_its_name_under_any_class(learner: str) -> None:
    """Also one that the detector had no class for when it was learnt."""
    duck = np.random.default_rng(5).standard_normal((1, WIDTH))
    profile = make_profile(learner).add("my duck", duck, np.array([len(CLASSES)]))
    namer = Namer(profile, STRANGERS, 0.05)
    assert namer.may_name(np.arange(3)).all()
    personal, sure = namer(np.repeat(duck, 3, axis=0).astype(np.float32), np.arange(3))
    assert [profile.names[name] for name in personal] == ["my duck"] * 3
    assert (sure > 0.99).all()
    assert not Namer(Profile.empty("digest", CLASSES, learner=learner), STRANGERS, 0.05).may_name(np.arange(3)).any()


def test_to_the_reference_the_class_decides() -> None:
    profile = make_profile()
    (row,) = np.flatnonzero(profile.learner.coarse_ == 1)
    ball = np.repeat(profile.learner.prototypes_[[row]], 2, axis=0)
    personal, _ = Namer(profile, STRANGERS, 0.05)(ball, np.array([1, 0]))
    assert [name if name == UNKNOWN else profile.names[name] for name in personal] == ["my ball", UNKNOWN]


def directions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.standard_normal((*shape, 4))
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("learner", OPEN)
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
def test_strangers_get_any_name_at_the_stated_rate_or_less(learner: str, rate: float) -> None:
    """Strangers and objects point anywhere, so that the closeness of strangers is known; over many draws of both."""
    accepted = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        measured = np.sort((directions(rng, 999) * directions(rng, 999)).sum(axis=1)).astype(np.float32)
        profile = Profile.empty("digest", CLASSES, learner=learner)
        for number in range(8):
            profile = profile.add(f"object {number}", directions(rng, 1), rng.integers(0, 4, 1))
        strangers, coarse = directions(rng, 500).astype(np.float32), rng.integers(0, 3, 500)
        accepted.append((Namer(profile, measured, rate)(strangers, coarse)[0] != UNKNOWN).mean())
    spread = np.std(accepted) / len(accepted) ** 0.5
    assert rate / 3 < np.mean(accepted) < rate + 2 * spread


@pytest.mark.parametrize("learner", OPEN)
def test_strangers_of_clusters_get_a_name_at_the_stated_rate_or_less(learner: str) -> None:
    """Things of a class are alike. The threshold is that of pairs of one class, which most strangers do not make."""
    accepted = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        centres = 2 * directions(rng, 3)
        pairs = centres[rng.integers(0, 3, 1999)] + directions(rng, 2, 1999)
        pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
        measured = np.sort((pairs[0] * pairs[1]).sum(axis=1)).astype(np.float32)
        profile = Profile.empty("digest", CLASSES, learner=learner)
        for number in range(9):
            profile = profile.add(
                f"object {number}", centres[[number % 3]] + directions(rng, 1), np.array([number % 3])
            )
        coarse = rng.integers(0, 3, 500)
        strangers = (centres[coarse] + directions(rng, 500)).astype(np.float32)
        accepted.append((Namer(profile, measured, 0.1)(strangers, coarse)[0] != UNKNOWN).mean())
    assert 0.01 < np.mean(accepted) < 0.1


@pytest.mark.parametrize("learner", OPEN)
def test_the_rate_is_shared_by_all_objects_of_the_profile(learner: str) -> None:
    """Four objects at right angles, each of another class; a region in the plane of the first."""
    profile = Profile.empty("digest", CLASSES, learner=learner)
    for number, row in enumerate(np.eye(4, WIDTH)):
        profile = profile.add(f"object {number}", row[None], np.array([number]))
    least = accept_above(STRANGERS, 0.2, 4)
    cosines = least + np.array([-0.01, 0.01])
    regions = np.zeros((2, WIDTH), np.float32)
    regions[:, 0], regions[:, 5] = cosines, (1 - cosines**2) ** 0.5
    for coarse in range(3):
        personal, _ = Namer(profile, STRANGERS, 0.2)(regions, np.full(2, coarse))
        assert personal.tolist() == [UNKNOWN, 0]


# --- one thing, one name ----------------------------------------------------------------------------------------------

MUG, CUP = 0, 1
BOX, SAME, BESIDE = [0, 0, 10, 10], [0, 1, 10, 10], [0, 5, 10, 15]


def once(*found: tuple[list[float], int, int]) -> list[bool]:
    """Which of (box, personal id, class) stay."""
    boxes, personal, coarse = (np.array(column) for column in zip(*found, strict=True))
    return named_once(boxes.astype(float), personal, coarse).tolist()


def test_one_thing_boxed_under_two_classes_has_its_name_once() -> None:
    assert once((BOX, 3, MUG), (SAME, 3, CUP)) == [True, False]
    assert once((BOX, 3, MUG), (SAME, 3, CUP), (SAME, 3, 2), (BESIDE, 3, CUP)) == [True, False, False, True]


def test_other_boxes_stay() -> None:
    assert once((BOX, 3, MUG), (BESIDE, 3, CUP)) == [True, True], "two things"
    assert once((BOX, 3, MUG), (SAME, 4, CUP)) == [True, True], "two names"
    assert once((BOX, 3, MUG), (SAME, UNKNOWN, CUP)) == [True, True], "one without a name keeps its class"
    assert once((BOX, UNKNOWN, MUG), (SAME, UNKNOWN, CUP)) == [True, True]
    assert once((BOX, 3, MUG), (SAME, 3, MUG)) == [True, True], "one class is the affair of the detector's own NMS"
    assert named_once(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0)).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_once_equals_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 3, (40, 2))
    boxes = np.hstack([corner, corner + rng.uniform(8, 12, (40, 2))])
    personal, coarse = rng.integers(-1, 3, 40), rng.integers(0, 3, 40)
    kept: list[int] = []
    for row in range(40):
        same = (
            personal[row] == personal[other] != UNKNOWN and coarse[row] != coarse[other]
            and box_iou(boxes[[row]], boxes[[other]])[0, 0] > SAME_THING_IOU
            for other in kept
        )  # fmt: skip
        kept += [] if any(same) else [row]
    assert np.flatnonzero(named_once(boxes, personal, coarse)).tolist() == kept
    assert 5 < len(kept) < 40
