"""Place: a folder anywhere, local or behind a URL, with the few operations that sharing needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import fsspec
from fsspec.core import url_to_fs
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from data.errors import MochaError
from teacher_cache.errors import TransferError

ATTEMPTS = 4
_EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "gcs": ("gcsfs", "gs"),
           "ssh": ("paramiko", "ssh"), "sftp": ("paramiko", "ssh")}  # fmt: skip
_NEVER_RETRIED = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    MochaError,
)
_PLAIN_PUT = ("file", "local", "ssh", "sftp", "ftp", "smb")  # a put there shows the file while it grows

Result = TypeVar("Result")


class Place:
    """A folder at a URL or a path. Every operation is tried again a few times when the connection fails."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet.

        Raises:
            TransferError: the URL's protocol is unknown, or its package is not installed.
        """
        self.url = url
        protocol = url.partition("://")[0] if "://" in url else "file"
        options = {} if protocol in ("file", "memory") else {"use_listings_cache": False, "skip_instance_cache": True}
        try:
            self.files, root = url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise TransferError(_unknown(url, protocol, error)) from error
        self.root = root.rstrip("/")
        self._puts_whole = protocol not in _PLAIN_PUT

    def sizes(self) -> dict[str, int]:
        """Size of every file below the folder, by its path relative to it; empty where there is no such folder."""

        def find() -> dict[str, int]:
            self.files.invalidate_cache()
            found = self.files.find(self.root, detail=True)
            return {name[len(self.root) + 1 :]: int(entry["size"] or 0) for name, entry in found.items()}

        try:
            return self._retrying(find)
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def read(self, name: str) -> bytes:
        """Content of a file; FileNotFoundError where there is none."""
        content: bytes = self._retrying(lambda: self.files.cat_file(self._path(name)))
        return content

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file to a local one, which may be left half written when this raises."""
        self._retrying(lambda: self.files.get_file(self._path(name), str(to)))

    def store(self, name: str, content: Path) -> None:
        """Copy a local file to here; it shows under its name only when it is whole.

        Raises:
            TransferError: what arrived has another size.
        """
        self._retrying(lambda: self._store(self._path(name), content))

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        try:
            self._retrying(lambda: self.files.rm_file(self._path(name)))
        except FileNotFoundError:
            return

    def _store(self, path: str, content: Path) -> None:
        size = content.stat().st_size
        folder, _, name = path.rpartition("/")
        self.files.makedirs(folder, exist_ok=True)
        arriving = path if self._puts_whole else f"{folder}/.{name}.{uuid4().hex[:8]}.partial"
        self.files.put_file(str(content), arriving)
        self.files.invalidate_cache(folder)
        arrived = int(self.files.info(arriving)["size"])
        if arrived != size:
            raise TransferError(
                f"{self.url}: {name} arrived with {arrived} of {size} bytes; run the same command again"
            )
        if arriving != path:
            self.files.mv(arriving, path)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _retrying(self, operation: Callable[[], Result]) -> Result:
        with self._in_words():
            return Retrying(
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_exponential_jitter(initial=0.2, max=10),
                retry=retry_if_exception(lambda error: not isinstance(error, _NEVER_RETRIED)),
                reraise=True,
            )(operation)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What a transport raises, in one line; a file that is not there stays what it is."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, MochaError):
            raise
        except PermissionError as error:
            raise TransferError(
                f"{self.url} does not let you in ({_first_line(error)}); check the credentials of this machine"
            ) from error
        except Exception as error:  # every transport has its own: botocore, aiohttp, paramiko, ...
            raise TransferError(
                f"{self.url} failed {ATTEMPTS} times ({_first_line(error)}); run the same command again: "
                "it goes on with what is missing"
            ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _unknown(url: str, protocol: str, error: Exception) -> str:
    if protocol in _EXTRAS:
        package, extra = _EXTRAS[protocol]
        return f"{protocol}:// needs the package {package}; install it with: pip install 'mocha-pipe[{extra}]'"
    known = ", ".join(("s3", "gs", "hf", "ssh", "file"))
    if protocol not in fsspec.available_protocols():
        return f"a place is a folder or a URL of a known kind ({known}, ...); found '{url}'; correct it"
    return f"{protocol}:// cannot be used here ({_first_line(error)}); install what it names"
