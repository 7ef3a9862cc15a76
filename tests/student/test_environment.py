"""What importing student.environment leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mocha_pipe.student.environment import cpu_threads, prepare_environment

VARIABLES = ("YOLO_OFFLINE", "YOLO_AUTOINSTALL", "YOLO_CONFIG_DIR", "ULTRALYTICS_SAFE_LOAD", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def _clean_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # registers the value to restore
        monkeypatch.delenv(name)


def test_a_fresh_process_is_offline_quiet_and_restricted(tmp_path: Path) -> None:
    script = """
import sys
def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        raise RuntimeError(f"network: {event} {arguments}")
sys.addaudithook(refuse)
import mocha_pipe.student.environment
assert "torch" not in sys.modules and "ultralytics" not in sys.modules
import torch
import ultralytics
from ultralytics.utils import ONLINE, SAFE_LOAD, AUTOINSTALL, checks
assert not ONLINE and SAFE_LOAD and not AUTOINSTALL
on = [name for name, value in ultralytics.settings.items() if value is True]
assert on == [], on
for font in ("Arial.ttf", "Arial.Unicode.ttf"):
    assert str(checks.check_font(font)).startswith(str(ultralytics.utils.USER_CONFIG_DIR)), font
assert torch.get_num_threads() == student.environment.cpu_threads()
"""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "cache" / "mocha-pipe" / "Ultralytics" / "settings.json").is_file()
    assert not (tmp_path / "home" / ".config").exists()


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
