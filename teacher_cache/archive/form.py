"""What lies in a compact archive: a Zarr group with the cache's arrays, compressed, and the cache's other files.

    zarr.json            the group; its attributes hold every description of the cache, word for word
    hidden/zarr.json     an array like the cache's, one chunk per shard: bytes, blosc, crc32c, all in the Zarr v3 spec
    hidden/c.3.0         shard 3
    hidden_step/c.3      where values were rounded (rounding.py): the steps of its rows
    regions.parquet, projection.safetensors, quarantine/shard-3.json, ...   as in the cache

Shuffled by bytes, the halves of the numbers lie apart: the noise in their lower halves is left as it is, the rest
shrinks to its entropy. That takes blocks in which each half fills zstd's own blocks, so a smaller chunk has zlib, which
is slow and needs none. Legend: N rows, D width, S rows per shard, n rows of the shard.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.teacher_cache.archive.rounding import OFFSET, RULE, restore_rows, round_rows
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.attributes import parse_attributes
from mocha_pipe.teacher_cache.store.cache import ARRAYS
from mocha_pipe.teacher_cache.store.layout import ARCHIVE_FORMAT_NAME, ShardPlan, attributes_digest, shard_name

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer

_VERSION = 1
_BLOCK = 2**18  # bytes: each half of it is one block of zstd
_MOST = 2**30 - 16  # numbers that one call of blosc takes
_DESCRIPTION = "zarr.json"


@dataclass(frozen=True)
class ArchiveForm:
    """How a cache lies in its archive, as the archive's own description says."""

    descriptions: dict[str, str]
    """Content of each `zarr.json` of the cache, by name."""
    is_lossy: bool
    """Whether values are rounded on their way into the archive."""

    @classmethod
    def of(cls, descriptions: dict[str, str], *, lossy: bool) -> "ArchiveForm":
        """For a cache with these descriptions; a rounded one is another cache, and its description says so."""
        if not lossy:
            return cls(descriptions, False)
        document = json.loads(descriptions[_DESCRIPTION])
        attributes = document["attributes"]
        spec = replace(TeacherSpec.from_json(attributes["teacher"]), rounding=RULE)
        attributes |= {"teacher": spec.to_json(), "teacher_digest": spec.digest()}
        attributes["digest"] = attributes_digest(attributes)
        return cls({**descriptions, _DESCRIPTION: json.dumps(document, indent=2)}, True)

    @classmethod
    def parse(cls, content: bytes, place: str) -> "ArchiveForm | None":
        """What an archive's `zarr.json` says; None where it describes something else.

        Raises:
            CacheFormatError: it is an archive of another version; `place` names it.
            CacheCorruptError: it is not what was written.
        """
        try:
            attributes: dict[str, Any] = parse_json(content)["attributes"]
            if attributes["format"] != ARCHIVE_FORMAT_NAME:
                return None
            version = attributes["format_version"]
        except (ValueError, LookupError, TypeError):
            return None
        if version != _VERSION:
            raise CacheFormatError(
                f"this mocha-pipe reads archives of version {_VERSION}; {place} has version {version!r}; use the "
                "mocha-pipe that wrote it"
            )
        try:
            form = cls(attributes["descriptions"], attributes["lossy"])
            chunks = [form.plan.rows_per_shard * width for width in form.widths.values()]
            is_sound = attributes["digest"] == attributes_digest(attributes) and max(chunks) <= _MOST
        except (MochaError, ValueError, LookupError, TypeError, AttributeError):
            is_sound = False
        if not is_sound:
            raise CacheCorruptError(
                f"{place}/{_DESCRIPTION} is damaged: it is not the description that was written; copy it there from a "
                "sound copy"
            )
        return form

    def is_as(self, other: "ArchiveForm") -> bool:
        """Whether another form is that of the same cache, rounded or not as this one.

        The list of arrays for other readers does not count: a cache of before gets one when files travel.
        """
        return self.is_lossy == other.is_lossy and self._documents == other._documents

    @cached_property
    def _documents(self) -> dict[str, Any]:
        documents = {name: parse_json(text.encode()) for name, text in self.descriptions.items()}
        documents[_DESCRIPTION].pop("consolidated_metadata", None)
        return documents

    @cached_property
    def plan(self) -> ShardPlan:
        """Rows and shards of the cache."""
        return ShardPlan(self._attributes["rows"], self._attributes["rows_per_shard"])

    @cached_property
    def spec(self) -> TeacherSpec:
        """The teacher of the cache, with the rounding."""
        return TeacherSpec.from_json(self._attributes["teacher"])

    @cached_property
    def widths(self) -> dict[str, int]:
        """D of each array that the cache has."""
        return {
            name: int(parse_json(self.descriptions[f"{name}/{_DESCRIPTION}"].encode())["shape"][1])
            for name in ARRAYS
            if f"{name}/{_DESCRIPTION}" in self.descriptions
        }

    def names(self, array: str, shard: int) -> tuple[str, ...]:
        """Files of one shard of an array, as they are written; the last has its name in the cache."""
        steps = (f"{_steps(array)}/c.{shard}",) if self.is_lossy else ()
        return (*steps, shard_name(array, shard))

    def metadata(self) -> dict[str, bytes]:
        """The archive's own `zarr.json` files, by name; the group's comes first."""
        files: dict[str, Buffer] = {}
        store = MemoryStore(store_dict=files)
        attributes = {
            "format": ARCHIVE_FORMAT_NAME,
            "format_version": _VERSION,
            "lossy": self.is_lossy,
            "descriptions": self.descriptions,
        }
        zarr.create_group(store, attributes={**attributes, "digest": attributes_digest(attributes)})
        for array, width in self.widths.items():
            document = parse_json(self.descriptions[f"{array}/{_DESCRIPTION}"].encode())
            self._create(store, array, self.plan.rows, width, document.get("dimension_names"))
            if self.is_lossy:
                self._create_steps(store, _steps(array), self.plan.rows)
        return {name: content.to_bytes() for name, content in files.items()}

    def encode(self, array: str, shard: int, values_nD: NDArray[np.float16]) -> dict[str, bytes]:
        """Content of the files of one shard, by name."""
        contents: list[bytes] = []
        stored: NDArray[Any] = values_nD
        if self.is_lossy:
            stored, steps_n = round_rows(values_nD)
            contents.append(self._write(_steps(array), steps_n))
        contents.append(self._write(array, stored))
        return dict(zip(self.names(array, shard), contents, strict=True))

    def decode(self, array: str, shard: int, contents: dict[str, bytes]) -> NDArray[np.float16]:  # (n, D)
        """The rows of one shard from the content of its files.

        Raises:
            ValueError: a file is not what was written.
        """
        start, stop = self.plan.span(shard)
        *steps, values = (contents[name] for name in self.names(array, shard))
        stored = self._read(array, values, stop - start)
        return restore_rows(stored, self._read(_steps(array), steps[0], stop - start)) if steps else stored

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        return parse_attributes(self.descriptions[_DESCRIPTION].encode(), "the archive")

    def _write(self, name: str, values: NDArray[Any]) -> bytes:
        """One chunk, made by zarr itself from a twin array in memory."""
        files: dict[str, Buffer] = {}
        twin = self._twin(files, name)
        # Not stored in the metadata, so it is set on the handle that writes: else a chunk of fill values is left out.
        twin.with_config({"write_empty_chunks": True})[: len(values)] = values
        return files[_chunk(twin)].to_bytes()

    def _read(self, name: str, content: bytes, rows: int) -> NDArray[Any]:
        files: dict[str, Buffer] = {}
        twin = self._twin(files, name)
        files[_chunk(twin)] = default_buffer_prototype().buffer.from_bytes(content)
        try:
            return np.asarray(twin[:rows])
        except Exception as error:  # codecs have errors of all kinds
            raise ValueError(str(error)) from error

    def _twin(self, files: "dict[str, Buffer]", name: str) -> zarr.Array[Any]:
        store, size = MemoryStore(store_dict=files), self.plan.rows_per_shard
        if name in self.widths:
            return self._create(store, "twin", size, self.widths[name])
        return self._create_steps(store, "twin", size)

    def _create(
        self, store: MemoryStore, name: str, rows: int, width: int, dimensions: list[str] | None = None
    ) -> zarr.Array[Any]:
        chunk_bytes = self.plan.rows_per_shard * width * 2
        library, level, block = ("zstd", 3, _BLOCK) if chunk_bytes >= _BLOCK else ("zlib", 5, 0)
        described: dict[str, Any] = {"offset": OFFSET, "step": _steps(name), "value": "(stored - offset) * step"}
        return zarr.create_array(
            store,
            name=name,
            shape=(rows, width),
            dtype="int16" if self.is_lossy else "float16",
            chunks=(self.plan.rows_per_shard, width),
            filters=None,
            compressors=[
                BloscCodec(typesize=2, cname=library, clevel=level, shuffle="shuffle", blocksize=block),  # type: ignore[arg-type]
                Crc32cCodec(),
            ],
            fill_value=OFFSET if self.is_lossy else float("nan"),
            attributes=described if self.is_lossy else {},
            dimension_names=dimensions,
            chunk_key_encoding={"name": "default", "separator": "."},
        )

    def _create_steps(self, store: MemoryStore, name: str, rows: int) -> zarr.Array[Any]:
        return zarr.create_array(
            store,
            name=name,
            shape=(rows,),
            dtype="float32",
            chunks=(self.plan.rows_per_shard,),
            filters=None,
            compressors=[Crc32cCodec()],
            fill_value=float("nan"),
            dimension_names=["row"],
            chunk_key_encoding={"name": "default", "separator": "."},
        )


def _steps(array: str) -> str:
    """Name of the array that holds the steps of another one's rows."""
    return f"{array}_step"


def _chunk(twin: zarr.Array[Any]) -> str:
    return "twin/c.0.0" if twin.ndim == 2 else "twin/c.0"
