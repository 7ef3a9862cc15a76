"""judge_array: whether an array of a cache lies in its files as mocha-pipe writes it.

Other programs copy a cache and lay its arrays out anew: other chunks, compressed, in another byte order. Such a copy
can be read, but a shard of ours beside its files would make rows unreadable, or wrong. So whatever reads, checks, sends
or writes an array asks here first. Names of dimensions are for people and decide nothing.
Legend: D width, S rows per shard.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from mocha_pipe.data.errors import first_line
from mocha_pipe.data.parsing import parse_json, shown
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheFormatError,
    CacheIncompleteError,
    CacheUnreadableError,
    relayout_advice,
)
from mocha_pipe.teacher_cache.store.disk import reading
from mocha_pipe.teacher_cache.store.layout import CHUNK_ROWS, MOST, SHARD_NAME, ShardPlan, shard_size

Kind = Literal["ours", "foreign", "unreadable"]
DESCRIPTION = "zarr.json"
V2_DESCRIPTIONS = (".zarray", ".zgroup")
"""What describes an array, or a group, in Zarr v2. We read v3 alone, and write nothing beside them."""
LAID_OUT_ANEW = "laid out anew by another program"
_CHECKED = "bytes little, crc32c"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayLayout:
    """What is known of an array before any of its numbers is read."""

    kind: Kind
    """`ours`: mocha-pipe can write here. `foreign`: zarr can read it, nobody may write. `unreadable`: its description
    is damaged, or of something else."""
    finding: str = ""
    """What is other than in our layout, in words; empty for `ours`."""
    dim: int = 0
    """D; 0 for `unreadable`."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    description: bytes = b""
    plan: ShardPlan
    """Rows and shards of the cache; the array's own files may be cut in another way."""
    _file_shape: tuple[int, int] = (0, 0)
    _name: Callable[[tuple[int, int]], str] = str

    @property
    def is_ours(self) -> bool:
        """Whether shard files can be read without zarr, and written."""
        return self.kind == "ours"

    def files(self, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """Name, first row and row behind the last one of each file that holds some of these rows."""
        rows, columns = self._file_shape
        for i in range(start // rows, -(-stop // rows)):
            for j in range(-(-self.dim // columns)):
                yield self._name((i, j)), i * rows, min((i + 1) * rows, self.plan.rows)

    def missing(self, is_there: Callable[[str], bool], set_aside: Collection[int] = ()) -> tuple[int, ...]:
        """Shards of the cache that lack a file.

        Args:
            is_there: whether the array has a file of that name.
            set_aside: rows without numbers. Other programs write no file for such rows alone.
        """
        rows = frozenset(set_aside)
        lacking = {
            shard
            for shard in range(len(self.plan))
            for name, start, stop in self.files(*self.plan.span(shard))
            if not is_there(name) and (self.is_ours or not rows.issuperset(range(start, stop)))
        }
        return tuple(sorted(lacking))


def read_layout(folder: Path, plan: ShardPlan, dim: int | None = None) -> ArrayLayout:
    """`judge_array` of an array in a local folder.

    Raises:
        CacheUnreadableError: the system does not let us read its description.
        CacheIncompleteError: that is a link to what is not on this disk.
    """

    def beside() -> dict[str, int]:
        return {path.name: path.stat().st_size for path in folder.iterdir() if path.exists()}

    try:
        with reading(folder / DESCRIPTION, folder.parent):
            return judge_array((folder / DESCRIPTION).read_bytes(), beside, plan, dim)
    except (CacheUnreadableError, CacheIncompleteError):
        raise
    except CacheCorruptError as error:
        return ArrayLayout(kind="unreadable", finding=error.finding, plan=plan)
    except (FileNotFoundError, NotADirectoryError):
        return ArrayLayout(kind="unreadable", finding="it is missing", plan=plan)


def judge_array(
    description: bytes, beside: Callable[[], Mapping[str, int]], plan: ShardPlan, dim: int | None = None
) -> ArrayLayout:
    """Say what layout an array has.

    Args:
        description: content of its `zarr.json`.
        beside: sizes of the files in its folder, by name, its folders among them. Asked only where the description is
            not ours: files of ours show that it is damaged.
        plan: rows and shards of the cache that it should belong to.
        dim: the width that it should have; None takes any.
    """

    def unreadable(finding: str) -> ArrayLayout:
        return ArrayLayout(kind="unreadable", finding=finding, plan=plan, description=description)

    try:
        document = parse_json(description)
        if wrong := _wrong_array(document, plan, dim):
            return unreadable(wrong)
        # Refuses codecs and fields that it does not know.
        array = open_in_memory({DESCRIPTION: description})
        differences = _differences(document, plan)
        file_shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    except Exception as error:  # on a damaged description zarr lets through whatever its parsing meets
        why = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        return unreadable(f"it is not the description of an array ({why})")
    layout = ArrayLayout(
        kind="foreign" if differences else "ours",
        finding=f"{LAID_OUT_ANEW}: {'; '.join(differences.values())}" if differences else "",
        dim=document["shape"][1],
        attributes=document.get("attributes") or {},
        description=description,
        plan=plan,
        _file_shape=(file_shape[0], file_shape[1]),
        _name=array.metadata.encode_chunk_key,
    )
    if differences:
        sizes = beside()
        own = {name.partition("/")[0] for name, _, _ in layout.files(0, plan.rows)} & sizes.keys()
        if not own or (_may_be_damage(differences) and _has_shards(sizes, plan, layout.dim)):
            return unreadable(f"it does not describe the files beside it ({'; '.join(differences.values())})")
    return layout


def require_own_layout(place: str, array: str, layout: ArrayLayout) -> None:
    """Refuse to write beside files of a foreign layout.

    Args:
        place: folder or URL of the cache, for the message.
        array: its name.
        layout: what was found there.

    Raises:
        CacheFormatError: it is foreign.
    """
    if layout.kind == "foreign":
        raise foreign_array(f"{place}/{array}", layout.finding, f"{relayout_advice(place)}, then use that")


def foreign_array(array: str, finding: str, remedy: str) -> CacheFormatError:
    """The error that says why nothing is written to an array."""
    return CacheFormatError(
        f"nothing is written to an array in another layout than that of mocha-pipe, and {array} is {finding}; {remedy}"
    )


def rows_through_zarr(
    layout: ArrayLayout, read: Callable[[str], bytes | None], start: int, stop: int
) -> NDArray[np.float16]:  # (stop - start, D)
    """Rows as zarr reads them from the files of any layout; NaN, or what the description fills with, where none is.

    Args:
        layout: of the array.
        read: content of a file of the array, None where there is none.
        start: the first row.
        stop: the row behind the last one.

    Raises:
        ValueError, RuntimeError, ...: whatever zarr and its codecs raise on a damaged file.
    """
    files = {name: content for name, _, _ in layout.files(start, stop) if (content := read(name)) is not None}
    return np.asarray(open_in_memory({DESCRIPTION: layout.description, **files})[start:stop], np.float16)


def open_in_memory(files: Mapping[str, bytes]) -> zarr.Array[Any]:
    """An array that consists of these files, by name within its folder."""
    make = default_buffer_prototype().buffer.from_bytes
    store = MemoryStore({name: make(content) for name, content in files.items()}, read_only=True)
    return zarr.open_array(store, mode="r", zarr_format=3)


def _wrong_array(document: Any, plan: ShardPlan, dim: int | None) -> str:
    """Why an array cannot be one of this cache; empty where it can."""
    shape, kind = document["shape"], document["data_type"]
    if (document["zarr_format"], document["node_type"]) != (3, "array") or kind != "float16" or len(shape) != 2:
        found = f"{shown(kind)} in {len(shape)} dimensions"
        return f"it is not the description of a two-dimensional float16 Zarr v3 array (found {found})"
    sizes = (*shape, *document["chunk_grid"]["configuration"]["chunk_shape"])
    if len(sizes) != 4 or not all(type(size) is int and 0 < size <= MOST * MOST for size in sizes):
        return "it has an impossible shape"
    if shape[1] > MOST or shape[0] != plan.rows or dim not in (None, shape[1]):
        return f"it is of {shape[0]} x {shape[1]} numbers, expected {plan.rows}{f' x {dim}' if dim else ''}"
    return ""


def _differences(document: dict[str, Any], plan: ShardPlan) -> dict[str, str]:
    """How a description departs from the ones that layout.py writes, in words, by what it is about."""
    dim = document["shape"][1]
    shard, names = document["chunk_grid"]["configuration"]["chunk_shape"], _codec(document["chunk_key_encoding"])
    found = {
        "files": (_size(shard), _size([plan.rows_per_shard, dim])),
        "names": (_words(names), "default separator=."),
        "fill": (str(document.get("fill_value")), "NaN"),
    }
    [(name, sharding), *more] = [_codec(entry) for entry in document["codecs"]]
    if more or name != "sharding_indexed":
        found["codecs"] = (_words((name, sharding), *more), "sharding_indexed")
    else:
        index = f"{_words(*map(_codec, sharding['index_codecs']))} at the {sharding.get('index_location', 'end')}"
        found |= {
            "chunks": (_size(sharding["chunk_shape"]), _size([CHUNK_ROWS, dim])),
            "codecs": (_words(*map(_codec, sharding["codecs"])), _CHECKED),
            "index": (index, f"{_CHECKED} at the end"),
        }
    return {
        about: f"{about} {is_so} (ours: {ours})".replace("\n", " ")
        for about, (is_so, ours) in found.items()
        if is_so != ours
    }


def _may_be_damage(differences: Mapping[str, str]) -> bool:
    """Whether the files could be ours all the same; those of another byte order have the sizes of ours."""
    return all(
        about in ("files", "chunks", "names", "fill")
        or text.startswith((f"{about} bytes, crc32c ", f"{about} {_CHECKED} (", f"{about} {_CHECKED} at the end"))
        for about, text in differences.items()
    )


def _has_shards(sizes: Mapping[str, int], plan: ShardPlan, dim: int) -> bool:
    """Whether there are files with the names of our shards, and all have the sizes of these."""
    found = {int(match[1]): size for name, size in sizes.items() if (match := SHARD_NAME.fullmatch(name))}
    return bool(found) and all(
        shard < len(plan) and size == shard_size(plan, shard, dim) for shard, size in found.items()
    )


def _size(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _words(*codecs: tuple[str, dict[str, Any]]) -> str:
    """Codecs with the settings that matter for a reader, such as `bytes little, zstd level=3`."""
    return ", ".join(
        " ".join([name, *(str(value) if key == "endian" else f"{key}={shown(value)}".replace("'", "")
                          for key, value in sorted(settings.items()))])
        for name, settings in codecs
    )  # fmt: skip


def _codec(entry: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and configuration of a Zarr extension, which may be written as its name alone."""
    return (entry, {}) if isinstance(entry, str) else (entry["name"], entry.get("configuration") or {})
