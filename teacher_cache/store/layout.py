"""How a cache lies on disk: one Zarr v3 group, arrays cut into shards, and every shard one file that is written whole.

A shard file exists exactly when it is complete, so "which shards are done" is a listing and nothing keeps a ledger.
Legend: N regions (rows), D width of an array, S rows per shard.
"""

import contextlib
import glob
import re
import shutil
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from mocha_pipe.data.files import (
    atomic_path,
    file_digest,
    is_temporary,
    json_digest,
    publish,
    temporary_folder,
    write_json,
)
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.data.regions import IMAGES_FILE, REGIONS_FILE, RegionTable
from mocha_pipe.teacher_cache.errors import CacheFormatError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.consolidated import consolidate

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer

FORMAT_NAME = "mocha-pipe teacher cache"
FORMAT_VERSION = 2
ARCHIVE_FORMAT_NAME = "mocha-pipe compact archive"
"""What the description of a cache's archive says instead (archive/form.py)."""
FLOAT16_MAX = float(np.finfo(np.float16).max)
"""Largest number that an array can hold."""
CHUNK_ROWS = 32  # 8 to 32 rows a chunk read fastest through the zarr API; see README.md
TEACHER_ARRAYS = ("hidden", "visual")  # what a teacher can give, see `TeacherSpec.arrays`; `targets` follows
MOST = 10**7  # shards of an array, rows of a shard and width of a row; a description that says more is none of ours
STALE_SECONDS = 3600.0

SHARD_NAME = re.compile(r"c\.(\d+)\.0")


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Which rows lie in which shard; the same for every array of a cache."""

    rows: int
    """N, the number of regions."""
    rows_per_shard: int
    """S, a multiple of the chunk's rows."""

    @classmethod
    def for_rows(cls, rows: int, rows_per_shard: int | None = None) -> "ShardPlan":
        """Plan for N rows. Unless S is given, it is 4096, and less in a small cache, so that resuming loses little."""
        by_size = 256 if rows < 10**5 else 1024 if rows < 10**6 else 4096
        return cls(rows, rows_per_shard or by_size)

    def __post_init__(self) -> None:
        assert self.rows > 0, "a cache has at least one row"
        assert self.rows_per_shard > 0, "a shard has at least one row"

    def __len__(self) -> int:
        """Number of shards."""
        return (self.rows + self.rows_per_shard - 1) // self.rows_per_shard

    def span(self, shard: int) -> tuple[int, int]:
        """First row of a shard and the row after its last one."""
        assert 0 <= shard < len(self)
        return shard * self.rows_per_shard, min((shard + 1) * self.rows_per_shard, self.rows)

    def num_chunks(self, shard: int) -> int:
        """Chunks that hold the rows of a shard."""
        start, stop = self.span(shard)
        return -(-(stop - start) // CHUNK_ROWS)


def shard_path(array_folder: Path, shard: int) -> Path:
    """The file of one shard."""
    return array_folder / f"c.{shard}.0"


def shard_name(array: str, shard: int) -> str:
    """Name of a shard's file within a cache."""
    return shard_path(Path(array), shard).as_posix()


def shard_bytes(plan: ShardPlan, dim: int) -> int:
    """Size of all shard files of an array of width D: rows, a checksum per chunk, and an index per shard."""
    return sum(shard_size(plan, shard, dim) for shard in range(len(plan)))


def shard_size(plan: ShardPlan, shard: int, dim: int) -> int:
    """Size of one shard's file of an array of width D."""
    return plan.num_chunks(shard) * (CHUNK_ROWS * dim * 2 + 4) + 16 * (plan.rows_per_shard // CHUNK_ROWS) + 4


def done_shards(array_folder: Path) -> set[int]:
    """Shards present in an array, from one listing; temporary files do not count. Empty when there is no array."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return {int(match[1]) for path in array_folder.iterdir() if (match := SHARD_NAME.fullmatch(path.name))}
    return set()


def whole_shards(array_folder: Path, plan: ShardPlan, dim: int) -> set[int]:
    """Of the shards that are present, those whose files have their full size."""
    return {
        shard for shard in done_shards(array_folder) & {*range(len(plan))} if has_shard(array_folder, plan, shard, dim)
    }


def has_shard(array_folder: Path, plan: ShardPlan, shard: int, dim: int) -> bool:
    """Whether the file of one shard is there in its full size."""
    with contextlib.suppress(OSError):
        status = shard_path(array_folder, shard).stat()
        return stat.S_ISREG(status.st_mode) and status.st_size == shard_size(plan, shard, dim)
    return False


def write_shard(array_folder: Path, plan: ShardPlan, shard: int, values_SD: NDArray[np.float16]) -> None:
    """Write one whole shard: encoded in memory, then temporary file, fsync and rename."""
    start, stop = plan.span(shard)
    assert values_SD.dtype == np.float16
    assert len(values_SD) == stop - start
    content = encode_shard(values_SD, plan.rows_per_shard)
    with atomic_path(shard_path(array_folder, shard)) as temporary:
        temporary.write_bytes(content)


def encode_shard(values_SD: NDArray[np.float16], rows_per_shard: int) -> bytes:
    """Bytes of the shard file that holds these rows, made by zarr itself from a twin array in memory.

    zarr's own local store writes without fsync and reads the old shard before it replaces it; a twin does neither.
    """
    files: dict[str, Buffer] = {}
    plan = ShardPlan(len(values_SD), rows_per_shard)
    twin = _create_array(MemoryStore(store_dict=files), "twin", plan, values_SD.shape[1], {})
    # Not stored in the metadata, so it is set on the handle that writes: else a shard of fill values gets no file.
    twin.with_config({"write_empty_chunks": True})[:] = values_SD
    return files["twin/c.0.0"].to_bytes()


def create_group(folder: Path, *, plan: ShardPlan, spec: TeacherSpec, table: RegionTable) -> bool:
    """Create an empty cache in a folder that is empty or not there yet; others see all of it or nothing.

    Returns:
        False when somebody else created something in `folder` first; that is left as it is.
    """
    attributes: dict[str, Any] = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "teacher": spec.to_json(),
        "teacher_digest": spec.digest(),
        "table_digest": table.digest,
        "rows": plan.rows,
        "rows_per_shard": plan.rows_per_shard,
        "versions": _versions(),
    }
    with temporary_folder(folder) as temporary:
        table.write(temporary)
        attributes["table_files"] = {name: file_digest(temporary / name) for name in (IMAGES_FILE, REGIONS_FILE)}
        attributes["digest"] = attributes_digest(attributes)
        zarr.create_group(temporary, attributes=attributes)
        for name, dim in spec.arrays.items():
            _create_array(temporary, name, plan, dim, {})
        consolidate(temporary)
        return publish(temporary, folder, last="zarr.json")


def create_array_atomically(folder: Path, name: str, plan: ShardPlan, dim: int, attributes: dict[str, Any]) -> None:
    """Add an array without shards to a cache; the caller holds the cache's lock and knows that there is none yet.

    Raises:
        CacheFormatError: something else has its place.
    """
    with temporary_folder(folder / name) as temporary:
        _create_array(temporary.parent, temporary.name, plan, dim, attributes, dimension_names(name))
        published = publish(temporary, folder / name)
    if not published:
        raise CacheFormatError(
            f"{folder / name} holds something else than an array; move that away and run the same command again"
        )


def dimension_names(array: str) -> tuple[str, str]:
    """Of an array's rows, which all arrays share, and of its width, which is its own: so xarray takes them together."""
    return "row", f"{array}_feature"


def write_table_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Let a cache's description name these files of its region table; of equal regions, but perhaps other bytes."""
    path = folder / "zarr.json"
    document = parse_json(path.read_bytes())
    attributes = {**document["attributes"], "table_files": dict(digests)}
    if attributes != document["attributes"]:
        write_json(path, {**document, "attributes": {**attributes, "digest": attributes_digest(attributes)}})


def describe_array(name: str, plan: ShardPlan, dim: int, attributes: Mapping[str, Any]) -> bytes:
    """Content of the `zarr.json` of an array in our layout."""
    files: dict[str, Buffer] = {}
    _create_array(MemoryStore(store_dict=files), name, plan, dim, attributes)
    return files[f"{name}/zarr.json"].to_bytes()


def attributes_digest(attributes: Mapping[str, Any]) -> str:
    """Hex of blake2b-16 over a cache's attributes without their own `digest`, whatever the order of the fields."""
    return json_digest({name: value for name, value in attributes.items() if name != "digest"})


def remove_array(folder: Path, name: str) -> None:
    """Remove an array with its shards; its name is free at once."""
    with temporary_folder(folder / name) as temporary:
        (folder / name).rename(temporary / name)


def sweep_stale(folder: Path) -> None:
    """Remove temporary files that a killed build left in a cache, or beside it, more than an hour ago.

    They are known by names as only we give them; the folder must have been opened as a cache before.
    """
    left_over = [
        *folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"),
        *folder.glob(".*.partial*"),
        *folder.glob("*/.*.partial*"),
    ]
    for path in filter(lambda path: is_temporary(path.name), left_over):
        with contextlib.suppress(FileNotFoundError):  # another build sweeps too
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _create_array(
    store: Path | MemoryStore,
    name: str,
    plan: ShardPlan,
    dim: int,
    attributes: Mapping[str, Any],
    dimensions: tuple[str, str] | None = None,
) -> zarr.Array[Any]:
    return zarr.create_array(
        store,
        name=name,
        shape=(plan.rows, dim),
        dtype="float16",
        chunks=(CHUNK_ROWS, dim),
        shards=(plan.rows_per_shard, dim),
        filters=None,
        compressors=[Crc32cCodec()],  # float16 embeddings do not compress; without this only the index is checked
        fill_value=float("nan"),
        attributes=dict(attributes),
        dimension_names=dimensions or dimension_names(name),
        chunk_key_encoding={"name": "default", "separator": "."},
    )


def _versions() -> dict[str, str]:
    """Versions of what made the numbers, for people; never compared."""
    found = {}
    for package in ("mocha-pipe", "numpy", "timm", "torch", "transformers", "zarr"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
