from pathlib import Path

import pytest

from bench.data import check


def test_the_files_are_without_a_fault_and_all_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FILES", 60)
    decoding, reading = check.measure(tmp_path).values()
    assert reading.value > decoding.value > 0
    assert list((tmp_path / "bench").iterdir()) == []


def test_pictures_differ(tmp_path: Path) -> None:
    data = check.write_files(tmp_path, 60)
    pictures = [path.read_bytes() for path in (data.parent / "images").iterdir()]
    assert len(set(pictures)) == 60
    assert check.decode_once(tmp_path) == 60 * (8 + 96 * 96 * 3)
    files = [path for kind in ("labels", "images") for path in (tmp_path / kind).iterdir()]
    assert check.read_bytes(tmp_path) == sum(path.stat().st_size for path in files)
