"""onnxruntime-web comes by npm once, is checked, and is kept."""

import base64
import hashlib
import io
import stat
import tarfile
from pathlib import Path

import pytest

from mocha_pipe.pipeline.web import runtime
from mocha_pipe.pipeline.web.runtime import FILES, RuntimeMissingError, runtime_files

NAME = f"onnxruntime-web-{runtime.VERSION}"


def archive(path: Path, *, more: str = "") -> Path:
    """A release with the files that are taken and others that are not."""
    with tarfile.open(path, "w:gz") as tar:
        for name in [
            *(f"package/dist/{name}" for name in FILES),
            "package/package.json",
            "../outside",
            *([more] if more else []),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive that passes for the pinned one."""
    made = archive(tmp_path / "release.tgz")
    digest = base64.b64encode(hashlib.sha512(made.read_bytes()).digest()).decode()
    monkeypatch.setattr(runtime, "INTEGRITY", f"sha512-{digest}")
    return made


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755 | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_npm_fetches_it_once(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path / "bin", f'echo "$@" >> {tmp_path}/calls; cp {release} "$4/x.tgz"', monkeypatch)
    for _ in range(2):
        files = runtime_files(tmp_path / "cache")
    assert {name: path.read_text() for name, path in files.items()} == {name: f"package/dist/{name}" for name in FILES}
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith(f"pack onnxruntime-web@{runtime.VERSION} --pack-destination ")
    assert sorted(path.name for path in (tmp_path / "cache" / NAME).iterdir()) == sorted(FILES)
    assert not (tmp_path / "outside").exists()


def test_an_archive_that_lies_there_is_taken_without_npm(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    release.rename(tmp_path / "cache" / f"{NAME}.tgz")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all(path.is_file() for path in runtime_files(tmp_path / "cache").values())


def test_another_archive_is_refused(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = archive(tmp_path / "other.tgz", more="package/more")
    fake_npm(tmp_path / "bin", f'cp {other} "$4/x.tgz"', monkeypatch)
    with pytest.raises(RuntimeMissingError, match=r"x.tgz must be the archive of onnxruntime-web .* found sha512-"):
        runtime_files(tmp_path / "cache")
    assert not (tmp_path / "cache" / NAME).exists()


def test_no_npm_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    own = tmp_path / "cache" / f"{NAME}.tgz"
    with pytest.raises(RuntimeMissingError) as refused:
        runtime_files(tmp_path / "cache")
    assert "found no npm; install Node.js (Debian and Ubuntu: apt install npm) and run the same command again" in str(
        refused.value
    )
    assert str(refused.value).endswith(f"from the npm registry there by hand: {own}")


def test_npm_that_gets_nothing_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path / "bin", "echo 'npm error network timed out' >&2; exit 1", monkeypatch)
    with pytest.raises(
        RuntimeMissingError, match=r"npm could not fetch \(npm error network timed out\); look at the conn"
    ):
        runtime_files(tmp_path / "cache")
