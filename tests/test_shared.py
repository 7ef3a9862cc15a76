"""Shared things are made once, and again when what makes them changes."""

import multiprocessing
import os
from pathlib import Path

import pytest

import tests.shared
from tests.shared import made_once


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tests.shared, "_KEPT", tmp_path / "made")
    return tmp_path / "made"


def make(folder: Path) -> None:
    with (folder.parent / "calls").open("a") as calls:
        calls.write("x")
    (folder / "file").write_text("content")


def ask(kept: Path) -> None:
    tests.shared._KEPT = kept
    made_once("thing", make)


def test_several_processes_make_it_once(kept: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=ask, args=(kept,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert (kept / "calls").read_text() == "x"
    assert (made_once("thing", make) / "file").read_text() == "content"


def test_other_code_makes_it_again_and_drops_only_what_nobody_uses_any_more(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made_once("thing", make)
    os.utime(first, (0, 0))
    assert made_once("thing", make) == first, "asked for again, and so in use"
    monkeypatch.setattr(tests.shared, "_product_digest", lambda: b"other code")
    second = made_once("thing", make)
    assert (kept / "calls").read_text() == "xx"
    assert second != first
    assert first.is_dir(), "a run of the first code may be reading it"
    os.utime(first, (0, 0))
    monkeypatch.setattr(tests.shared, "_product_digest", lambda: b"third code")
    third = made_once("thing", make)
    assert [path.is_dir() for path in (first, second, third)] == [False, True, True]


def test_what_fails_leaves_nothing_that_counts(kept: Path) -> None:
    def fail(folder: Path) -> None:
        make(folder)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        made_once("thing", fail)
    assert (made_once("thing", make) / "file").read_text() == "content"
    assert not list(kept.glob("partial-*"))
