"""Profiles: their algebra, and what is said where something does not fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.errors import MochaError
from mocha_pipe.student.errors import StudentModelNotFoundError
from mocha_pipe.student.fewshot.learner import PrototypeError
from mocha_pipe.student.fewshot.prototypes import LEARNERS
from mocha_pipe.student.personal.profile import Profile, student_digest
from mocha_pipe.student.personal.profile_file import ProfileError

STUDENT, OTHER_STUDENT = "ab" * 32, "cd" * 32
CLASSES = ("mug", "boot", "cap")
NAMES = ("my mug", "the red mug", "Mütze", "left boot", "ball")
DIM = 8
RNG = np.random.default_rng(0)

Photos = tuple[np.ndarray, np.ndarray]
Lessons = dict[str, Photos]


@st.composite
def lessons(draw: Callable[..., Any], first_seed: int = 0) -> Lessons:
    """One or more photos of some of the names, embeddings and classes; other first seeds never give equal photos."""
    rng = np.random.default_rng(first_seed + draw(st.integers(0, 10_000)))
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    counts = [draw(st.integers(1, 4)) for _ in names]
    return {name: photos(rng, count) for name, count in zip(names, counts, strict=True)}


def photos(rng: np.random.Generator, count: int) -> Photos:
    return rng.normal(size=(count, DIM)).astype(np.float32), rng.integers(0, len(CLASSES), count)


def profile_of(known: Lessons, learner: str = "conditional") -> Profile:
    profile = Profile.empty(STUDENT, CLASSES, learner=learner)
    for name, shown in known.items():
        profile = profile.add(name, *shown)
    return profile


def content(profile: Profile) -> dict[tuple[str, int], list[tuple[int, np.ndarray]]]:
    """Counts and vectors by name and class; neither the order of names nor that of a gallery's photos shows."""
    found: dict[tuple[str, int], list[tuple[int, np.ndarray]]] = {}
    learner = profile.learner
    for vector, coarse, personal, count in zip(
        learner.prototypes_, learner.coarse_, learner.personal_, learner.counts_, strict=True
    ):
        found.setdefault((profile.names[personal], int(coarse)), []).append((int(count), vector))
    return {key: sorted(rows, key=lambda row: row[1].tolist()) for key, rows in found.items()}


def assert_same(first: Profile, second: Profile, *, atol: float = 0.0) -> None:
    assert set(first.names) == set(second.names)
    assert (first.student, first.class_names, first.learner.name) == (
        second.student, second.class_names, second.learner.name
    )  # fmt: skip
    left, right = content(first), content(second)
    assert left.keys() == right.keys()
    for key, rows in left.items():
        assert [count for count, _ in rows] == [count for count, _ in right[key]]
        np.testing.assert_allclose([v for _, v in rows], [v for _, v in right[key]], rtol=0, atol=atol)


learners = pytest.mark.parametrize("learner", LEARNERS)
many = settings(max_examples=10, deadline=None)  # for each learner


@learners
@many
@given(known=lessons(), seed=st.integers(90_000, 90_099))
def test_adding_and_removing_an_object_leaves_the_profile_as_it_was(learner: str, known: Lessons, seed: int) -> None:
    before = profile_of(known, learner)
    after = before.add("guest", *photos(np.random.default_rng(seed), 3)).remove("guest")
    assert after.names == before.names
    for key, value in before.learner.tensors().items():
        assert after.learner.tensors()[key].reshape(value.shape).tobytes() == value.tobytes()


@learners
@many
@given(known=lessons())
def test_photos_in_two_goes_teach_what_they_teach_at_once(learner: str, known: Lessons) -> None:
    twice = Profile.empty(STUDENT, CLASSES, learner=learner)
    for part in (slice(None, 1), slice(1, None)):
        for name, (embeddings, coarse) in known.items():
            if len(embeddings[part]):
                twice = twice.add(name, embeddings[part], coarse[part])
    assert_same(twice, profile_of(known, learner), atol=1e-6)


@learners
@many
@given(mine=lessons(), theirs=lessons(20_000))
def test_merging_commutes_up_to_the_order_of_names(learner: str, mine: Lessons, theirs: Lessons) -> None:
    first, second = profile_of(mine, learner), profile_of(theirs, learner)
    assert_same(first.merge(second), second.merge(first))
    assert first.merge(second).names[: len(first.names)] == first.names


@learners
@many
@given(mine=lessons(), theirs=lessons(20_000))
def test_merging_teaches_what_the_photos_of_both_teach(learner: str, mine: Lessons, theirs: Lessons) -> None:
    merged = profile_of(mine, learner).merge(profile_of(theirs, learner))
    together = profile_of(mine, learner)
    for name, shown in theirs.items():
        together = together.add(name, *shown)
    assert_same(merged, together, atol=1e-6)


@learners
@many
@given(known=lessons())
def test_an_empty_profile_adds_nothing(learner: str, known: Lessons) -> None:
    profile, empty = profile_of(known, learner), Profile.empty(STUDENT, CLASSES, learner=learner)
    assert_same(profile.merge(empty), profile)
    assert_same(empty.merge(profile), profile)


@many
@given(known=lessons())
def test_renaming_there_and_back_changes_nothing(known: Lessons) -> None:
    profile = profile_of(known)
    for name in profile.names:
        renamed = profile.rename(name, "something else")
        assert renamed.names.index("something else") == profile.names.index(name)
        assert renamed.rename("something else", name).names == profile.names
        assert renamed.photos("something else") == profile.photos(name)
        assert profile.rename(name, name).names == profile.names


@many
@given(known=lessons())
def test_removing_keeps_what_the_others_are(known: Lessons) -> None:
    profile = profile_of(known)
    for name in known:
        rest = {other: shown for other, shown in known.items() if other != name}
        assert_same(profile.remove(name), profile_of(rest))


def test_a_change_leaves_the_old_profile_as_it_was() -> None:
    rng = np.random.default_rng(0)
    profile = profile_of({"my mug": photos(rng, 2), "ball": photos(rng, 1)})
    before = {key: value.copy() for key, value in profile.learner.tensors().items()}
    profile.add("my mug", *photos(rng, 2))
    profile.remove("my mug")
    profile.merge(profile)
    assert profile.names == ("my mug", "ball")
    for key, value in before.items():
        np.testing.assert_array_equal(profile.learner.tensors()[key], value)


def test_an_object_is_named_by_its_photos() -> None:
    rows = np.eye(3, DIM, dtype=np.float32)
    profile = profile_of({"my mug": (rows[:1], np.array([0])), "ball": (rows[1:], np.array([2, 0]))})
    ids, _ = profile.learner.predict(np.array([rows[0] + 0.1 * rows[2], rows[2]]), np.array([0, 0]))
    assert [profile.names[personal] for personal in ids] == ["my mug", "ball"]


def test_photos_are_counted_by_class() -> None:
    rows = np.ones((4, DIM))
    for learner in LEARNERS:
        profile = profile_of({"ball": (rows[:1], np.array([2])), "my mug": (rows, np.array([0, 2, 0, 0]))}, learner)
        assert profile.photos("my mug") == {"mug": 3, "cap": 1}
        assert profile.photos("ball") == {"cap": 1}


@pytest.mark.parametrize("learner", ["protonet", "simpleshot", "gallery"])
def test_a_thing_without_a_class_can_be_learnt_where_all_compete(learner: str) -> None:
    rows = np.random.default_rng(0).normal(size=(3, DIM))
    profile = profile_of({"my duck": (rows, np.array([3, 0, 3]))}, learner)
    assert profile.photos("my duck") == {"mug": 1, "none": 2}
    assert profile.rename("my duck", "duck").remove("duck").names == ()
    with pytest.raises(AssertionError, match="stand for none"):
        profile.add("my boat", rows, np.array([4, 0, 0]))
    with pytest.raises(AssertionError):
        profile_of({"my duck": (rows, np.array([3, 0, 3]))})


def test_the_closest_other_object() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 0.5]], np.float32)
    profile = Profile.empty(STUDENT, CLASSES)
    for name, row in zip(("a", "b", "c"), rows, strict=True):
        profile = profile.add(name, row[None], np.zeros(1, int))
    assert profile.closest("a") == ("c", pytest.approx(1 / 1.25**0.5))
    assert profile.closest("b") == ("c", pytest.approx(0.5 / 1.25**0.5))
    assert profile.remove("a").remove("c").closest("b") is None


def write_student(folder: Path, *, weights: bytes = b"w", translation: bytes = b"t", card: bytes = b"{}") -> Path:
    folder.mkdir()
    (folder / "student.pt").write_bytes(weights)
    (folder / "translation.safetensors").write_bytes(translation)
    (folder / "student.json").write_bytes(card)
    return folder


def test_the_digest_of_a_student_is_that_of_what_decides_an_embedding(tmp_path: Path) -> None:
    digest = student_digest(write_student(tmp_path / "a"))
    assert digest == student_digest(write_student(tmp_path / "b", card=b'{"meta": 1}'))
    assert digest != student_digest(write_student(tmp_path / "c", weights=b"x"))
    assert digest != student_digest(write_student(tmp_path / "d", translation=b"x"))
    assert digest != student_digest(write_student(tmp_path / "e", weights=b"wt", translation=b""))
    assert len(digest) == 64


def message(error: pytest.ExceptionInfo[MochaError]) -> str:
    return str(error.value)


def test_a_folder_that_is_no_student(tmp_path: Path) -> None:
    with pytest.raises(StudentModelNotFoundError) as error:
        student_digest(tmp_path)
    assert message(error) == (
        f"{tmp_path / 'student.pt'}: no such file; name the folder of a distilled student, such as "
        "work/distill/student."
    )


def test_another_student_is_refused() -> None:
    profile = profile_of({})
    profile.check_student(STUDENT)
    with pytest.raises(ProfileError) as error:
        profile.check_student(OTHER_STUDENT)
    assert isinstance(error.value, ValueError)
    assert message(error) == (
        "a profile must be used with the student that it was learnt with: it has that of student abababababab, found "
        "student cdcdcdcdcdcd; name that one with --student, or learn the objects again with this one: "
        "mocha-pipe personalize NAME PHOTO --profile NEW.safetensors"
    )
    with pytest.raises(ProfileError, match="found student abababababab"):
        profile.merge(Profile.empty(OTHER_STUDENT, CLASSES))


@pytest.mark.parametrize("call", [lambda p: p.remove("cup"), lambda p: p.rename("cup", "x"), lambda p: p.photos("cup")])
def test_unknown_names_are_answered_with_the_known_ones(call: Callable[[Profile], object]) -> None:
    profile = profile_of({"my mug": photos(np.random.default_rng(0), 1), "ball": photos(np.random.default_rng(1), 1)})
    with pytest.raises(ProfileError) as error:
        call(profile)
    assert message(error) == (
        "the profile has no object 'cup'; it knows 'my mug', 'ball'; learn one with: mocha-pipe personalize cup PHOTO"
    )
    with pytest.raises(ProfileError, match="it knows none yet"):
        call(Profile.empty(STUDENT, CLASSES))


def test_a_name_that_is_taken() -> None:
    rng = np.random.default_rng(0)
    profile = profile_of({"my mug": photos(rng, 1), "ball": photos(rng, 1)})
    with pytest.raises(ProfileError) as error:
        profile.rename("ball", "my mug")
    assert message(error) == (
        "a name belongs to one object, found a 'my mug' already; choose another name, or first free this one: "
        "mocha-pipe profile remove 'my mug'"
    )


@pytest.mark.parametrize("name", ["", " mug", "mug\n", "a\tb", "\x1b[31m"])
def test_names_that_are_none(name: str) -> None:
    profile = profile_of({"my mug": photos(np.random.default_rng(0), 1)})
    for call in (
        lambda: profile.add(name, *photos(np.random.default_rng(0), 1)),
        lambda: profile.rename("my mug", name),
    ):
        with pytest.raises(ProfileError) as error:
            call()
        assert message(error) == (
            f"the name of an object must be printable text without spaces around it, found {name!r}; write one such as "
            "'my mug'"
        )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "x" * 101,
            "must have 100 letters or fewer, found 101 ('xxxxxxxxxxxxxxxxxxxx...'); write one such as 'my mug'",
        ),
        ("a/b", "must be free of / and \\, which part folders, found 'a/b'; write one such as 'my mug'"),
        ("-mug", "must not begin with -, as options of a command do, found '-mug'; write one such as 'my mug'"),
        (
            "My MUG2",
            "must differ from others in more than capitals, found 'My MUG2' beside 'my mug2'; write 'my mug2' for more "
            "photos of it, or choose another name",
        ),
        ("..\\b", "must be free of / and \\, which part folders, found '..\\\\b'; write one such as 'my mug'"),
    ],
)
def test_names_that_no_object_may_have(name: str, said: str) -> None:
    rng = np.random.default_rng(0)
    profile = profile_of({"my mug": photos(rng, 1), "my mug2": photos(rng, 1)})
    for call in (lambda: profile.add(name, *photos(RNG, 1)), lambda: profile.rename("my mug", name)):
        with pytest.raises(ProfileError) as error:
            call()
        assert message(error) == f"the name of an object {said}"


def test_the_name_of_a_class_is_refused_wherever_a_name_is_given() -> None:
    profile = profile_of({"my mug": photos(np.random.default_rng(0), 1)})
    for call in (lambda: profile.add("boot", *photos(RNG, 1)), lambda: profile.rename("my mug", "boot")):
        with pytest.raises(ProfileError) as error:
            call()
        assert message(error) == (
            "an object needs a name of its own, 'boot' is what the student calls all of its kind; write one such as "
            "'my boot'"
        )


def test_a_class_is_meant_whatever_the_capitals() -> None:
    with pytest.raises(ProfileError) as error:
        profile_of({}).add("BOOT", *photos(RNG, 1))
    assert message(error) == (
        "an object needs a name of its own, 'boot' is what the student calls all of its kind; write one such as "
        "'my BOOT'"
    )


def test_capitals_of_a_name_can_be_changed() -> None:
    assert profile_of({"my mug": photos(RNG, 1)}).rename("my mug", "My Mug").names == ("My Mug",)


def test_commands_take_a_name_of_an_older_file_that_begins_as_an_option_does() -> None:
    old = replace(profile_of({"a": photos(RNG, 1), "b": photos(RNG, 1)}), names=("-mug", "b"))
    with pytest.raises(ProfileError, match=r"first free this one: mocha-pipe profile remove -- -mug$"):
        old.rename("b", "-mug")
    with pytest.raises(ProfileError, match=r"learn one with: mocha-pipe personalize -- -cup PHOTO$"):
        old.remove("-cup")
    assert old.rename("-mug", "mug of mine").names == ("mug of mine", "b")


def test_an_object_that_has_the_name_of_a_class_already_can_be_taught_and_renamed() -> None:
    old = replace(profile_of({"my mug": photos(np.random.default_rng(0), 1)}), names=("mug",))
    assert old.add("mug", *photos(RNG, 1)).photos("mug").keys() <= set(CLASSES)
    assert old.rename("mug", "cup").names == ("cup",)
    with pytest.raises(ProfileError, match="an object needs a name of its own"):
        profile_of({}).merge(old)


@pytest.mark.parametrize(
    "name", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "我的杯子", "\U0001f469\u200d\U0001f467"]
)
def test_names_in_any_script(name: str) -> None:
    assert profile_of({name: photos(RNG, 1)}).names == (name,)


# --- one spelling -----------------------------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = "caf\u00e9 mug", "cafe\u0301 mug"


def test_an_accent_is_one_letter_however_it_is_spelt() -> None:
    profile = profile_of({COMPOSED: photos(RNG, 1)}).add(DECOMPOSED, *photos(RNG, 2))
    assert profile.names == (COMPOSED,)
    assert sum(profile.photos(DECOMPOSED).values()) == 3
    assert profile.rename(DECOMPOSED, "cup").rename("cup", DECOMPOSED).names == (COMPOSED,)
    assert profile.remove(DECOMPOSED).names == ()
    other = replace(profile_of({"x": photos(RNG, 1)}), names=(DECOMPOSED,))
    assert profile.merge(other).names == (COMPOSED,)


def test_two_spellings_of_one_name_in_an_old_file_are_one_object(tmp_path: Path) -> None:
    two = profile_of({COMPOSED: photos(RNG, 1), "my cap": photos(RNG, 1), "other": photos(RNG, 2)}, "simpleshot")
    replace(two, names=(COMPOSED, "my cap", DECOMPOSED)).save(tmp_path / "old.safetensors")
    profile = Profile.load(tmp_path / "old.safetensors")
    assert profile.names == (COMPOSED, "my cap")
    assert (sum(profile.photos(COMPOSED).values()), sum(profile.photos("my cap").values())) == (3, 1)


# --- one photo counts once --------------------------------------------------------------------------------------------

BOX, NEARLY, OTHER = ([10.0, 10.0, 60.0, 60.0], [10.0, 11.0, 60.0, 60.0], [70.0, 10.0, 90.0, 60.0])
A, B = "a" * 32, "b" * 32


def shown(profile: Profile, name: str, *taught: tuple[str, list[float], int]) -> Profile:
    """Photos by (digest, box, class); the embedding follows from digest and box."""
    rows = [np.random.default_rng([int(digest[0], 16), int(box[0])]).normal(size=DIM) for digest, box, _ in taught]
    return profile.add(
        name, np.array(rows), np.array([coarse for *_, coarse in taught]), photos=[digest for digest, *_ in taught],
        boxes_N4=np.array([box for _, box, _ in taught]),
    )  # fmt: skip


@learners
def test_a_photo_and_box_count_once(learner: str) -> None:
    once = shown(profile_of({}, learner), "my mug", (A, BOX, 0))
    for again in (
        shown(once, "my mug", (A, BOX, 0)),
        shown(once, "my mug", (A, NEARLY, 0)),
        shown(profile_of({}, learner), "my mug", (A, BOX, 0), (A, BOX, 0)),
    ):
        assert_same(again, once)
    assert shown(once, "my mug", (A, OTHER, 0)).photos("my mug") == {"mug": 2}
    assert shown(once, "my mug", (B, BOX, 0)).photos("my mug") == {"mug": 2}
    assert shown(once, "your mug", (A, BOX, 0)).photos("your mug") == {"mug": 1}


def test_a_photo_that_is_learnt_again_under_another_class_has_that_class() -> None:
    profile = shown(profile_of({}), "my mug", (A, BOX, 0), (B, BOX, 0))
    assert shown(profile, "my mug", (A, BOX, 1)).photos("my mug") == {"mug": 1, "boot": 1}


@learners
def test_merging_counts_a_photo_of_both_once(learner: str) -> None:
    mine = shown(profile_of({}, learner), "my mug", (A, BOX, 0), (B, BOX, 0))
    theirs = shown(shown(profile_of({}, learner), "my mug", (A, BOX, 0), (A, OTHER, 0)), "cup", (A, BOX, 0))
    merged = mine.merge(theirs)
    assert (merged.photos("my mug"), merged.photos("cup")) == ({"mug": 3}, {"mug": 1})
    expected = shown(
        shown(profile_of({}, learner), "my mug", (A, BOX, 0), (B, BOX, 0), (A, OTHER, 0)), "cup", (A, BOX, 0)
    )
    assert_same(merged, expected, atol=1e-6)


@learners
def test_what_a_file_keeps_of_photos_teaches_the_same(learner: str, tmp_path: Path) -> None:
    """Photos are kept with half the digits; they matter only where photos of two profiles are told apart."""
    mine = shown(profile_of({}, learner), "my mug", (A, BOX, 0), (B, BOX, 0), (A, OTHER, 1))
    mine.save(tmp_path / "mine.safetensors")
    loaded = Profile.load(tmp_path / "mine.safetensors")
    assert_same(loaded, mine)
    assert_same(loaded.merge(mine), mine)
    theirs = shown(profile_of({}, learner), "my mug", (B, BOX, 0), (B, OTHER, 0))
    assert_same(loaded.merge(theirs), mine.merge(theirs), atol=1e-2)
    assert_same(shown(loaded, "my mug", (B, BOX, 0)), mine, atol=1e-2)


@learners
@many
@given(known=lessons())
def test_merging_with_itself_changes_nothing(learner: str, known: Lessons) -> None:
    profile = profile_of(known, learner)
    assert_same(profile.merge(profile), profile)


def test_objects_that_are_hardly_two() -> None:
    profile = shown(shown(profile_of({}), "my mug", (A, BOX, 0)), "other", (B, BOX, 0))
    assert profile.alike() == []
    assert shown(profile, "Anna's mug", (A, BOX, 1)).alike() == [("my mug", "Anna's mug", pytest.approx(1))]


def test_profiles_of_two_learners_do_not_merge() -> None:
    with pytest.raises(ProfileError) as error:
        profile_of({}).merge(profile_of({}, "gallery"))
    assert message(error) == (
        "profiles that are merged must have one learner, found conditional and gallery; learn the objects of one "
        "again: mocha-pipe personalize NAME PHOTO --learner conditional --profile NEW.safetensors"
    )


def test_embeddings_of_another_width_are_refused() -> None:
    profile = profile_of({"my mug": photos(np.random.default_rng(0), 1)})
    with pytest.raises(PrototypeError, match="the prototypes have 8, the embeddings 9"):
        profile.add("ball", np.ones((1, 9)), np.zeros(1, int))


def test_an_unknown_learner_is_refused() -> None:
    with pytest.raises(PrototypeError, match="--learner must be one of conditional, protonet"):
        Profile.empty(STUDENT, CLASSES, learner="svm")


def test_a_link_to_a_shared_profile_stays_a_link(tmp_path: Path) -> None:
    shared, link = tmp_path / "team" / "profile.safetensors", tmp_path / "mine.safetensors"
    profile = Profile.empty(STUDENT, CLASSES)
    profile.save(shared)
    link.symlink_to("team/profile.safetensors")
    profile.add("my mug", np.ones((1, 4), np.float32), np.array([0])).save(link)
    assert link.readlink() == Path("team/profile.safetensors")
    assert Profile.load(shared).names == ("my mug",)
