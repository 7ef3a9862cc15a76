"""The list of arrays in a cache's description, in Zarr's terms its consolidated metadata.

With it a reader knows all arrays from one small file. Without it a reader looks for them, which a plain web server does
not allow, and zarr-python then warns of each file that is not Zarr's: the tables, the projection and the lists of what
was set aside. mocha-pipe reads the arrays' own descriptions and never this list.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mocha_pipe.data.files import atomic_path
from mocha_pipe.data.parsing import parse_json

_LIST = "consolidated_metadata"
_WITHOUT = {"attributes", "node_type", "zarr_format"}


def consolidate(folder: Path) -> None:
    """Let a cache's description list the arrays that are there as they describe themselves; its attributes stay.

    Nothing is written where it does so already. Two processes may do this at once: each looks again after it wrote.

    Raises:
        OSError: the description cannot be read or written.
    """
    path = folder / "zarr.json"
    while (document := parse_json(path.read_bytes())).get(_LIST) != (listed := _list_of(_described(folder))):
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({**document, _LIST: listed}, indent=2), encoding="utf-8")


def is_consolidated(folder: Path, names: Iterable[str]) -> bool:
    """Whether a cache's description lists these arrays as they describe themselves, or has no list at all.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    document = parse_json((folder / "zarr.json").read_bytes())
    if document.keys() == _WITHOUT:
        return True
    described = _described(folder)
    try:
        found = document[_LIST]["metadata"]
    except (LookupError, TypeError):
        return False
    is_list = isinstance(found, dict) and document[_LIST] == _list_of(found)
    return (
        is_list
        and document.keys() == {*_WITHOUT, _LIST}
        and all(
            # Zarr itself, where it wrote the list, adds the fields that have a default.
            name in described and isinstance(found.get(name), dict) and found[name].items() >= described[name].items()
            for name in names
        )
    )


def _list_of(arrays: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": arrays}


def _described(folder: Path) -> dict[str, Any]:
    """What the arrays of a cache say of themselves, by name; a damaged description is left out."""
    found = {}
    for path in sorted(folder.glob("[!.]*/zarr.json")):
        try:
            content = parse_json(path.read_bytes())
            json.dumps(content, allow_nan=False)
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("node_type") == "array":
            found[path.parent.name] = content
    return found
