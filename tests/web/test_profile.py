"""profile.safetensors in the browser: read, changed and written as Python does."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocha_pipe.student.fewshot.prototypes import LEARNERS
from mocha_pipe.student.personal.profile import Profile
from mocha_pipe.student.personal.profile_file import ProfileError

CHANGE = """async ([content, steps]) => {
  const { readProfile, writeProfile } = await import("/profile-file.js");
  const { emptyProfile, ...change } = await import("/profile.js");
  const read = (text) => readProfile(Uint8Array.fromBase64(text).buffer, "p.safetensors");
  try {
    let profile = typeof content === "string" ? read(content) : emptyProfile(content);
    for (const [kind, ...rest] of steps) {
      if (kind === "merge") profile = change.merge(profile, read(rest[0]));
      else if (kind === "add") {
        const embedding = Float32Array.from(rest[1].embedding);
        profile = change.add(profile, rest[0], { ...rest[1], embedding });
      }
      else if (kind === "photos") return [...change.photos(profile, rest[0])];
      else if (kind === "check") change.checkStudent(profile, rest[0]);
      else profile = change[kind](profile, ...rest);
    }
    return writeProfile(profile).toBase64();
  } catch (error) {
    return { error: error.message };
  }
}"""
CLASSES = ["mug", "böll"]
STUDENT = "a" * 64


def taught(learner: str, names: tuple[str, ...] = ("my mug", 'Zoë\'s "böll"'), seed: int = 0) -> Profile:
    rng = np.random.default_rng(seed)
    profile = Profile.empty(STUDENT, CLASSES, learner=learner)
    for index, name in enumerate(names):
        for photo in range(3):
            digest = f"{index}{photo}" * 16
            profile = profile.add(
                name,
                rng.standard_normal((1, 7)),
                np.array([photo % 2]),
                photos=[digest],
                boxes_N4=np.array([[1, 2.25, 30, 40]]),
            )
    return profile


def packed(profile: Profile, folder: Path) -> str:
    profile.save(folder / "written.safetensors")
    return base64.b64encode((folder / "written.safetensors").read_bytes()).decode()


def unpacked(content: str, folder: Path) -> Profile:
    (folder / "back.safetensors").write_bytes(base64.b64decode(content))
    return Profile.load(folder / "back.safetensors")


def assert_equal(one: Profile, other: Profile) -> None:
    assert (one.names, one.class_names, one.student) == (other.names, other.class_names, other.student)
    for key, value in one.learner.tensors().items():
        assert np.allclose(value, other.learner.tensors()[key], atol=1e-6), key
    assert one.lessons.photos == other.lessons.photos
    for key, value in one.lessons._columns().items():
        assert np.allclose(value, other.lessons._columns()[key], atol=2e-3), key


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_profile_that_was_read_is_written_to_the_byte(call: Callable[..., Any], learner: str, tmp_path: Path) -> None:
    content = packed(taught(learner), tmp_path)
    assert call(CHANGE, [content, []]) == packed(unpacked(content, tmp_path), tmp_path)


@pytest.mark.parametrize("learner", LEARNERS)
def test_changes_are_those_of_the_command_line(call: Callable[..., Any], learner: str, tmp_path: Path) -> None:
    other = taught(learner, ("other", "my mug"), seed=0)
    vector = np.random.default_rng(5).standard_normal((1, 7)).astype(np.float32)
    new = {"embedding": vector[0].tolist(), "coarse": 1, "photo": "9" * 32, "box": [5, 6, 50, 60]}
    old = {**new, "photo": "00" * 16, "box": [1, 2, 30, 40], "coarse": 0}  # a photo that taught my mug
    steps = [
        ["add", "third", new], ["add", "my mug", new], ["add", "my mug", old], ["rename", "third", "a third"],
        ["merge", packed(other, tmp_path)], ["remove", "other"],
    ]  # fmt: skip
    found = unpacked(call(CHANGE, [packed(taught(learner), tmp_path), steps]), tmp_path)
    where = {"photos": ["9" * 32], "boxes_N4": np.array([[5, 6, 50, 60]])}
    again = {"photos": ["00" * 16], "boxes_N4": np.array([[1, 2, 30, 40]])}
    wanted = unpacked(packed(taught(learner), tmp_path), tmp_path)
    wanted = wanted.add("third", vector, np.array([1]), **where).add("my mug", vector, np.array([1]), **where)
    wanted = wanted.add("my mug", vector, np.array([0]), **again).rename("third", "a third")
    wanted = wanted.merge(unpacked(packed(other, tmp_path), tmp_path)).remove("other")
    assert_equal(found, wanted)
    told = call(CHANGE, [packed(wanted, tmp_path), [["photos", "my mug"]]])
    assert dict(told) == wanted.photos("my mug")


def test_an_empty_profile_goes_both_ways(call: Callable[..., Any], tmp_path: Path) -> None:
    written = call(CHANGE, [{"student": STUDENT, "learner": "conditional", "classNames": CLASSES}, []])
    assert unpacked(written, tmp_path).names == ()
    emptied = call(CHANGE, [packed(taught("conditional", ("x",)), tmp_path), [["remove", "x"]]])
    assert unpacked(emptied, tmp_path).names == ()
    assert "error" not in call(CHANGE, [packed(unpacked(emptied, tmp_path), tmp_path), []])


@pytest.mark.parametrize("name", ["", " x", "a\nb", "a/b", "a\\b", "mug", "b" * 101, "x\u2028y", "\u200bx"])
def test_names_are_refused_as_by_the_command_line(call: Callable[..., Any], name: str, tmp_path: Path) -> None:
    profile = taught("conditional", ("x",))
    with pytest.raises(ProfileError) as refused:
        profile.check_name(name)
    told = call(CHANGE, [packed(profile, tmp_path), [["rename", "x", name]]])["error"]
    assert told.split(", found")[0] == str(refused.value).split(", found")[0]


def test_a_taken_name_is_refused(call: Callable[..., Any], tmp_path: Path) -> None:
    told = call(CHANGE, [packed(taught("conditional", ("x", "é")), tmp_path), [["rename", "x", "e\u0301"]]])
    assert told["error"].startswith("a name belongs to one object, found a 'é' already; choose another name")


def test_another_students_profile_is_refused_in_the_words_of_the_command_line(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    profile = taught("conditional")
    with pytest.raises(ProfileError) as refused:
        profile.check_student("b" * 64)
    about = {"student": "b" * 64, "learner": "conditional"}
    assert call(CHANGE, [packed(profile, tmp_path), [["check", about]]]) == {"error": str(refused.value)}
    told = call(CHANGE, [packed(profile, tmp_path), [["check", {"student": STUDENT, "learner": "gallery"}]]])["error"]
    assert "this page has gallery, found conditional; open the page with that profile" in told


def damaged(content: bytes, old: str, new: str) -> bytes:
    """Another text in the header, of the same length."""
    assert len(old) == len(new)
    assert old.encode() in content
    return content.replace(old.encode(), new.encode(), 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: b"", "file of a profile must be a safetensors file, found too short"),
        (lambda content: b"\xff" * 40, "file of a profile must be a safetensors file"),
        (lambda content: content[:-1], "lies outside the file"),
        (lambda content: content + b"x", "bytes behind the numbers"),
        (lambda content: damaged(content, '"profile"', '"profilX"'), "metadata of a profile must have the key"),
        (lambda content: damaged(content, 'format\\": 1', 'format\\": 2'), "format of a profile must be 1, found 2"),
        (lambda content: damaged(content, "conditional", "conditionel"), "learner of a profile must be one of"),
        (lambda content: damaged(content, "my mug", "my mu\x7f"), "names of a profile must be printable text"),
        (lambda content: content[:-4] + b"\0\0\xc0\x7f", "must be finite"),
    ],
)  # fmt: skip
def test_a_damaged_profile_is_refused(
    call: Callable[..., Any], change: Callable[[bytes], bytes], words: str, tmp_path: Path
) -> None:
    content = base64.b64decode(packed(taught("conditional", ("my mug",)), tmp_path))
    told = call(CHANGE, [base64.b64encode(change(content)).decode(), []])
    assert words in told["error"]
    assert told["error"].startswith("p.safetensors: ")
    assert told["error"].endswith("; bring back a whole copy, or learn the objects again")


def test_prototypes_that_are_not_what_the_photos_teach_are_refused(call: Callable[..., Any], tmp_path: Path) -> None:
    profile = taught("conditional", ("my mug",))
    profile.learner.prototypes_ += 1
    told = call(CHANGE, [packed(profile, tmp_path), []])
    assert "prototypes of a profile must be what its photos teach" in json.dumps(told)
