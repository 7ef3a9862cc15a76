"""The `cache` commands where people keep folders, and what they say of files that they may not read."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mocha_pipe.pipeline.cli.main import app
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.store.cache import RegionCache
from tests.shared import as_nobody

Command = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("one_teacher")


@pytest.mark.parametrize(
    "file",
    ["hidden/c.0.0", "hidden/zarr.json", "projection.safetensors", "zarr.json", "regions.parquet", "complete.json"],
)
def test_a_file_that_we_may_not_read_is_named_with_the_chmod(built: Path, tmp_path: Path, file: str) -> None:
    cache = Path(shutil.copytree(built, tmp_path / "of a colleague"))
    (cache / file).chmod(0o000)
    chmod = f"chmod -R a+rX {shlex.quote(str(cache))}"
    with as_nobody(tmp_path):
        info = CliRunner().invoke(app, ["cache", "info", str(cache)])
        verify = CliRunner().invoke(app, ["cache", "verify", str(cache)])
        push = CliRunner().invoke(app, ["cache", "push", str(cache), "memory://nobody/cache"])
    if file in ("hidden/zarr.json", "projection.safetensors", "zarr.json"):
        assert info.exit_code == 2
        assert "cannot be read (Permission denied)" in info.stderr
    assert chmod in verify.stdout + verify.stderr
    assert "--repair" not in verify.stdout + verify.stderr, "the file may be sound"
    assert push.exit_code == 2
    assert "cannot be" in push.stderr
    for result in (info, verify, push):
        assert "Traceback" not in result.stderr
    for path in cache.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with as_nobody(tmp_path):
        assert verify_cache(cache).findings == ()


def test_a_merge_into_a_complete_cache_writes_nothing(command: Command, built: Path, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(built, tmp_path / "cache"))
    (cache / "build.lock").unlink()
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with as_nobody(tmp_path):
        cache.stat()
    result = command("cache", "merge", cache, built)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("0 files travelled")
    assert not (cache / "build.lock").exists()


def test_a_cache_is_built_where_a_desktop_was(command: Command, world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / ".DS_Store").write_bytes(b"icons")
    (folder / "lost+found").mkdir()
    arguments = ["--data", world / "data.yaml", "--teacher", "miniature", "--cache", folder, "--dim", 8]
    result = command("cache", "build", *arguments)
    assert result.exit_code == 0, result.stderr
    assert RegionCache.open(folder).is_complete
    assert (folder / ".DS_Store").exists()


def test_a_place_that_is_not_there_is_said(command: Command, tmp_path: Path) -> None:
    result = command("cache", "ls", tmp_path / "no where")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: there is nothing at {tmp_path}/no where; name a folder or URL that holds caches, such as: "
        f"mocha-pipe cache ls {tmp_path}"
    )


def test_a_damaged_cache_is_listed_with_its_fault(command: Command, built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "sound")
    shutil.copytree(built, tmp_path / "damaged")
    (tmp_path / "damaged/zarr.json").write_text("{")
    result = command("cache", "ls", tmp_path)
    assert result.exit_code == 0
    assert "1/1" in result.stdout
    assert f"note: {tmp_path}/damaged: {tmp_path}/damaged/zarr.json is damaged: it is not the" in result.stdout
