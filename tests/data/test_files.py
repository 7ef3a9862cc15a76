import multiprocessing
import time
from pathlib import Path

import pytest

from mocha_pipe.data.files import (
    appearing_folder,
    atomic_path,
    exclusive,
    is_temporary,
    json_digest,
    publish,
    temporary_folder,
    write_json,
)


def test_file_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "made" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_interrupted_write_keeps_the_old_content_and_leaves_nothing(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(interruption), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise interruption
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_share_a_temporary(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


def test_json_is_indented_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "é": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_file_is_as_readable_as_any_other_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "ours") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def _append_slowly(folder: Path) -> None:
    with exclusive(folder / "lock"):
        log = folder / "log"
        before = log.read_text() if log.exists() else ""
        time.sleep(0.03)
        log.write_text(f"{before}x")


def test_what_is_exclusive_is_done_by_one_process_after_the_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_slowly, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text() == "xxx"


def test_a_disk_without_locks_does_not_stop_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with exclusive(tmp_path / "lock"):
        (tmp_path / "done").touch()
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("flush", [True, False])
def test_a_folder_appears_whole_under_its_name(tmp_path: Path, flush: bool) -> None:
    target = tmp_path / "made" / "folder"
    with temporary_folder(target) as temporary:
        (temporary / "a.txt").write_text("whole")
        assert not target.exists()
        assert publish(temporary, target, flush=flush)
    assert (target / "a.txt").read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_takes_the_place_of_an_empty_one_and_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    (tmp_path / "file").touch()
    for name, published in (("empty", True), ("full", False), ("file", False)):
        with temporary_folder(tmp_path / name) as temporary:
            (temporary / "new").touch()
            assert publish(temporary, tmp_path / name) is published
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file", "full", "new", "precious"]


def test_two_makers_of_one_folder_do_not_share_a_temporary_unless_one_is_alone(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "a") as first, temporary_folder(tmp_path / "a") as second:
        assert first != second
    left, strangers = tmp_path / f".a.{'0f' * 16}.partial", tmp_path / ".a.tar.partial"
    for folder in (left, strangers):
        folder.mkdir()
        (folder / "of a killed process").touch()
    with temporary_folder(tmp_path / "a", shared=False) as alone:
        assert not left.exists()
        assert list(alone.iterdir()) == []
    assert list(tmp_path.iterdir()) == [strangers], "another program's download"


def test_temporaries_are_known_by_names_that_only_we_give(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.b.tar") as file, atomic_path(tmp_path / "none") as bare:
        with temporary_folder(tmp_path / "c") as folder:
            assert all(map(is_temporary, (file.name, bare.name, folder.name)))
        file.touch()
        bare.touch()
    for name in (".a.partial", ".a.tar.partial", "a.1-00ff00ff.partial.tar", ".part.partial.jpg", ".1-2.partial", "a"):
        assert not is_temporary(name)


def test_who_does_not_wait_for_a_lock_is_told(tmp_path: Path) -> None:
    held, asked = (exclusive(tmp_path / "lock", busy=MemoryError("busy")) for _ in range(2))
    with held, pytest.raises(MemoryError, match="busy"), asked:
        pass
    with exclusive(tmp_path / "lock", busy=MemoryError("busy")):
        pass


def test_an_appearing_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(OSError, match="full"), appearing_folder(target, MemoryError()) as building:  # noqa: PT012
        (building / "part").touch()
        raise OSError("full")
    assert not target.exists()
    target.mkdir()
    with appearing_folder(target, MemoryError()) as building:
        (building / "part").touch()
        assert not list(target.iterdir())
    assert [path.name for path in target.iterdir()] == ["part"]
    with pytest.raises(MemoryError, match="in use"), appearing_folder(target, MemoryError("in use")):
        pytest.fail("nothing is begun")


def test_the_digest_of_a_json_value_is_blind_to_the_order_of_keys_and_stays() -> None:
    assert json_digest({"b": [1.5, None], "a": "\u00e4"}) == json_digest({"a": "\u00e4", "b": [1.5, None]})
    assert json_digest({"b": [1.5, None], "a": "\u00e4"}) == "fea79b3d346e71ed7c2434a37a88175d"
    assert json_digest([1, 2]) != json_digest([2, 1])
