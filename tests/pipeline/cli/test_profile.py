"""`mocha-pipe profile`: look at the objects of a profile, and change them; no student is needed for that."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from mocha_pipe.student.personal.profile import Profile

Command = Callable[..., Result]

STUDENT = "ab" * 32
ROWS = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8]], np.float32)


@pytest.fixture
def path() -> Path:
    """The profile that commands take where none is named."""
    profile = Profile.empty(STUDENT, ("mug", "boot")).add("my mug", ROWS[[0, 0, 1]], np.array([0, 0, 1]))
    path = Path("work/profile.safetensors")
    profile.add("her [mug]", ROWS[2:], np.array([0])).save(path)
    return path


def names(path: Path) -> tuple[str, ...]:
    return Profile.load(path).names


def test_list_shows_names_classes_and_photos(command: Command, path: Path) -> None:
    lines = [line.split() for line in command("profile", "list").stdout.splitlines()]
    assert ["work/profile.safetensors"] in lines
    assert ["name", "class", "photos"] in lines
    assert ["my", "mug", "mug,", "boot", "3"] in lines
    assert ["her", "[mug]", "mug", "1"] in lines
    assert json.loads(command("profile", "list", "--json").stdout) == {
        "profile": str(path),
        "student": STUDENT,
        "learner": "conditional",
        "objects": [
            {"name": "my mug", "classes": {"mug": 2, "boot": 1}},
            {"name": "her [mug]", "classes": {"mug": 1}},
        ],
    }


def test_show_tells_what_one_object_is_and_looks_like(command: Command, path: Path) -> None:
    shown = command("profile", "show", "my mug").stdout
    assert "2 as mug, 1 as boot" in shown
    assert "her [mug] (cosine 0.6)" in shown
    assert json.loads(command("profile", "show", "her [mug]", "--json").stdout) == {
        "profile": str(path), "name": "her [mug]", "classes": {"mug": 1}, "closest": {"name": "my mug", "cosine": 0.6}
    }  # fmt: skip
    command("profile", "remove", "my mug")
    assert "alone in the profile" in command("profile", "show", "her [mug]").stdout
    assert json.loads(command("profile", "show", "her [mug]", "--json").stdout)["closest"] is None


def test_remove_forgets_an_object(command: Command, path: Path) -> None:
    assert command("profile", "remove", "my mug").stdout == "work/profile.safetensors: her [mug]\n"
    assert names(path) == ("her [mug]",)
    assert command("profile", "remove", "her [mug]").stdout == "work/profile.safetensors: no objects\n"
    assert command("profile", "list").exit_code == 0


def test_rename_calls_an_object_something_else(command: Command, path: Path) -> None:
    before = Profile.load(path).learner.tensors()
    assert command("profile", "rename", "my mug", "old mug").stdout == "work/profile.safetensors: old mug, her [mug]\n"
    assert names(path) == ("old mug", "her [mug]")
    for key, value in Profile.load(path).learner.tensors().items():
        np.testing.assert_array_equal(value, before[key])


def test_merge_adds_the_objects_of_another_profile(command: Command, path: Path) -> None:
    other = Profile.empty(STUDENT, ("mug", "boot")).add("left boot", ROWS[1:2], np.array([1]))
    other.add("my mug", ROWS[2:], np.array([0])).save(Path("other.safetensors"))
    before = Path("other.safetensors").read_bytes()
    result = command("profile", "merge", "other.safetensors")
    assert result.stdout == "work/profile.safetensors: my mug, her [mug], left boot\n"
    merged = Profile.load(path)
    assert merged.photos("my mug") == {"mug": 3, "boot": 1}
    mine = merged.learner.prototypes_[(merged.learner.personal_ == 0) & (merged.learner.coarse_ == 0)]
    np.testing.assert_allclose(mine, [(2 * ROWS[0] + ROWS[2]) / 3], rtol=1e-6)
    assert Path("other.safetensors").read_bytes() == before


def test_another_root_and_another_file_can_be_named(command: Command, path: Path) -> None:
    Path("mine").mkdir()
    path.rename("mine/profile.safetensors")
    for flags in (("--root", "mine"), ("--profile", "mine/profile.safetensors")):
        assert "my mug" in command("profile", "list", *flags).stdout
    assert command("profile", "rename", "my mug", "cup", "--root", "mine").exit_code == 0
    assert names(Path("mine/profile.safetensors")) == ("cup", "her [mug]")


def test_before_anything_is_learnt_the_command_to_run_is_named(command: Command) -> None:
    for arguments in (["list"], ["show", "x"], ["remove", "x"], ["rename", "x", "y"], ["merge", "other.safetensors"]):
        result = command("profile", *arguments)
        assert (result.exit_code, result.stderr) == (
            2,
            "error: work/profile.safetensors: no such profile; learn an object: mocha-pipe personalize 'my mug' PHOTO "
            "--profile work/profile.safetensors\n",
        )


@pytest.mark.parametrize("arguments", [["show", "cup"], ["remove", "cup"], ["rename", "cup", "x"]])
def test_unknown_names_are_answered_with_the_known_ones(command: Command, path: Path, arguments: list[str]) -> None:
    before = path.read_bytes()
    result = command("profile", *arguments)
    assert (result.exit_code, result.stderr) == (
        2,
        "error: the profile has no object 'cup'; it knows 'my mug', 'her [mug]'; learn one with: mocha-pipe "
        "personalize cup PHOTO\n",
    )
    assert path.read_bytes() == before


def test_merging_a_profile_with_itself_changes_nothing(command: Command, path: Path) -> None:
    Path("copy.safetensors").write_bytes(path.read_bytes())
    before = path.read_bytes()
    result = command("profile", "merge", "copy.safetensors")
    assert (result.exit_code, result.stderr, path.read_bytes()) == (0, "", before)


def test_an_object_that_comes_under_a_second_name_is_warned_about(command: Command, path: Path) -> None:
    Profile.empty(STUDENT, ("mug", "boot")).add("Anna's", ROWS[:1], np.array([0])).save(Path("other.safetensors"))
    assert command("profile", "merge", "other.safetensors").stderr == (
        "warning: Anna's looks like my mug (cosine 1.00): is it one object under two names? forget one with: "
        "mocha-pipe profile remove 'Anna'\"'\"'s'\n"
    )


def test_rename_obeys_the_rules_of_personalize(command: Command, path: Path) -> None:
    before = path.read_bytes()
    for name, said in (("mug", "an object needs a name of its own"), ("a/b", "free of /"), ("x" * 101, "100 letters")):
        result = command("profile", "rename", "my mug", name)
        assert result.exit_code == 2
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert path.read_bytes() == before
    command("profile", "rename", "my mug", "cafe\u0301")
    assert names(path) == ("caf\u00e9", "her [mug]")
    assert command("profile", "show", "cafe\u0301").exit_code == 0


def test_what_cannot_be_merged_leaves_the_profile_as_it_is(command: Command, path: Path) -> None:
    before = path.read_bytes()
    Profile.empty("cd" * 32, ("mug",)).save(Path("other.safetensors"))
    result = command("profile", "merge", "other.safetensors")
    assert result.exit_code == 2
    assert "found student abababababab" in result.stderr
    assert "other.safetensor: no such profile" in command("profile", "merge", "other.safetensor").stderr
    assert "a name belongs to one object" in command("profile", "rename", "my mug", "her [mug]").stderr
    assert path.read_bytes() == before
