"""Shards behind a URL: what describes them is copied here, and the tars themselves are read as streams.

Copied are dataset.json, the indexes, and the tars of splits that are read in any order, such as validation's.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import fsspec
import numpy as np
from tqdm import tqdm

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError, MochaError, first_line
from mocha_pipe.data.files import atomic_path
from mocha_pipe.data.readers.packed import Place, named_files, reading_of
from mocha_pipe.data.regions import RegionTable, recompute_keys
from mocha_pipe.data.shards.layout import MANIFEST, ShardIndex, index_file, parse_manifest
from mocha_pipe.data.source import source_of
from mocha_pipe.data.types import DetectionSource

ATTEMPTS = 4
"""How often a transfer is tried before the run ends."""
_FIRST_WAIT = 0.5  # seconds; doubled for each further attempt

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class RemoteShards:
    """Shards of one split behind a URL."""

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
    """Number of its first image in the split, which its key tells."""
    digests: tuple[str, ...]
    """Of its images, in their order."""


def open_shards(data: str, copy: Path, split: str) -> RemoteShards:
    """Shards of a split behind a URL, to be streamed.

    Args:
        data: URL of a dataset.json, or of tars in brace notation.
        copy: Local folder for what is copied.
        split: Which split; where tars are named they must be of it.

    Raises:
        DatasetNotFoundError: The URL cannot be reached, or something is not there.
        DatasetError: As for local shards; or the URL's protocol needs what is not installed.
    """
    place = _copy_manifest(data, copy)
    place.check_split(split)
    index, numbers = _copy_index(place, split), place.shards(split)
    source = source_of(reading_of(place, split, index, numbers), data, keep_unreadable=True)
    entries = place.manifest.splits[split].shards
    first = np.searchsorted(index.shards, np.arange(len(entries) + 1)).tolist()
    shards = tuple(
        RemoteShard(
            url=f"{place.where}/{entries[number].file}",
            bytes=entries[number].bytes,
            first_image=first[number],
            digests=index.digests[first[number] : first[number + 1]],
        )
        for number in numbers
    )
    kept = np.flatnonzero(np.isin(index.shards, numbers)).tolist()
    return RemoteShards(source=source, table=_table(source, index, kept), shards=shards)


def copy_split(data: str, copy: Path, split: str, *, progress: bool = False) -> Path:
    """Copy a whole split from behind a URL, tars that are there already left alone; returns the local dataset.json.

    Raises:
        DatasetNotFoundError, DatasetError: As `open_shards`.
    """
    place = _copy_manifest(data, copy)
    entries = place.manifest.split(split, data).shards
    _copy_index(place, split)
    for entry in tqdm(entries, f"copy {split}", unit="shard", delay=2, disable=not progress):
        path = copy / entry.file
        if not (path.is_file() and path.stat().st_size == entry.bytes):
            _copy(f"{place.where}/{entry.file}", path, entry.bytes)
    return copy / MANIFEST


def _copy_manifest(data: str, copy: Path) -> Place:
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
    content = retrying(url, lambda: _read(url))
    manifest = parse_manifest(content.decode("utf-8", "replace"), url)
    with atomic_path(copy / MANIFEST) as temporary:
        temporary.write_bytes(content)
    place = Place(asked=data, where=where, folder=copy, names=tars, manifest=manifest)
    place.check(lambda _: False)
    return place


def _copy_index(place: Place, split: str) -> ShardIndex:
    path, entry = place.folder / index_file(split), place.manifest.split(split, f"{place.where}/{MANIFEST}")
    try:
        return ShardIndex.read(path, entry.index_digest)
    except (DatasetNotFoundError, DatasetError):  # not copied yet, or of an earlier packing
        _copy(f"{place.where}/{path.name}", path, None)
    return ShardIndex.read(path, entry.index_digest)


def _table(source: DetectionSource, index: ShardIndex, kept: list[int]) -> RegionTable:
    """The region table of the kept images, their digests taken from the index."""
    counts = [len(record.class_ids) for record in source.records]
    table = RegionTable(
        class_names=source.class_names,
        image_names=tuple(record.name for record in source.records),
        image_digests=tuple(index.digests[image] for image in kept),
        image_sizes=index.sizes[kept].reshape(-1, 2),
        first_row=np.cumsum([0, *counts], dtype=np.int64),
        xyxy=np.concatenate([np.zeros((0, 4)), *(record.xyxy for record in source.records)]).astype(np.float32),
        class_ids=np.concatenate([np.zeros(0, int), *(r.class_ids for r in source.records)]).astype(np.int32),
        keys=np.zeros(sum(counts), "S32"),
    )
    return replace(table, keys=recompute_keys(table))


def open_stream(url: str) -> AbstractContextManager[BinaryIO]:
    """A file behind a URL, read from its beginning."""
    stream: AbstractContextManager[BinaryIO] = fsspec.open(url, "rb")
    return stream


def retrying(url: str, transfer: Callable[[], Result]) -> Result:
    """Do a transfer, and again where it fails.

    Raises:
        DatasetNotFoundError: It failed every time, or there is no such file.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return transfer()
        except Exception as error:  # every transport has its own errors: botocore, aiohttp, paramiko, ...
            wait_or_raise(url, error, attempt)
    raise AssertionError("the last attempt returns or raises")


def wait_or_raise(url: str, error: Exception, attempt: int) -> None:
    """Wait before the next attempt, or raise in words where there should be none.

    Raises:
        DatasetNotFoundError: See `retrying`.
    """
    if isinstance(error, MochaError):
        raise error
    if isinstance(error, FileNotFoundError):
        raise DatasetNotFoundError(f"{url}: there is no such file; mend the URL, or copy the file there") from error
    if isinstance(error, PermissionError) or attempt == ATTEMPTS:
        times = "" if isinstance(error, PermissionError) else f", tried {attempt} times"
        raise DatasetNotFoundError(
            f"{url}: cannot be read ({first_line(error)}{times}); check connection and credentials, then run the same "
            "command again: it goes on"
        ) from error
    fsspec.get_filesystem_class(url.partition("://")[0]).clear_instance_cache()  # a new connection
    time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))


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
    with open_stream(url) as stream:
        return stream.read()


def _copy(url: str, path: Path, size: int | None) -> None:
    def transfer() -> None:
        with atomic_path(path) as temporary:
            with open_stream(url) as stream, temporary.open("wb") as target:
                shutil.copyfileobj(stream, target, 1 << 20)
            found = temporary.stat().st_size
            if size is not None and found != size:
                raise DatasetError(f"{url}: has {found} bytes where {MANIFEST} says {size}; upload it again")

    retrying(url, transfer)
