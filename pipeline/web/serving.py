"""A server for this machine alone: the files of one site, with the headers that threads in a browser need."""

from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mocha_pipe.data.errors import MochaError

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept by the browser, asked about each time
}
"""With the first two a browser lets WebAssembly use threads."""

_HOST = "127.0.0.1"
_OWN_NAMES = (_HOST, "localhost")
_TYPES = {
    ".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript",
    ".json": "application/json", ".png": "image/png", ".svg": "image/svg+xml", ".wasm": "application/wasm",
}  # fmt: skip


class PortError(MochaError, OSError):
    """Nothing can be served at a port."""


def open_server(site: Mapping[str, Path], port: int) -> tuple[ThreadingHTTPServer, str]:
    """A server that answers once `serve_forever` runs, and its address.

    Args:
        site: file of each path, such as `index.html`, which is also that of `/`.
        port: of 127.0.0.1; 0 takes a free one.

    Raises:
        PortError: somebody else has the port, or nobody may.
    """
    try:
        server = ThreadingHTTPServer((_HOST, port), partial(_Handler, site=site))
    except OSError as error:
        raise PortError(
            f"port {port} of {_HOST} cannot be served ({error.strerror}); name another with --port, 0 for a free one"
        ) from None
    server.daemon_threads = True
    return server, f"http://{_HOST}:{server.server_address[1]}/"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    extensions_map = {**_TYPES, "": "application/octet-stream"}  # noqa: RUF012  (as the base class has it)

    def __init__(self, *arguments: Any, site: Mapping[str, Path]) -> None:
        self._site = site
        super().__init__(*arguments)

    def parse_request(self) -> bool:
        """Also refuses who came by another name: a page elsewhere whose name leads here would read what is served."""
        if not super().parse_request():
            return False
        if (urlsplit(f"//{self.headers.get('Host', '')}").hostname or "") not in _OWN_NAMES:
            self.send_error(403, "This page is for this machine alone")
            return False
        return True

    def translate_path(self, path: str) -> str:
        """The file of a path; a name that no file has where the site has no such path."""
        name = unquote(urlsplit(path).path).removeprefix("/") or "index.html"
        return str(self._site[name]) if name in self._site else "\0"

    def send_head(self) -> Any:
        """As the base class, which cannot open a name with a zero byte."""
        if self.translate_path(self.path) == "\0":
            self.send_error(404, "There is no such file")
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """Adds `HEADERS`."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing of requests."""
