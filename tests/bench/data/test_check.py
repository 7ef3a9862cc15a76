from pathlib import Path

import pytest

from bench.data import check


def test_the_files_are_without_a_fault_and_all_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FILES", 60)
    (figure,) = check.measure(tmp_path).values()
    assert figure.value > 0
    assert list((tmp_path / "bench").iterdir()) == []


def test_pictures_differ(tmp_path: Path) -> None:
    data = check.write_files(tmp_path, 60)
    pictures = [path.read_bytes() for path in (data.parent / "images").iterdir()]
    assert len(set(pictures)) == 60
    assert check.read_once(tmp_path) == 60 * (8 + 96 * 96 * 3)
