"""The doctor: every line has a status, every line that is not ok a remedy."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mocha_pipe.data.errors import MochaError
from mocha_pipe.pipeline import doctor
from mocha_pipe.teacher_cache.teachers import loading


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], dict[str, doctor.Check]]:
    """Run all checks with a teacher that loads at once."""
    monkeypatch.setattr(
        loading, "load_teacher", lambda _config: SimpleNamespace(spec=SimpleNamespace(hidden_dim=128, visual_dim=64))
    )
    return lambda: {check.name: check for check in doctor.examine(tmp_path / "work", tmp_path / "work/cache")}


def test_every_line_that_is_not_ok_has_a_remedy(checks: Callable[[], dict[str, doctor.Check]]) -> None:
    found = checks()
    names = {"python", "torch", "ultralytics", "transformers", "zarr", "CPU", "memory", "CUDA", "disk", "cache folder"}
    assert set(found) == names | {"telemetry", "miniature teacher"}
    for check in found.values():
        assert (check.status == "ok") == (check.remedy == ""), check
    assert found["telemetry"].status == "ok"
    assert found["miniature teacher"].found == "loads, 128 + 64 dimensions"


def test_a_check_makes_no_folder(checks: Callable[[], dict[str, doctor.Check]], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    checks()
    assert sorted(tmp_path.iterdir()) == before


def test_a_teacher_that_does_not_load_fails_with_its_reason(
    checks: Callable[[], dict[str, doctor.Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_config: object) -> None:
        raise MochaError("no weights")

    monkeypatch.setattr(loading, "load_teacher", refuse)
    check = checks()["miniature teacher"]
    assert (check.status, check.found) == ("fail", "no weights")


def test_a_full_disk_fails(checks: Callable[[], dict[str, doctor.Check]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2**29))
    check = checks()["disk"]
    assert (check.status, check.found) == ("fail", "0.5 GiB free")
    assert "--root" in check.remedy


def test_a_cache_folder_that_cannot_be_written_fails(
    checks: Callable[[], dict[str, doctor.Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, _value: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "write_json", refuse)
    check = checks()["cache folder"]
    assert check.status == "fail"
    assert check.found.endswith("Permission denied")
    assert "--cache" in check.remedy


def test_telemetry_that_is_on_fails(
    checks: Callable[[], dict[str, doctor.Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks()  # imports what switches it off
    monkeypatch.setitem(os.environ, "YOLO_OFFLINE", "0")
    assert checks()["telemetry"].status == "fail"


def test_only_the_teacher_needs_transformers(
    checks: Callable[[], dict[str, doctor.Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", absent)
    found = checks()
    assert found["transformers"].status == "warn"
    assert found["torch"].status == "fail"
    assert found["torch"].remedy == "pip install torch"
