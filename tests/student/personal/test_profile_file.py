"""The file of a profile: what is saved is loaded, and every field is checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mocha_pipe.data.errors import MochaError
from mocha_pipe.student.fewshot.prototypes import LEARNERS
from mocha_pipe.student.personal import profile_file
from mocha_pipe.student.personal.profile import Profile
from mocha_pipe.student.personal.profile_file import ProfileError

STUDENT, CLASSES, DIM = "ab" * 32, ("mug", "boot", "cap"), 8


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("names", [(), ("Mütze",), ("my mug", 'it\'s "red"', "ball")])
def test_what_is_saved_is_loaded(learner: str, names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    profile = Profile.empty(STUDENT, CLASSES, learner=learner)
    for name in names:
        profile = profile.add(name, np.random.default_rng(0).normal(size=(3, DIM)), np.array([2, 0, 2]))
    profile.save(path)
    loaded = Profile.load(path)
    assert (loaded.names, loaded.student, loaded.class_names) == (names, STUDENT, CLASSES)
    assert loaded.learner.name == learner
    for key, value in profile.learner.tensors().items():
        np.testing.assert_array_equal(loaded.learner.tensors()[key], value, strict=True)
    written = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == written
    assert [file.name for file in path.parent.iterdir()] == ["mine.safetensors"]


def test_ten_objects_of_five_photos_each_take_less_than_100_kb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    profile = Profile.empty(STUDENT, [f"class {number}" for number in range(31)])
    for number in range(10):
        profile = profile.add(f"object {number}", rng.normal(size=(5, 512)), np.array([0, 0, 0, 0, 1]))
    profile.save(tmp_path / "profile.safetensors")
    assert 90_000 < (tmp_path / "profile.safetensors").stat().st_size < 100_000


def message(error: pytest.ExceptionInfo[MochaError]) -> str:
    return str(error.value)


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as error:
        Profile.load(tmp_path / "my profile.safetensors")
    path = tmp_path / "my profile.safetensors"
    assert message(error) == (
        f"{path}: no such profile; learn an object: mocha-pipe personalize 'my mug' PHOTO --profile '{path}'"
    )


def refusal(path: Path, rule: str, found: str) -> str:
    return (
        f"{path}: {rule}, found {found}; bring back a whole copy, or move the file away and learn the objects again: "
        f"mocha-pipe personalize 'my mug' PHOTO --profile {path}"
    )


def change(path: Path, told: dict[str, Any], tensors: dict[str, np.ndarray | None], *, old: bool = True) -> None:
    """The file with some fields replaced, or dropped where None; of an earlier version, which kept no photos."""
    with safe_open(path, framework="numpy") as file:
        own = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        text = json.loads(file.metadata()["profile"])
    if old:
        own = {key: value for key, value in own.items() if not key.startswith("photo_")}
        text.pop("photos", None)
    own = {key: value for key, value in (own | tensors).items() if value is not None}
    save_file(own, path, metadata={"profile": json.dumps(text | told)})


INTEGERS = np.zeros(3, np.int64)
LEARNER_NAMES = "'conditional', 'gallery', 'protonet' or 'simpleshot'"


@pytest.mark.parametrize(
    ("told", "tensors", "rule", "found"),
    [
        ({"format": 2}, {}, "format of a profile must be 1", "2"),
        ({"student": "ab"}, {}, "student of a profile must match pattern '^[0-9a-f]{64}$'", "ab"),
        ({"student": None}, {}, "student of a profile must be a valid string", "None"),
        ({"learner": "svm"}, {}, f"learner of a profile must be {LEARNER_NAMES}", "svm"),
        ({"learner": []}, {}, f"learner of a profile must be {LEARNER_NAMES}", "[]"),
        ({"names": "my mug"}, {}, "names of a profile must be a valid array", "my mug"),
        ({"names": ["a", 3]}, {}, "names of a profile must be a valid string", "3"),
        ({"names": [""]}, {}, "names of a profile must have at least 1 character", ""),
        ({"class_names": {}}, {}, "class_names of a profile must be a valid array", "{}"),
        (
            {"names": ["a", "x" * 300]}, {},
            "names of a profile must have at most 100 characters", f"{'x' * 57}...",
        ),
        ({"names": ["a", "\x1b[2J"]}, {}, "names of a profile must be printable text", "'\\x1b[2J'"),
        ({"names": ["a", "a"]}, {}, "names of a profile must differ from each other", "['a', 'a']"),
        ({"names": ["a"]}, {}, "personal of a profile must index the names, each at least once", "[0, 1]"),
        ({"names": list("abc")}, {}, "personal of a profile must index the names, each at least once", "[0, 1]"),
        ({}, {"prototypes": None}, "prototypes of a profile must be float32 in 2 dimensions", "none"),
        ({}, {"counts": np.ones(3)}, "counts of a profile must be int64 in 1 dimensions", "float64 (3,)"),
        ({}, {"counts": INTEGERS[:2]}, "counts of a profile must have 3 rows as the prototypes", "int64 (2,)"),
        ({}, {"counts": INTEGERS}, "counts of a profile must be 1 or more", "0"),
        ({}, {"coarse": INTEGERS + 3}, "coarse of a profile must index the class names", "[3]"),
        ({}, {"coarse": INTEGERS - 1}, "coarse of a profile must index the class names", "[-1]"),
        (
            {}, {"coarse": np.array([1, 0, 0])},
            "coarse of a profile must ascend, and `personal` within it", "[1, 0, 0]",
        ),
        (
            {}, {"prototypes": np.full((3, DIM), np.nan, np.float32)},
            "prototypes of a profile must be finite", "some that are not",
        ),
    ],
)  # fmt: skip
def test_every_field_of_a_file_is_checked(
    tmp_path: Path, told: dict[str, Any], tensors: dict[str, np.ndarray | None], rule: str, found: str
) -> None:
    path = tmp_path / "p.safetensors"
    rows = np.ones((2, DIM))
    profile = Profile.empty(STUDENT, CLASSES).add("my mug", rows, np.array([0, 1]))
    profile.add("ball", rows[:1], np.array([0])).save(path)
    change(path, {}, {})
    assert len(Profile.load(path).learner.counts_) == 3
    change(path, told, tensors)
    with pytest.raises(ProfileError) as error:
        Profile.load(path)
    assert message(error) == refusal(path, rule, found)


ONES = np.ones(3, np.int64)


@pytest.mark.parametrize(
    ("told", "tensors", "rule", "found"),
    [
        ({}, {"photo_vectors": None}, "photo_vectors of a profile must be float16 in 2 dimensions", "none"),
        (
            {}, {"photo_counts": ONES[:2]},
            "photo_counts of a profile must have 3 rows as the photo_vectors", "int64 (2,)",
        ),
        ({}, {"photo_counts": ONES - 1}, "photo_counts of a profile must be 1 or more", "0"),
        ({}, {"photo_coarse": ONES + 2}, "photo_coarse of a profile must index the class names", "[3]"),
        ({}, {"photo_personal": ONES}, "photo_personal of a profile must index the names, each at least once", "[1]"),
        ({}, {"photo_boxes": np.zeros((3, 3), np.float32)}, "photo_boxes of a profile must have 4 columns", "(3, 3)"),
        (
            {}, {"photo_boxes": np.full((3, 4), np.inf, np.float32)},
            "photo_boxes of a profile must be finite", "some that are not",
        ),
        ({"photos": ["", ""]}, {}, "photos of a profile must have 3 entries as the photo_boxes", "2"),
        ({"photos": ["../x", "", ""]}, {}, "photos of a profile must match pattern '^([0-9a-f]{32})?$'", "../x"),
        (
            {}, {"photo_vectors": np.zeros((3, DIM), np.float16)},
            "prototypes of a profile must be what its photos teach", "something else",
        ),
        ({}, {"photo_counts": ONES + 1}, "counts of a profile must be what its photos teach", "something else"),
    ],
)  # fmt: skip
def test_every_field_of_the_photos_is_checked(
    tmp_path: Path, told: dict[str, Any], tensors: dict[str, np.ndarray | None], rule: str, found: str
) -> None:
    path = tmp_path / "p.safetensors"
    rows = np.ones((2, DIM))
    profile = Profile.empty(STUDENT, CLASSES).add("my mug", rows, np.array([0, 1]))
    profile.add("ball", rows[:1], np.array([0])).save(path)
    change(path, {}, {}, old=False)
    assert len(Profile.load(path).lessons) == 3
    change(path, told, tensors, old=False)
    with pytest.raises(ProfileError) as error:
        Profile.load(path)
    assert message(error) == refusal(path, rule, found)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_file_of_an_earlier_version_is_what_its_prototypes_say(learner: str, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    rng = np.random.default_rng(0)
    profile = Profile.empty(STUDENT, CLASSES, learner=learner).add(
        "my mug", rng.normal(size=(3, DIM)), np.zeros(3, int)
    )
    profile.save(path)
    change(path, {}, {})
    old = Profile.load(path)
    for key, value in profile.learner.tensors().items():
        np.testing.assert_array_equal(old.learner.tensors()[key], value, strict=True)
    assert old.photos("my mug") == {"mug": 3}
    assert old.merge(old).photos("my mug") == {"mug": 3}
    assert old.add("my mug", rng.normal(size=(1, DIM)), np.zeros(1, int)).photos("my mug") == {"mug": 4}


def test_a_full_disk_leaves_the_profile_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.safetensors"
    profile = Profile.empty(STUDENT, CLASSES).add("my mug", np.ones((1, DIM)), np.zeros(1, int))
    profile.save(path)
    before = path.read_bytes()

    def fails(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(profile_file, "save_file", fails)
    with pytest.raises(ProfileError) as error:
        profile.remove("my mug").save(path)
    assert message(error) == (
        f"{path}: cannot be written (I/O error: No space left on device (os error 28)), so it stays as it was; free "
        "some space, or name another place with --profile"
    )
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["p.safetensors"]


def test_files_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"a": np.zeros(1)}, path)
    with pytest.raises(ProfileError) as error:
        Profile.load(path)
    assert message(error) == refusal(path, "metadata of a profile must have the key 'profile'", "none")
    for text, rule in (("{", "be there and in order"), ("[]", "be an object")):
        save_file({"a": np.zeros(1)}, path, metadata={"profile": text})
        with pytest.raises(ProfileError) as error:
            Profile.load(path)
        assert message(error) == refusal(path, f"metadata of a profile must {rule}", text)
    path.write_bytes(b"no tensors")
    with pytest.raises(
        ProfileError, match=r"file of a profile must be a safetensors file, found .+; bring back a whole"
    ):
        Profile.load(path)
    with pytest.raises(ProfileError, match="file of a profile must be a safetensors file, found"):
        Profile.load(tmp_path)


def test_the_class_none_is_kept_where_the_learner_does_without_one(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    profile = Profile.empty(STUDENT, CLASSES, learner="simpleshot")
    profile.add("my duck", np.ones((2, DIM)), np.array([3, 0])).save(path)
    change(path, {}, {})
    assert Profile.load(path).photos("my duck") == {"mug": 1, "none": 1}
    change(path, {"learner": "conditional"}, {})
    with pytest.raises(ProfileError) as error:
        Profile.load(path)
    assert message(error) == refusal(path, "coarse of a profile must index the class names", "[0, 3]")
    change(path, {"learner": "simpleshot"}, {"coarse": np.array([0, 4])})
    with pytest.raises(ProfileError) as error:
        Profile.load(path)
    assert message(error) == refusal(path, "coarse of a profile must index the class names", "[0, 4]")
