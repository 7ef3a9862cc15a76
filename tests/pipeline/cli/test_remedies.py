"""Every file of a cache is damaged in turn, and what `cache verify` says is typed, until it says that all is sound."""

import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr
from typer.testing import CliRunner, Result

from mocha_pipe.pipeline.cli.main import app
from tests.teacher_cache.foreign import lay_out_anew

Command = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("one_teacher")
FILES = [
    "zarr.json", "images.parquet", "regions.parquet", "hidden/zarr.json", "visual/zarr.json", "targets/zarr.json",
    "hidden/c.0.0", "visual/c.0.0", "targets/c.0.0", "projection.safetensors", "quarantine/shard-0.json",
    "build.lock", "complete.json",
]  # fmt: skip


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 1] = bytes(byte ^ 4 for byte in content[len(content) // 2 :][:1])
    path.write_bytes(content)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "deleted": Path.unlink,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "flipped": flip,
    "a folder": become_folder,
    "a dangling link": lambda path: (path.unlink(), path.symlink_to("../elsewhere")),
}
HARMLESS = {
    ("build.lock", "truncated"), ("build.lock", "emptied"), ("build.lock", "deleted"), ("complete.json", "deleted"),
    ("build.lock", "flipped"),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(one_teacher: None, world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A world with a picture that nobody can read, and a complete cache of it; the folder's name has a space."""
    root = tmp_path_factory.mktemp("it's here")
    pictures = Path(shutil.copytree(world, root / "the world"))
    image = pictures / "images/train/00003.jpg"
    image.write_bytes(image.read_bytes()[:400])
    arguments = ["cache", "build", "--data", pictures / "data.yaml", "--cache", root / "cache", "--dim", "8"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--teacher", "miniature"])
    assert result.exit_code == 1, result.stderr
    assert sorted(FILES) == sorted(
        path.relative_to(root / "cache").as_posix() for path in (root / "cache").rglob("*") if path.is_file()
    )
    return pictures, root / "cache"


def remedies(result: Result) -> list[str]:
    """The command lines that a result advises to type."""
    said = result.stdout + result.stderr
    return re.findall(r"`([^`]*)`", said) or re.findall(r": ((?:mocha-pipe|chmod) .*)", said)


def content_of(folder: Path) -> dict[str, bytes]:
    names = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("build.lock", "complete.json")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


CASES = [
    (file, damage, which)
    for file in FILES
    for damage in DAMAGES
    for which in ("with the pictures", "from a sound copy")
    if which == "from a sound copy" or damage != "a dangling link"  # its content may be sound, elsewhere
    if which == "with the pictures" or damage not in ("truncated", "emptied")  # one of a kind is enough
]


def advised(command: Command, cache: Path) -> list[str]:
    """What verify says to type, after its findings."""
    found = command("cache", "verify", cache)
    assert found.exit_code == 1
    return [line.partition(": ")[2] for line in found.stderr.splitlines()]


def type_all(command: Command, lines: list[str], source: Path) -> None:
    for line in lines:
        typed = command(*(str(source) if word == "SOURCE" else word for word in shlex.split(line)[1:]))
        assert typed.exit_code == 0, typed.stderr


def test_a_foreign_layout_with_something_missing_is_copied(
    command: Command, places: tuple[Path, Path], tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(places[1], tmp_path / "cache"))
    lay_out_anew(cache, "zarr's own", "targets")
    (cache / "targets/c/0/0").unlink()
    pull, copy, complete = advised(command, cache)
    assert pull == complete == f"mocha-pipe cache pull SOURCE {cache}-2"
    assert copy == f"mocha-pipe cache pull {cache} {cache}-2"
    for lines in ([pull], [copy, complete]):
        type_all(command, lines, places[1])
        assert content_of(Path(f"{cache}-2")) == content_of(places[1])
        shutil.rmtree(f"{cache}-2")


@pytest.mark.parametrize("damage", ["truncated", "a row without numbers", "a row of zeros"])
def test_a_foreign_layout_with_damage_is_replaced_by_a_sound_copy(
    command: Command, places: tuple[Path, Path], tmp_path: Path, damage: str
) -> None:
    cache = Path(shutil.copytree(places[1], tmp_path / "cache"))
    lay_out_anew(cache, "zarr's own", "targets")
    if damage == "truncated":
        DAMAGES[damage](cache / "targets/c/0/0")
    else:
        zarr.open_array(cache / "targets")[0] = 0 if "zeros" in damage else float("nan")
    lines = advised(command, cache)
    assert lines == [f"mocha-pipe cache pull SOURCE {cache}-2"]
    type_all(command, lines, places[1])
    assert content_of(Path(f"{cache}-2")) == content_of(places[1])


def test_what_was_rounded_is_pulled_again(command: Command, places: tuple[Path, Path], tmp_path: Path) -> None:
    archive, cache = tmp_path / "archive", tmp_path / "cache"
    assert command("cache", "compact", places[1], archive, "--lossy").exit_code == 0
    assert command("cache", "pull", archive, cache).exit_code == 0
    flip(cache / "hidden/c.0.0")
    lines = advised(command, cache)
    assert lines == [f"mocha-pipe cache pull SOURCE {cache} --repair"]
    type_all(command, lines, archive)
    assert command("cache", "verify", cache).exit_code == 0


def test_what_has_the_place_of_a_folder_is_moved(command: Command, places: tuple[Path, Path], tmp_path: Path) -> None:
    cache = Path(shutil.copytree(places[1], tmp_path / "cache"))
    shutil.rmtree(cache / "hidden")
    (cache / "hidden").write_text("mine")
    found = command("cache", "verify", cache)
    assert found.stderr == (
        f"move away what has the place of a folder, and verify again: mv {cache}/hidden {cache}/hidden.aside\n"
    )
    (cache / "hidden").rename(cache / "hidden.aside")
    type_all(command, advised(command, cache)[1:], places[1])
    (cache / "hidden.aside").unlink()
    assert content_of(cache) == content_of(places[1])


@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_build_does_not_pass_over_lists_that_are_lost(
    command: Command, places: tuple[Path, Path], tmp_path: Path, damage: str
) -> None:
    pictures, sound = places
    cache = Path(shutil.copytree(sound, tmp_path / "cache"))
    DAMAGES[damage](cache / "quarantine/shard-0.json")
    info = command("cache", "info", cache)
    assert info.exit_code == 2
    assert info.stderr.endswith(f"; run `mocha-pipe cache verify {cache} --repair --data DATA`\n")
    data = ["--data", pictures / "data.yaml", "--teacher", "miniature", "--dim", 8]
    build = command("cache", "build", "--cache", cache, *data)
    assert (build.exit_code, build.stderr.splitlines()[-1]) == (2, info.stderr.splitlines()[-1])


@pytest.mark.parametrize(("file", "damage", "which"), CASES)
def test_what_verify_advises_mends(
    command: Command, places: tuple[Path, Path], tmp_path: Path, file: str, damage: str, which: str
) -> None:
    pictures, sound = places
    cache = Path(shutil.copytree(sound, tmp_path / "my cache"))
    DAMAGES[damage](cache / file)
    for attempt in range(3):  # noqa: B007  (asked for below)
        found = command("cache", "verify", cache)
        assert "Traceback" not in found.stderr
        assert not re.search(r": *(\(\))?$", found.stdout.partition("\n")[0]), "a reason is given"
        if found.exit_code == 0:
            break
        advice = remedies(found)
        line = advice[-1] if which == "from a sound copy" else advice[0]
        program, *words = shlex.split(line)
        assert program == "mocha-pipe", found.stderr
        given = {"DATA": str(pictures / "data.yaml"), "SOURCE": str(sound)}
        typed = command(*(given.get(word, word) for word in words))
        assert "Traceback" not in typed.stderr
        assert typed.exit_code == 0, typed.stderr
    assert found.exit_code == 0, found.stdout
    assert attempt == (0 if (file, damage) in HARMLESS else 1), "one remedy is enough"
    assert content_of(cache) == content_of(sound)
