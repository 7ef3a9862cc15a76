"""Place: a folder anywhere, local or behind a URL, with the few operations that sharing needs."""

import copy
import errno
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from operator import methodcaller
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from mocha_pipe.data.errors import MochaError, first_line, quoted, without_secrets
from mocha_pipe.teacher_cache.errors import TransferError
from mocha_pipe.teacher_cache.sharing.places.drivers import find_driver

ATTEMPTS = 4
_LOCAL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Failures of the disk of this machine; every other failure is taken for the connection's."""
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError, MochaError)
"""Errors that another attempt would meet again."""
_PUTS_WHOLE = ("s3", "s3a", "gs", "gcs", "memory")
"""Stores where a file appears when its put has ended; elsewhere it can be seen while it grows."""

Result = TypeVar("Result")


class Place:
    """A folder at a URL or a path. Every operation is tried again a few times when the connection fails.

    Names are relative to the folder, with `/`. Safe to use from threads; not to be taken over a fork.
    """

    batch = 1
    """Units that one call of `send` takes."""
    filled_by = "mocha-pipe cache push"
    """The command that puts files of a cache here."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet.

        Args:
            url: `protocol://...` or a local path.

        Raises:
            TransferError: the URL's protocol is unknown, or its package is not installed.
        """
        self.url = without_secrets(url.rstrip("/") or url)
        """As messages show it: without a password or a signature."""
        self.protocol = url.partition("://")[0] if "://" in url else "file"
        self._kind = find_driver(self.protocol)
        self.root: str = self._kind._strip_protocol(url).rstrip("/")
        self.path = Path(self.root or "/") if self.protocol in ("file", "local") else None
        """Where it is, for a folder on this machine's file systems."""
        self._options: dict[str, Any] = {} if self.path else self._kind._get_kwargs_from_urls(url)
        # Drivers with asyncio share one pool of connections between threads; others need a connection per thread.
        self._held: Any = SimpleNamespace() if getattr(self._kind, "async_impl", False) else threading.local()
        self._run = uuid.uuid4().hex[:8]

    @property
    def above(self) -> str:
        """The folder or URL that holds this one, as it can be typed."""
        if self.path is not None:
            return str(self.path.parent)
        return self.url.rpartition("/")[0] if "/" in self.root else self.url

    def below(self, folder: str) -> "Place":
        """A folder inside this one, over the same connections."""
        place = copy.copy(self)
        place.url, place.root = f"{self.url.rstrip('/')}/{folder}", f"{self.root}/{folder}"
        place.path = None if self.path is None else self.path / folder
        return place

    def entries(self, folder: str = "") -> tuple[dict[str, int], list[str]]:
        """Sizes of the files directly in a folder, by name, and the names of its folders; empty where there is none."""

        def list_folder(files: Any) -> list[dict[str, Any]]:
            files.invalidate_cache()
            found: list[dict[str, Any]] = files.ls(self._path(folder), detail=True)
            return found

        try:
            found = self._retrying(list_folder)
        except (FileNotFoundError, NotADirectoryError):
            return {}, []
        names = [(entry["name"].rstrip("/").rpartition("/")[2], entry) for entry in found]
        sizes = {name: int(entry["size"] or 0) for name, entry in names if entry["type"] != "directory"}
        folders = [name for name, entry in names if entry["type"] == "directory"]
        if self.path is None:
            return sizes, folders
        # A link is what it leads to, and nothing where that is not on this disk.
        here = self.path / folder
        links = [name for name in sizes if (here / name).is_symlink()]
        folders += [name for name in links if (here / name).is_dir()]
        gone = {name for name in links if not (here / name).is_file()}
        return {name: size for name, size in sizes.items() if name not in gone}, folders

    def stored(self, sizes: Mapping[str, int]) -> int:
        """Bytes that files of these sizes take here."""
        return sum(sizes.values())

    def find(self, folder: str) -> dict[str, int]:
        """Sizes of all files in a folder and the folders in it, by name within the folder."""

        def find_all(files: Any) -> dict[str, dict[str, Any]]:
            files.invalidate_cache()
            found: dict[str, dict[str, Any]] = files.find(self._path(folder), detail=True)
            return found

        found, above = self._retrying(find_all), self._path(folder).lstrip("/")
        return {name.lstrip("/").removeprefix(f"{above}/"): int(entry["size"] or 0) for name, entry in found.items()}

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Content of a file, or the bytes from `start` to before `stop` of it.

        Raises:
            FileNotFoundError: there is none.
            TransferError: the place cannot be reached.
        """
        content: bytes = self._retrying(lambda files: files.cat_file(self._path(name), start=start, end=stop))
        return content

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file to a local one, which may be left half written when this raises.

        Raises:
            TransferError: the place cannot be reached, or the file went away.
        """
        try:
            self._retrying(lambda files: files.get_file(self._path(name), str(to)))
        except FileNotFoundError as error:
            raise TransferError(
                f"{self.url}/{name} went away while it was copied; run the same command again"
            ) from error

    def send(self, files: Mapping[str, Path], stale: Sequence[str], there: Collection[str]) -> list[str]:
        """Copy files that belong together to here, in their order.

        Args:
            files: local files by their name here.
            stale: names to remove first.
            there: names that may be replaced; a file of any other name that appears meanwhile stays.

        Returns:
            The names that arrived; all of them, unless somebody else is sending the same right now.

        Raises:
            TransferError: the place cannot be reached, or what arrived has another size.
        """
        for name in stale:
            with suppress(FileNotFoundError):
                self._retrying(methodcaller("rm_file", self._path(name)))
        arrived: list[str] = []
        for name, content in files.items():
            if not self.store(name, content, only_new=name not in there):
                break  # somebody else sends this unit: all its files must be theirs
            arrived.append(name)
        return arrived

    def store(self, name: str, content: Path, *, only_new: bool) -> bool:
        """Copy a local file to here; it shows under its name only when it is whole.

        Args:
            name: its name here.
            content: the local file.
            only_new: leave a file alone that appeared under that name meanwhile, unless it holds the same bytes.

        Returns:
            False where there is such a file.

        Raises:
            TransferError: the place cannot be reached, or what arrived has another size.
        """
        try:
            self._writing(lambda files: self._store(files, name, content, only_new=only_new))
        except FileExistsError:
            return self.read(name) == content.read_bytes()  # ours, where an attempt arrived and its answer was lost
        return True

    def _store(self, files: Any, name: str, content: Path, *, only_new: bool) -> None:
        path = self._path(name)
        if self.protocol in _PUTS_WHOLE:
            try:
                files.put_file(str(content), path, mode="create" if only_new else "overwrite")
            except OSError as error:
                files.invalidate_cache()
                if only_new and files.exists(path):  # some stores refuse in words of their own
                    raise FileExistsError(path) from error
                if error.errno != errno.ENOSYS:  # the store knows puts without a condition only
                    raise
                files.put_file(str(content), path)
            self._check_size(files, path, content)
            return
        folder, _, last = path.rpartition("/")
        arriving = f"{folder}/.{last}.{self._run}.partial"
        files.makedirs(folder, exist_ok=True)
        try:
            files.put_file(str(content), arriving)
            self._check_size(files, arriving, content)
            if only_new and files.exists(path):
                raise FileExistsError(path)
            files.mv(arriving, path)
        except BaseException:
            with suppress(Exception):
                files.rm_file(arriving)
            raise

    def _check_size(self, files: Any, path: str, content: Path) -> None:
        files.invalidate_cache()
        arrived, size = int(files.info(path)["size"]), content.stat().st_size
        if arrived != size:
            raise TransferError(
                f"{self.url}: {path} has {arrived} bytes after a put of {size}; remove it and push again"
            )

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root or "/"

    def _writing(self, operation: Callable[[Any], Result]) -> Result:
        try:
            return self._retrying(operation)
        except FileNotFoundError as error:
            raise TransferError(
                f"{self.url} cannot be written to ({first_line(error)}); make the bucket, repository or share first, "
                "then run the same command again"
            ) from error

    def _retrying(self, operation: Callable[[Any], Result]) -> Result:
        """Do something with a connection, and again with a new one when it fails.

        Raises:
            FileNotFoundError, FileExistsError, ...: what `_is_final` names, for the caller to tell apart.
            TransferError: the place does not let us in, or every attempt failed.
        """

        def attempt() -> Result:
            if not hasattr(self._held, "files"):
                self._held.files = self._kind(**self._options, skip_instance_cache=True)
            return operation(self._held.files)

        def disconnect(_: RetryCallState) -> None:
            with suppress(AttributeError):
                del self._held.files

        try:
            return Retrying(
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.2, max=10),
                retry=retry_if_exception(lambda error: not _is_final(error)),
                before_sleep=disconnect,
                reraise=True,
            )(attempt)
        except PermissionError as error:
            if self.path is not None:
                raise TransferError(
                    f"{error.filename or self.url} cannot be reached ({error.strerror}); let its owner run "
                    f"`chmod -R a+rX {quoted(self.url)}`, or name another folder"
                ) from error
            raise TransferError(
                f"{self.url} does not let you in ({first_line(error)}); check the credentials of this machine, then "
                "run the same command again"
            ) from error
        except Exception as error:  # every transport has its own: botocore, aiohttp, paramiko, ...
            if _is_final(error):
                raise
            raise TransferError(
                f"{self.url} failed {ATTEMPTS} times ({first_line(error)}); check connection and credentials, then "
                "run the same command again: it goes on with what is missing"
            ) from error


def _is_final(error: BaseException) -> bool:
    """Whether another attempt would end the same way."""
    return isinstance(error, _FINAL) or (isinstance(error, OSError) and error.errno in _LOCAL_DISK)
