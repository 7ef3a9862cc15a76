"""Regions that have no embedding, and why: their images cannot be decoded, or what the teacher said is not finite.

One json file per shard that has any, written before the shard's arrays: a shard that is there always has its list. The
rows hold NaN in every array, and no other row does.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.files import json_digest, write_json
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheIncompleteError, away_advice, mend_advice
from mocha_pipe.teacher_cache.store.disk import reading

QUARANTINE_FOLDER = "quarantine"
_NAME = re.compile(r"shard-(\d+)\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """A region without an embedding."""

    row: int
    """Its row in the region table and in every array."""
    key: str
    """Its key in the region table, hex."""
    image: str
    """Name of its image in the data set."""
    class_name: str
    reason: str
    """What was found, in one line."""


def quarantine_path(folder: Path, shard: int) -> Path:
    """The file that lists what was set aside in one shard of the cache in `folder`."""
    return folder / QUARANTINE_FOLDER / f"shard-{shard}.json"


def write_set_aside(folder: Path, shard: int, regions: Sequence[SetAside]) -> None:
    """Replace the list of one shard, atomically; an empty list has no file."""
    path = quarantine_path(folder, shard)
    if not regions:
        path.unlink(missing_ok=True)
        return
    entries = [asdict(region) for region in regions]
    write_json(path, {"regions": entries, "digest": json_digest(entries)})


def read_set_aside(folder: Path) -> tuple[SetAside, ...]:
    """The regions of all shards that were set aside, by ascending row.

    Raises:
        CacheCorruptError: a file is damaged, or the system does not let us read it.
        CacheIncompleteError: the folder of the lists, or one of them, is a link to what is not on this disk.
    """
    lists = folder / QUARANTINE_FOLDER
    try:
        with reading(lists, folder):
            paths = [path for path in lists.iterdir() if _NAME.fullmatch(path.name)]
    except CacheIncompleteError:
        raise
    except FileNotFoundError:
        return ()
    except NotADirectoryError as error:
        raise CacheCorruptError.of(lists, "it is a file, and must be a folder", away_advice(lists)) from error
    regions = [region for path in paths for region in read_quarantine_file(path)]
    return tuple(sorted(regions, key=lambda region: region.row))


def require_listed(
    values_nD: NDArray[np.float16], first: int, rows: Collection[int], file: object, remedy: str
) -> None:
    """Refuse rows without numbers that no list names.

    Args:
        values_nD: of consecutive rows.
        first: the first of them.
        rows: all that were set aside.
        file: where the rows lie, for the message.
        remedy: for the message.

    Raises:
        CacheCorruptError: there is such a row.
    """
    is_empty_n = ~np.asarray(np.isfinite(values_nD).all(axis=1))
    unlisted = np.array(sorted({*(np.flatnonzero(is_empty_n) + first).tolist()} - {*rows}), np.int64)
    if unlisted.size:
        raise CacheCorruptError.of(file, f"{rows_in_words(unlisted)} not finite and not set aside", remedy)


def rows_in_words(rows: NDArray[np.int64]) -> str:
    """Which rows, and the verb that follows."""
    return f"row {rows[0]} is" if len(rows) == 1 else f"{len(rows)} rows (the first is {rows[0]}) are"


def read_quarantine_file(path: Path) -> tuple[SetAside, ...]:
    """The list of one shard.

    Raises:
        CacheCorruptError: the file is damaged.
    """
    try:
        with reading(path, path.parent.parent):
            content: dict[str, Any] = parse_json(path.read_bytes())
        entries = content["regions"]
        is_sound = content["digest"] == json_digest(entries) and all(map(_is_entry, entries))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CacheCorruptError):
            raise
        is_sound = False
    if not is_sound:
        raise CacheCorruptError.of(path, "it is not the list that was written", mend_advice(path.parent.parent))
    return tuple(SetAside(**entry) for entry in entries)


def _is_entry(entry: dict[str, Any]) -> bool:
    kinds = {field.name: int if field.name == "row" else str for field in fields(SetAside)}
    return entry.keys() == kinds.keys() and all(type(entry[name]) is kind for name, kind in kinds.items())
