"""Folders that people give us to fill: mounted, linked, with a desktop's droppings, below one of somebody else's."""

import errno
import os
from pathlib import Path

import pytest

from mocha_pipe.data.files import finish_filling, is_vacant, publish, temporary_folder
from tests.shared import as_nobody


def fill(target: Path, *, last: str = "last") -> bool:
    with temporary_folder(target) as temporary:
        for name in ("a", last, "z"):
            (temporary / name).write_text(name)
        (temporary / "array").mkdir()
        return publish(temporary, target, last=last)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that can neither be removed nor replaced, as a container mounts it."""
    target = tmp_path / "mounted"
    target.mkdir()
    rename, rmdir = os.rename, os.rmdir

    def busy_rename(source: Path, to: Path) -> None:
        if Path(to) == target:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if Path(source).is_relative_to(target) != Path(to).is_relative_to(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, to)

    def busy_rmdir(path: Path, *options: object, **more: object) -> None:
        if Path(path) == target:
            raise OSError(errno.EBUSY, "Device or resource busy")
        rmdir(path, *options, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", busy_rename)
    monkeypatch.setattr(os, "rmdir", busy_rmdir)
    return target


def test_a_mount_point_is_filled(mounted: Path) -> None:
    identity = mounted.stat().st_ino
    assert fill(mounted)
    assert names(mounted) == {"a", "last", "z", "array"}
    assert mounted.stat().st_ino == identity
    assert names(mounted.parent) == {"mounted"}
    assert not fill(mounted), "it is taken now"
    assert names(mounted) == {"a", "last", "z", "array"}


def test_a_mount_point_that_was_half_filled_is_filled(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def die(source: Path, to: Path) -> None:
        if Path(to).name == "z":
            raise KeyboardInterrupt
        rename(source, to)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(os, "rename", die)
        fill(mounted)
    assert "last" not in names(mounted)
    finish_filling(mounted, "last")
    assert names(mounted) == {"a", "last", "z", "array"}
    finish_filling(mounted, "last")
    finish_filling(mounted / "nowhere", "last")


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to("disk")
    dangling.symlink_to("later/made")
    assert fill(link)
    assert link.is_symlink()
    assert names(tmp_path / "disk") == {"a", "last", "z", "array"}
    assert fill(dangling)
    assert names(tmp_path / "later/made") == {"a", "last", "z", "array"}


@pytest.mark.parametrize("dropping", [".DS_Store", "Thumbs.db", "desktop.ini", ".directory", "._notes"])
def test_what_a_desktop_leaves_does_not_count(tmp_path: Path, dropping: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / dropping).write_bytes(b"icons")
    assert is_vacant(target)
    assert fill(target)
    assert names(target) == {"a", "last", "z", "array", dropping}
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    assert not is_vacant(tmp_path / "other")


def test_an_empty_folder_below_one_where_we_may_not_write(tmp_path: Path) -> None:
    target = tmp_path / "parent" / "target"
    target.mkdir(parents=True)
    target.chmod(0o777)
    target.parent.chmod(0o555)
    try:
        with as_nobody(tmp_path):
            assert fill(target)
            assert names(target) == {"a", "last", "z", "array"}
            with pytest.raises(PermissionError):
                fill(target.parent / "other")
    finally:
        target.parent.chmod(0o755)
