"""`mocha-pipe web`: what it serves, what it leaves in a folder, and which profile it takes."""

import webbrowser
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from mocha_pipe.pipeline.web import site as site_module
from mocha_pipe.student.personal.profile import Profile, student_digest


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What pages were built with; each has one file."""
    calls: list[dict[str, Any]] = []
    (tmp_path / "page.html").write_text("page")

    def build(student: Path, profile: Path | None, cache: Path, *, learner: str | None) -> dict[str, Path]:
        calls.append({"student": student, "profile": profile, "cache": cache, "learner": learner})
        return {"index.html": tmp_path / "page.html"}

    monkeypatch.setattr(site_module, "build_site", build)
    return calls


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that a browser was sent to; whoever serves is interrupted."""
    addresses: list[str] = []

    def interrupt(_: ThreadingHTTPServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", addresses.append)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupt)
    return addresses


@pytest.fixture
def student(random_student: Path) -> Path:
    return random_student


def profile_of(student: Path, path: Path, *, digest: str | None = None, learner: str = "conditional") -> Path:
    profile = Profile.empty(digest or student_digest(student), ["mug", "boot"], learner=learner)
    profile.add("my mug", np.ones((1, 16), np.float32), np.array([0])).save(path)
    return path


def test_the_page_is_served_and_opened(
    command: Callable[..., Result], built: list[dict[str, Any]], opened: list[str], student: Path, tmp_path: Path
) -> None:
    done = command("web", "--student", student, "--port", 0, "--root", tmp_path / "none")
    assert done.exit_code == 0, done.output
    (address,) = opened
    assert done.stdout.splitlines() == [f"{address} shows the page; Ctrl-C ends it", "ended"]
    assert address.startswith("http://127.0.0.1:")
    (call,) = built
    assert (call["student"], call["profile"], call["learner"]) == (student, None, None)
    assert call["cache"].parts[-2:] == ("mocha-pipe", "web")
    assert command("web", "--student", student, "--port", 0, "--no-open").exit_code == 0
    assert len(opened) == 1


def test_a_profile_goes_with_the_page(
    command: Callable[..., Result], built: list[dict[str, Any]], opened: list[str], student: Path, tmp_path: Path
) -> None:
    path = profile_of(student, tmp_path / "profile.safetensors", learner="gallery")
    assert command("web", "--student", student, "--root", tmp_path, "--port", 0).exit_code == 0
    assert command("web", "--student", student, "--profile", path, "--port", 0).exit_code == 0
    assert [(call["profile"], call["learner"]) for call in built] == [(path, "gallery")] * 2


def test_a_profile_of_another_student(
    command: Callable[..., Result], built: list[dict[str, Any]], opened: list[str], student: Path, tmp_path: Path
) -> None:
    path = profile_of(student, tmp_path / "profile.safetensors", digest="b" * 64)
    done = command("web", "--student", student, "--profile", path)
    assert done.exit_code == 2
    assert "a profile must be used with the student that it was learnt with" in done.stderr
    assert built == []
    done = command("web", "--student", student, "--root", tmp_path, "--port", 0)  # one that nobody named
    assert done.exit_code == 0
    assert f"warning: {path} is left out: a profile must be used with the student" in done.stderr
    assert built[0]["profile"] is None


def test_a_page_is_left_in_a_folder_without_a_profile_that_nobody_named(
    command: Callable[..., Result], built: list[dict[str, Any]], opened: list[str], student: Path, tmp_path: Path
) -> None:
    profile_of(student, tmp_path / "profile.safetensors")
    done = command("web", "--student", student, "--root", tmp_path, "--save", tmp_path / "left")
    assert done.exit_code == 0
    assert "left: 1 files, 0 MiB; put them on any server of files (docs/web.md)" in done.stdout
    assert built[0]["profile"] is None
    assert opened == []
    assert (tmp_path / "left" / "index.html").read_text() == "page"


def test_without_a_student(command: Callable[..., Result], tmp_path: Path) -> None:
    done = command("web", "--root", tmp_path)
    assert done.exit_code == 2
    assert "no distillation was completed under" in done.stderr
