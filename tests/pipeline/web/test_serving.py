"""The server of the page: what it gives, to whom, and with which headers."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mocha_pipe.pipeline.web.serving import HEADERS, PortError, open_server


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "page.html").write_text("hello")
    (tmp_path / "code.mjs").write_text("1")
    (tmp_path / "secret").write_text("no")
    site = {"index.html": tmp_path / "page.html", "ort/code.mjs": tmp_path / "code.mjs"}
    server, address = open_server(site, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(address.rstrip("/").rpartition(":")[2])
    server.shutdown()
    server.server_close()


def get(port: int, path: str, host: str = "127.0.0.1", method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"{host}:{port}")
    connection.endheaders()
    return connection.getresponse()


@pytest.mark.parametrize("path", ["/", "/index.html", "/?x=1"])
def test_the_page_comes_with_the_headers_that_threads_want(port: int, path: str) -> None:
    answer = get(port, path, "localhost")
    assert (answer.status, answer.read(), answer.headers["Content-Type"]) == (200, b"hello", "text/html")
    assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
    assert HEADERS["Cross-Origin-Opener-Policy"] == "same-origin"
    assert HEADERS["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_modules_have_the_type_of_scripts(port: int) -> None:
    assert get(port, "/ort/code.mjs").headers["Content-Type"] == "text/javascript"


@pytest.mark.parametrize(
    "path", ["/secret", "/../secret", "/ort/", "/ort", "/%2e%2e/secret", "//etc/passwd", "/ort/../../secret", "/%00"]
)
def test_nothing_else_is_there(port: int, path: str) -> None:
    assert get(port, path).status == 404


def test_who_comes_by_another_name_gets_nothing(port: int) -> None:
    assert get(port, "/", "attacker.example").status == 403
    assert get(port, "/", method="POST").status == 501


def test_a_port_that_is_taken_is_said(port: int) -> None:
    with pytest.raises(
        PortError, match=rf"port {port} of 127.0.0.1 cannot be served \(.*\); name another with --port, 0 for"
    ):
        open_server({}, port)
