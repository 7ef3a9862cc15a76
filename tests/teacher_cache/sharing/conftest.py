"""A real S3 server on loopback, and a proxy before it that can cut, flip and hold back what passes."""

import os
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import botocore.session
import fsspec
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.sharing.places import place as place_module
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings

ENDPOINT = "AWS_ENDPOINT_URL"
END_OF_HEADER = b"\r\n\r\n"


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """A moto server in a thread, with the bucket `team`.

    All clients of this process share what botocore reads of its service descriptions, which every connection would
    otherwise read again.
    """
    loader = botocore.session.create_loader()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = int(server.get_host_and_port()[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda *_: loader)
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/team", method="PUT")).close()
        yield port
    server.stop()


@pytest.fixture
def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder in a bucket, as a URL. All that product code is told is told by the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "member",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        ENDPOINT: f"http://127.0.0.1:{s3_port}",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://team/{uuid.uuid4().hex[:8]}"


@dataclass
class Rule:
    """What a proxy does to the bodies of the requests that start with `request`; for a GET, of their answers."""

    action: Literal["cut", "flip", "hold"]
    request: str
    after: int
    """Bytes of the body that pass untouched."""
    times: int = 1


class Proxy:
    """Passes connections on to a server; one rule at a time."""

    def __init__(self, upstream: int) -> None:
        self.rule: Rule | None = None
        self.done = 0
        """Times that the rule was applied."""
        self.held = threading.Event()
        """Set when something is held back; that connection stays silent until it is closed."""
        self._upstream = upstream
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def take(self, request: bytes) -> Rule | None:
        """The rule, if it is due on this request."""
        with self._lock:
            if self.rule and self.done < self.rule.times and request.startswith(self.rule.request.encode()):
                self.done += 1
                return self.rule
            return None

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                pair = _Pair(self, client, socket.create_connection(("127.0.0.1", self._upstream)))
                for pump in (pair.pass_requests, pair.pass_answers):
                    threading.Thread(target=pump, daemon=True).start()


class _Pair:
    """One connection of a client, and the one to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._due: Rule | None = None
        self._message = b""
        """What passed of the message that the rule is for."""

    def pass_requests(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(1 << 16):
                if rule := self._proxy.take(data):
                    self._due, self._message = rule, b""
                is_due = self._due and not self._due.request.startswith("GET")
                if not self._pass(data, self._server, is_due=bool(is_due)):
                    break
        self._close()

    def pass_answers(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(1 << 16):
                is_due = self._due and self._due.request.startswith("GET")
                if not self._pass(data, self._client, is_due=bool(is_due)):
                    break
        self._close()

    def _pass(self, data: bytes, sink: socket.socket, *, is_due: bool) -> bool:
        """Send some bytes on; False when the connection must end."""
        if is_due:
            assert self._due
            start = len(self._message)
            self._message += data
            header, end, body = self._message.partition(END_OF_HEADER)
            place = len(header) + len(end) + self._due.after - start
            if len(body) > self._due.after:
                if self._due.action != "flip":
                    sink.sendall(data[:place])
                    if self._due.action == "hold":
                        self._proxy.held.set()
                        self._client.recv(1)
                    return False
                data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
                self._due = None
        sink.sendall(data)
        return True

    def _close(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def proxy(s3: str, s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """All of S3 through a proxy. The driver itself never tries again, so that only the product does."""
    proxy = Proxy(s3_port)
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    yield proxy
    proxy.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts, hardly any waiting."""
    monkeypatch.setattr(place_module, "ATTEMPTS", 2)


@pytest.fixture(scope="session")
def rival(source: DetectionSource, helpers: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same regions and the same teacher, on hardware that rounds in another way; a complete cache."""

    def round_otherwise(embeddings: RegionEmbeddings, _: int) -> RegionEmbeddings:
        return RegionEmbeddings(hidden=embeddings.hidden * 1.002, visual=embeddings.visual * 1.002)

    folder = tmp_path_factory.mktemp("rival") / "cache"
    helpers.build(source, folder, helpers.Teacher(damage=round_otherwise))
    return folder


@dataclass(frozen=True)
class Tools:
    """What the tests of this folder share."""

    rule: type[Rule]
    s3: Any
    """The driver, without a proxy."""

    @staticmethod
    def content(folder: Path) -> dict[str, bytes]:
        """Every file that is not hidden or in a hidden folder, without locks."""
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and path.suffix != ".lock"
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        }

    def files(self, url: str) -> tuple[Any, str]:
        """A driver, and where it finds a URL."""
        driver = self.s3 if url.startswith("s3://") else fsspec.filesystem("memory")
        return driver, driver._strip_protocol(url)

    def remote(self, url: str) -> dict[str, bytes]:
        """Every object below a URL."""
        files, root = self.files(url)
        return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}

    def put(self, url: str, content: bytes) -> None:
        files, path = self.files(url)
        files.pipe_file(path, content)

    def remove(self, url: str) -> None:
        files, path = self.files(url)
        files.rm(path, recursive=True)

    @staticmethod
    def flip(path: Path, position: int = 40) -> None:
        """Change one bit of a file."""
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(bytes(content))


@pytest.fixture(scope="session")
def tools(s3_port: int) -> Tools:
    s3 = s3fs.S3FileSystem(
        key="member", secret="secret", endpoint_url=f"http://127.0.0.1:{s3_port}", use_listings_cache=False
    )
    return Tools(Rule, s3)


@pytest.fixture
def place() -> str:
    """An empty place that is no local folder, as a URL: quicker than S3, on the same paths of the product."""
    return f"memory://team/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def command(s3: str) -> Callable[..., "subprocess.Popen[str]"]:
    """Start `mocha-pipe` in a process of its own."""

    def start(*arguments: object) -> "subprocess.Popen[str]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        line = [sys.executable, "-c", "from mocha_pipe.pipeline.cli.main import main; main()", *map(str, arguments)]
        return subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    return start
