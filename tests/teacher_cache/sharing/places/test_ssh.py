"""Against a real ssh server on loopback, which serves files over sftp."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest

from mocha_pipe.teacher_cache.errors import TransferError
from mocha_pipe.teacher_cache.sharing import list_caches, pull, push, transfer


class Door(paramiko.ServerInterface):
    attempts: int = 0

    def check_auth_password(self, username: str, password: str) -> int:
        type(self).attempts += 1
        return paramiko.AUTH_SUCCESSFUL if (username, password) == ("member", "secret") else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


def told(error: OSError) -> int:
    return paramiko.SFTPServer.convert_errno(error.errno)


class Handle(paramiko.SFTPHandle):
    def stat(self) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


class Files(paramiko.SFTPServerInterface):
    def list_folder(self, path: str) -> Any:
        try:
            return [paramiko.SFTPAttributes.from_stat(entry.stat(), entry.name) for entry in Path(path).iterdir()]
        except OSError as error:
            return told(error)

    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return told(error)

    lstat = stat

    def open(self, path: str, flags: int, attr: Any) -> Any:
        try:
            stream = os.fdopen(os.open(path, flags, 0o644), "r+b" if flags & (os.O_RDWR | os.O_WRONLY) else "rb")
        except OSError as error:
            return told(error)
        handle = Handle(flags)
        handle.readfile = handle.writefile = stream
        return handle

    def remove(self, path: str) -> int:
        return self._do(os.remove, path)

    def mkdir(self, path: str, attr: Any) -> int:
        return self._do(os.mkdir, path)

    def posix_rename(self, old: str, new: str) -> int:
        return self._do(os.replace, old, new)

    def _do(self, operation: Any, *paths: str) -> int:
        try:
            operation(*paths)
        except OSError as error:
            return told(error)
        return paramiko.SFTP_OK


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a server whose key is in known_hosts."""
    key = paramiko.ECDSAKey.generate()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                transport = paramiko.Transport(client)
                transport.add_server_key(key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
                with suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=Door())

    threading.Thread(target=serve, daemon=True).start()
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(transfer, "WORKERS", 2)  # each opens a connection of its own
    Door.attempts = 0
    (tmp_path / "server").mkdir()
    yield f"ssh://member:secret@127.0.0.1:{port}{tmp_path}/server"
    listener.close()


def test_a_cache_goes_over_ssh_and_comes_back(finished: Path, ssh: str, tmp_path: Path, tools: Any) -> None:
    assert push(finished, f"{ssh}/caches/coco").files == 16
    assert tools.content(tmp_path / "server" / "caches" / "coco") == tools.content(finished)
    assert not list((tmp_path / "server").rglob("*.partial"))
    assert push(finished, f"{ssh}/caches/coco").files == 0
    pull(f"{ssh}/caches/coco", tmp_path / "copy")
    assert tools.content(tmp_path / "copy") == tools.content(finished)
    [found] = list_caches(ssh)
    assert found.complete
    assert "secret" not in found.place


def test_an_upload_that_ends_in_the_middle_shows_no_file(
    finished: Path, ssh: str, tmp_path: Path, tools: Any, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mocha_pipe.teacher_cache.sharing.places.ssh import KnownHostsFileSystem

    put = KnownHostsFileSystem.put_file

    def put_a_part(self: KnownHostsFileSystem, local: str, path: str, **_: object) -> None:
        if not local.endswith("hidden/c.1.0"):
            put(self, local, path)
            return
        with self.ftp.open(path, "wb") as stream:
            stream.write(Path(local).read_bytes()[:700])
        raise EOFError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(KnownHostsFileSystem, "put_file", put_a_part)
        with pytest.raises(TransferError, match=r"/coco failed 2 times \(the connection is gone\); check"):
            push(finished, f"{ssh}/coco")
    arrived, content = tools.content(tmp_path / "server" / "coco"), tools.content(finished)
    assert arrived.items() < content.items()
    push(finished, f"{ssh}/coco")
    assert tools.content(tmp_path / "server" / "coco") == content


@pytest.mark.parametrize("known_hosts", ["", None])
def test_an_unknown_server_is_refused(ssh: str, tmp_path: Path, known_hosts: str | None) -> None:
    path = tmp_path / "home" / ".ssh" / "known_hosts"
    path.unlink()
    if known_hosts is not None:
        path.write_text(known_hosts)
    with pytest.raises(TransferError) as refused:
        pull(f"{ssh}/coco", tmp_path / "copy")
    host = ssh.partition("@")[2].partition("/")[0]
    assert str(refused.value) == (
        f"{ssh.replace(':secret', '')}/coco does not let you in (~/.ssh/known_hosts does not hold the "
        f"ecdsa-sha2-nistp256 key of [{host.replace(':', ']:')}; connect once with ssh); check the credentials of this "
        "machine, then run the same command again"
    )
    assert Door.attempts == 0


def test_a_server_with_another_key_is_refused(ssh: str, tmp_path: Path) -> None:
    path = tmp_path / "home" / ".ssh" / "known_hosts"
    host, kind, _ = path.read_text().split()
    path.write_text(f"{host} {kind} {paramiko.ECDSAKey.generate().get_base64()}\n")
    with pytest.raises(TransferError, match=r"does not let you in \(Host key for server .* does not match"):
        pull(f"{ssh}/coco", tmp_path / "copy")
    assert Door.attempts == 0


def test_a_wrong_password_is_tried_once(ssh: str, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"does not let you in \(Authentication failed.*\); check the credentials"):
        pull(f"{ssh.replace(':secret', ':guess')}/coco", tmp_path / "copy")
    assert Door.attempts == 1
