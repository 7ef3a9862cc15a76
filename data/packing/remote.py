"""Tar shards behind a URL: what describes them is copied here, and the tars themselves are read as streams.

Copied are dataset.json, the indexes, and the tars of splits that are read in any order, such as validation's.
"""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec
import numpy as np
from tenacity import AttemptManager, Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from tqdm import tqdm

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError, MochaError, first_line
from mocha_pipe.data.files import atomic_path
from mocha_pipe.data.readers.packed import NamedShards, named_files, source_of_index
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards.index import ShardIndex
from mocha_pipe.data.shards.layout import MANIFEST, Manifest, index_file
from mocha_pipe.data.source import without_errors
from mocha_pipe.data.types import DetectionSource

ATTEMPTS = 4
"""How often a transfer is tried before the run ends."""
_FIRST_WAIT = 0.5  # seconds; doubled for each further attempt


@dataclass(frozen=True, kw_only=True, eq=False)
class RemoteShards:
    """Tar shards of one split behind a URL."""

    source: DetectionSource
    """Their images; the records name local tars, which are not there."""
    table: RegionTable
    """From the index alone; the bytes are checked against its digests as they arrive."""
    shards: tuple["RemoteShard", ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteShard:
    """One tar behind a URL."""

    url: str
    bytes: int
    first_image: int
    """Number of its first image in the split, which the image's key in the tar tells."""
    digests: tuple[str, ...]
    """Of its images, in their order."""


def open_shards(data: str, copy: Path, split: str) -> RemoteShards:
    """Tar shards of a split behind a URL, to be streamed.

    Args:
        data: URL of a dataset.json, or of tars in brace notation.
        copy: Local folder for what is copied.
        split: Which split; where tars are named they must be of it.

    Raises:
        DatasetNotFoundError: The URL cannot be reached, or something is not there.
        DatasetError: As for local shards; or the URL's protocol needs what is not installed.
    """
    named = _copy_manifest(data, copy)
    named.check_split(split)
    index, numbers = _copy_index(named, split), named.numbers(split)
    source = without_errors(source_of_index(named, split, index, numbers), data, keep_unreadable=True)
    entries = named.manifest.splits[split].shards
    first = np.searchsorted(index.shards, np.arange(len(entries) + 1)).tolist()
    shards = tuple(
        RemoteShard(
            url=f"{named.where}/{entries[number].file}",
            bytes=entries[number].bytes,
            first_image=first[number],
            digests=index.digests[first[number] : first[number + 1]],
        )
        for number in numbers
    )
    table = RegionTable.of(source, (digest for shard in shards for digest in shard.digests))
    return RemoteShards(source=source, table=table, shards=shards)


def copy_split(data: str, copy: Path, split: str, *, progress: bool = False) -> Path:
    """Copy a whole split from behind a URL, tars that are there already left alone; returns the local dataset.json.

    Raises:
        DatasetNotFoundError, DatasetError: As `open_shards`.
    """
    named = _copy_manifest(data, copy)
    entries = named.manifest.split(split, data).shards
    _copy_index(named, split)
    for entry in tqdm(entries, f"copy {split}", unit="shard", delay=2, disable=not progress):
        path = copy / entry.file
        if not (path.is_file() and path.stat().st_size == entry.bytes):
            _copy(f"{named.where}/{entry.file}", path, entry.bytes)
    return copy / MANIFEST


def _copy_manifest(data: str, copy: Path) -> NamedShards:
    """What a URL names, by a fresh local copy of its dataset.json."""
    _check_driver(data)
    where, names = named_files(data)
    tars = frozenset(names) - {MANIFEST}
    if not all(name.endswith(".tar") for name in tars):
        raise DatasetError(
            f"{data}: behind a URL training reads what `mocha-pipe data pack` wrote; name its {MANIFEST}, or its tars "
            "as train-{000000..000031}.tar"
        )
    url = f"{where}/{MANIFEST}"
    content = _read(url)
    manifest = Manifest.parse(content, url)
    with atomic_path(copy / MANIFEST) as temporary:
        temporary.write_bytes(content)
    return NamedShards(asked=data, where=where, folder=copy, tars=tars, manifest=manifest)


def _copy_index(named: NamedShards, split: str) -> ShardIndex:
    path, entry = named.folder / index_file(split), named.manifest.split(split, f"{named.where}/{MANIFEST}")
    try:
        return ShardIndex.read(path, entry.index_digest)
    except (DatasetNotFoundError, DatasetError):  # not copied yet, or of an earlier packing
        _copy(f"{named.where}/{path.name}", path, None)
    return ShardIndex.read(path, entry.index_digest)


def open_stream(url: str) -> AbstractContextManager[BinaryIO]:
    """A file behind a URL, read from its beginning."""
    stream: AbstractContextManager[BinaryIO] = fsspec.open(url, "rb")
    return stream


def attempts_at(url: str) -> Iterator[AttemptManager]:
    """Attempts at a transfer, each for a `with` block; the first block that ends well is the last attempt.

    After a failure the next attempt waits and takes a new connection, unless it would end the same way.

    Raises:
        DatasetNotFoundError: All attempts failed, there is no such file, or no access to it.
        MochaError: The transfer raised it.
    """
    final = (MochaError, FileNotFoundError, PermissionError)
    protocol = url.partition("://")[0]
    try:
        yield from Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=_FIRST_WAIT),
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and not isinstance(error, final)),
            before_sleep=lambda _: fsspec.get_filesystem_class(protocol).clear_instance_cache(),
            reraise=True,
        )
    except MochaError:
        raise
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{url}: there is no such file; mend the URL, or copy the file there") from error
    except Exception as error:  # every transport has its own errors: botocore, aiohttp, paramiko, ...
        times = "" if isinstance(error, PermissionError) else f", tried {ATTEMPTS} times"
        raise DatasetNotFoundError(
            f"{url}: cannot be read ({first_line(error)}{times}); check connection and credentials, then run the same "
            "command again: it goes on"
        ) from error


def _check_driver(url: str) -> None:
    protocol = url.partition("://")[0]
    if protocol in ("ssh", "sftp"):  # fsspec's driver would trust any host
        raise DatasetError(
            f"{url}: shards are not streamed over {protocol}://; copy them into a local folder, or put them in a bucket"
        )
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        extra = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}.get(protocol)
        remedy = f"install it with: pip install 'mocha-pipe[{extra}]'" if extra else "install what it names"
        raise DatasetError(f"{url}: {protocol}:// cannot be read here ({first_line(error)}); {remedy}") from None


def _read(url: str) -> bytes:
    content = b""
    for attempt in attempts_at(url):
        with attempt, open_stream(url) as stream:
            content = stream.read()
    return content


def _copy(url: str, path: Path, size: int | None) -> None:
    """Copy a file, which must be of this size where it is known."""
    for attempt in attempts_at(url):
        with attempt, atomic_path(path) as temporary:
            with open_stream(url) as stream, temporary.open("wb") as target:
                shutil.copyfileobj(stream, target, 1 << 20)
            found = temporary.stat().st_size
            if size is not None and found != size:
                raise DatasetError(f"{url}: has {found} bytes where {MANIFEST} says {size}; upload it again")
