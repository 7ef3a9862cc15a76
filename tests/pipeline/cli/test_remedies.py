"""Every file of a cache is damaged in turn, and what `cache verify` says is typed, until it says that all is sound."""

import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mocha_pipe.pipeline.cli.main import app

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
    ("build.lock", "flipped"), ("build.lock", "a dangling link"), ("complete.json", "a dangling link"),
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
