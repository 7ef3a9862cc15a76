"""The attributes of a cache's `zarr.json`: read, and trusted only when they are those that were written."""

import os
from pathlib import Path
from typing import Any

from mocha_pipe.data.errors import quoted
from mocha_pipe.data.parsing import parse_json, shown
from mocha_pipe.data.regions import REGIONS_FILE
from mocha_pipe.teacher_cache.errors import (
    CacheFormatError,
    CacheNotFoundError,
    DescriptionCorruptError,
    build_command,
)
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION
from mocha_pipe.teacher_cache.store.disk import reading
from mocha_pipe.teacher_cache.store.layout import (
    ARCHIVE_FORMAT_NAME,
    FORMAT_NAME,
    FORMAT_VERSION,
    MOST,
    attributes_digest,
)


def read_attributes(path: Path) -> dict[str, Any]:
    """What the description in a cache's folder says about it.

    Raises:
        CacheNotFoundError: there is no such folder.
        CacheIncompleteError: the description is a link to what is not on this disk.
        CacheFormatError, CacheCorruptError: as `parse_attributes`.
    """
    if not path.exists():
        raise CacheNotFoundError(f"there is no teacher cache at {path}; make it with `{build_command(path)}`")
    content = b""
    if (path / DESCRIPTION).is_file() or ((path / DESCRIPTION).is_symlink() and not (path / DESCRIPTION).exists()):
        with reading(path / DESCRIPTION, path):
            content = (path / DESCRIPTION).read_bytes()
    return parse_attributes(content, str(path), has_table=os.path.lexists(path / REGIONS_FILE))


def parse_attributes(content: bytes, place: str, *, has_table: bool = False) -> dict[str, Any]:
    """What the description of a cache, its `zarr.json`, says about it.

    Args:
        content: of that file; empty where there is none.
        place: folder or URL of the cache, for messages.
        has_table: whether the region table of a cache lies beside it, so that it can only be a damaged description.

    Raises:
        CacheFormatError: it describes something else, or a cache of another version; `place` names it.
        CacheCorruptError: it is not what was written.
    """
    try:
        document = parse_json(content)
        attributes: dict[str, Any] = document["attributes"]
        is_ours = attributes["format"] == FORMAT_NAME and "format_version" in attributes
        is_ours = is_ours and (document["zarr_format"], document["node_type"]) == (3, "group")
        is_archive = attributes["format"] == ARCHIVE_FORMAT_NAME
    except (ValueError, KeyError, TypeError):
        is_ours = is_archive = False
    if is_archive:
        raise CacheFormatError(
            f"{place} is the compact archive of a teacher cache; bring the cache back in a folder of its own: "
            f"mocha-pipe cache pull {quoted(place)} FOLDER"
        )
    remedy = (
        f"send it again from a sound copy with `mocha-pipe cache push FOLDER {quoted(place)}`"
        if "://" in place
        else f"fetch it from a sound copy with `mocha-pipe cache pull SOURCE {quoted(place)}`"
    )
    if not is_ours and has_table:
        finding = "it is not the description that was written" if content else "it is missing or empty"
        raise DescriptionCorruptError.of(f"{place}/{DESCRIPTION}", finding, remedy)
    if not is_ours:
        raise CacheFormatError(f"{place} holds something else than a teacher cache; name another folder with --cache")
    if attributes["format_version"] != FORMAT_VERSION:
        raise CacheFormatError(
            f"this mocha-pipe reads caches of format version {FORMAT_VERSION}; {place} has version "
            f"{shown(attributes['format_version'])}; use the mocha-pipe that wrote it, or name another folder with "
            "--cache"
        )
    if attributes.get("digest") != attributes_digest(attributes) or not _can_be_opened(attributes):
        raise DescriptionCorruptError.of(f"{place}/{DESCRIPTION}", "it is not the description that was written", remedy)
    return attributes


def _can_be_opened(attributes: dict[str, Any]) -> bool:
    """Whether the fields that a cache is opened by have values that can be."""
    rows, size = attributes.get("rows"), attributes.get("rows_per_shard")
    return (
        type(rows) is int
        and type(size) is int
        and 0 < size <= MOST
        and 0 < rows <= MOST * size
        and isinstance(attributes.get("teacher"), dict)
        and isinstance(attributes.get("table_files"), dict)
        and all(isinstance(attributes.get(key), str) for key in ("teacher_digest", "table_digest"))
    )
