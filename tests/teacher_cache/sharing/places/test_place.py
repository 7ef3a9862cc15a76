import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from tenacity import wait_none

from mocha_pipe.teacher_cache.errors import TransferError
from mocha_pipe.teacher_cache.sharing import pull, push
from mocha_pipe.teacher_cache.sharing.places import place as place_module
from mocha_pipe.teacher_cache.sharing.places.place import Place

Failing = Callable[..., list[str]]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Let an operation of the memory driver fail a few times; returns the log of its calls."""
    monkeypatch.setattr(place_module, "wait_random_exponential", lambda **_: wait_none())

    def fail(name: str, error: Exception, times: int, *, after: bool = False) -> list[str]:
        original, calls = getattr(MemoryFileSystem, name), []

        def operation(self: MemoryFileSystem, path: str, *arguments: Any, **options: Any) -> Any:
            calls.append(path)
            fails = len(calls) <= times
            result = None if fails and not after else original(self, path, *arguments, **options)
            if fails:
                raise error
            return result

        monkeypatch.setattr(MemoryFileSystem, name, operation)
        return calls

    return fail


@pytest.mark.parametrize(
    ("protocol", "package", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gs"), ("ssh", "paramiko", "ssh")]
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str, package: str, extra: str
) -> None:
    monkeypatch.delitem(_registry, protocol, raising=False)
    for module in ("mocha_pipe.teacher_cache.sharing.places.ssh", "fsspec.implementations.sftp"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TransferError) as missing:
        pull(f"{protocol}://team/coco", tmp_path / "copy")
    assert str(missing.value) == (
        f"{protocol}:// needs the package {package}; install it with: pip install 'mocha-pipe[{extra}]'"
    )


def test_an_unknown_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TransferError) as unknown:
        pull("s4://team/coco", tmp_path / "copy")
    assert str(unknown.value) == (
        "a place is a folder or a URL (s3://, gs://, hf://, ssh://, file://, ...); s4:// is not known"
    )


def test_another_protocol_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(TransferError, match=r"^abfs:// needs more than is installed here \(.*adlfs.*\); install what"):
        pull("abfs://team/coco", tmp_path / "copy")


def test_a_failing_connection_is_made_anew(place: str, tools: Any, failing: Failing) -> None:
    tools.put(f"{place}/file", b"content")
    calls = failing("cat_file", ConnectionResetError("gone"), times=3)
    connections = []
    original = MemoryFileSystem.__init__

    def connect(self: MemoryFileSystem, *arguments: Any, **options: Any) -> None:
        connections.append(self)
        original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "__init__", connect)
        assert Place(place).read("file") == b"content"
    assert (len(calls), len(connections)) == (4, 4)


def test_a_connection_that_always_fails_is_told_in_words(place: str, failing: Failing, tmp_path: Path) -> None:
    calls = failing("ls", ConnectionResetError("gone"), times=100)
    with pytest.raises(TransferError) as failed:
        Place(f"{place}/").entries()
    assert str(failed.value) == (
        f"{place} failed 4 times (gone); check connection and credentials, then run the same command again: it goes "
        "on with what is missing"
    )
    assert len(calls) == 4


def test_a_closed_door_is_not_knocked_at_again(place: str, failing: Failing) -> None:
    calls = failing("cat_file", PermissionError("Access Denied"), times=100)
    with pytest.raises(TransferError) as refused:
        Place(place).read("file")
    assert str(refused.value) == (
        f"{place} does not let you in (Access Denied); check the credentials of this machine, then run the same "
        "command again"
    )
    assert len(calls) == 1


def test_nothing_answers(s3: str, impatient: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        TransferError, match=r"^s3://team/\w+/coco failed 2 times \(Could not connect.*the same command"
    ):
        pull(f"{s3}/coco", tmp_path / "copy")


def test_a_bucket_that_is_not_there(finished: Path, s3: str) -> None:
    with pytest.raises(
        TransferError, match=r"^s3://nobody/coco cannot be written to \(.*\); make the bucket, .* first"
    ):
        push(finished, "s3://nobody/coco")


def test_the_first_of_two_files_stays(place: str, tmp_path: Path, tools: Any) -> None:
    for name, content in (("mine", b"mine"), ("theirs", b"theirs")):
        (tmp_path / name).write_bytes(content)
    there = Place(place)
    assert there.store("file", tmp_path / "theirs", only_new=True)
    assert not there.store("file", tmp_path / "mine", only_new=True)
    assert there.read("file") == b"theirs"
    assert there.store("file", tmp_path / "theirs", only_new=True)
    assert there.store("file", tmp_path / "mine", only_new=False)
    assert there.read("file") == b"mine"


def test_s3_keeps_the_first_of_two_files(s3: str, tmp_path: Path, tools: Any) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    tools.put(f"{s3}/file", b"theirs")
    assert not Place(s3).store("file", tmp_path / "mine", only_new=True)
    assert tools.remote(s3) == {"file": b"theirs"}


def test_a_store_that_knows_no_condition_takes_the_file(place: str, tmp_path: Path, failing: Failing) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    calls = failing("put_file", OSError(errno.ENOSYS, "NotImplemented"), times=1)
    assert Place(place).store("file", tmp_path / "mine", only_new=True)
    assert len(calls) == 2


def test_a_store_that_refuses_in_other_words_is_understood(
    place: str, tmp_path: Path, tools: Any, failing: Failing
) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    tools.put(f"{place}/file", b"theirs")
    calls = failing("put_file", OSError(errno.EINVAL, "PreconditionFailed"), times=100)
    assert not Place(place).store("file", tmp_path / "mine", only_new=True)
    assert len(calls) == 1


def test_a_put_whose_answer_was_lost_has_arrived(place: str, tmp_path: Path, failing: Failing) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    failing("put_file", ConnectionResetError("gone"), times=1, after=True)
    assert Place(place).store("file", tmp_path / "mine", only_new=True)


def test_a_put_of_another_size_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put_a_part(self: MemoryFileSystem, local: str, path: str, **_: object) -> None:
        self.pipe_file(path, b"mi")

    (tmp_path / "mine").write_bytes(b"mine")
    monkeypatch.setattr(MemoryFileSystem, "put_file", put_a_part)
    with pytest.raises(TransferError, match="file has 2 bytes after a put of 4; remove it and push again"):
        Place(place).store("file", tmp_path / "mine", only_new=True)


def test_a_file_that_goes_away_is_told_in_words(place: str, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"/file went away while it was copied; run the same command again"):
        Place(place).fetch("file", tmp_path / "file")


def test_a_password_is_not_shown() -> None:
    assert Place("ssh://member:secret@server:2222/caches/coco/").url == "ssh://member@server:2222/caches/coco"
    assert Place("s3://team/a:b@c").url == "s3://team/a:b@c"


def test_listings_are_never_remembered(s3: str, tools: Any) -> None:
    there = Place(s3)
    for name in ("one", "folder/two", "three"):
        tools.put(f"{s3}/{name}", b"content")
        assert name.partition("/")[0] in {*there.entries()[0], *there.entries()[1]}
    assert there.entries() == ({"one": 7, "three": 7}, ["folder"])
    assert there.entries("folder") == ({"two": 7}, [])


def test_a_shard_that_somebody_else_began_is_left_to_them(place: str, tmp_path: Path, tools: Any) -> None:
    for name in ("hidden", "visual"):
        (tmp_path / name).write_bytes(b"mine")
    tools.put(f"{place}/hidden", b"theirs")
    files = {name: tmp_path / name for name in ("hidden", "visual")}
    assert Place(place).send(files, stale=(), there=()) == []
    assert tools.remote(place) == {"hidden": b"theirs"}
    assert Place(place).send(files, stale=(), there=("hidden",)) == ["hidden", "visual"]
    assert tools.remote(place) == {"hidden": b"mine", "visual": b"mine"}
