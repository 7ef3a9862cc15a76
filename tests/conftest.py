"""Fixtures for all tests: nothing is read from or written to the home or the folder that the tests run in."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def _cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def isolated_environment(_cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of every library below one temporary folder, no network, and a working folder of the test's own."""
    for name in ("XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR", "YOLO_CONFIG_DIR", "TORCH_HOME"):
        monkeypatch.setenv(name, str(_cache_root / name.lower()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
