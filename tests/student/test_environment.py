"""What preparing the environment leaves behind; test_alone.py does it in a fresh process."""

import json
import os
from pathlib import Path

import pytest

from mocha_pipe.student.environment import cpu_threads, prepare_environment
from tests.student.test_alone import VARIABLES


@pytest.fixture(autouse=True)
def _clean_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # registers the value to restore
        monkeypatch.delenv(name)


def test_what_the_user_set_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    folder = tmp_path / "Ultralytics"
    folder.mkdir()
    (folder / "settings.json").write_text('{"wandb": true}', encoding="utf-8")
    assert prepare_environment() == folder
    assert json.loads((folder / "settings.json").read_text(encoding="utf-8")) == {"wandb": True}
    assert os.environ["ULTRALYTICS_SAFE_LOAD"] == "0"
    assert cpu_threads() == 3


def test_an_empty_number_of_threads_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    prepare_environment()
    assert cpu_threads() >= 1


def test_preparing_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = prepare_environment()
    first = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert set(first) == {"settings.json", "Arial.ttf", "Arial.Unicode.ttf"}
    assert prepare_environment() == folder
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == first


def test_a_cache_that_cannot_be_written_gives_a_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = prepare_environment()
    assert folder.parent.parent == tmp_path
    assert (folder / "settings.json").is_file()
