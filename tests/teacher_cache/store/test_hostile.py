"""Descriptions of a cache that somebody wrote who means no good: one error of ours each, never a traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError
from mocha_pipe.teacher_cache.sharing.holding import Holding
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.store.attributes import parse_attributes
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import ShardPlan, attributes_digest
from mocha_pipe.teacher_cache.store.quarantine import read_quarantine_file
from mocha_pipe.teacher_cache.store.reader import ShardRows
from tests.hostile import DIGITS, JSON

PLAN = ShardPlan(85, 32)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "cache"))


@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
class TestText:
    def test_description_of_the_cache(self, text: str) -> None:
        with pytest.raises(CacheFormatError, match=r"^x holds something else than a teacher cache; name another"):
            parse_attributes(text.encode(), "x")

    def test_description_of_an_array(self, copied: Path, text: str) -> None:
        (copied / "hidden" / "zarr.json").write_text(text)
        with pytest.raises(CacheCorruptError, match=r"hidden/zarr\.json is damaged: it is not the description of an"):
            ShardRows(copied / "hidden", PLAN)

    def test_description_of_the_targets(self, copied: Path, text: str) -> None:
        (copied / "targets" / "zarr.json").write_text(text)
        with pytest.raises(CacheCorruptError, match=r"targets/zarr\.json is damaged: it is not the description of an"):
            _ = RegionCache.open(copied).projection_digest
        with pytest.raises(CacheCorruptError, match=r"targets/zarr\.json is damaged: it is not the description of an"):
            Holding(Place(str(copied))).require_readable(["targets"])

    def test_list_of_what_was_set_aside(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "shard-0.json"
        path.write_text(text)
        with pytest.raises(CacheCorruptError, match=r"shard-0\.json is damaged: it is not the list that was written"):
            read_quarantine_file(path)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 10**40},
        {"rows": -1},
        {"rows": "85"},
        {"rows": True},
        {"rows_per_shard": 0},
        {"rows": 10**12},
        {"teacher": []},
        {"teacher_digest": 3},
        {"table_files": None},
    ],
    ids=str,
)
def test_a_description_whose_digest_is_right(copied: Path, change: dict[str, Any]) -> None:
    document = json.loads((copied / "zarr.json").read_text())
    attributes = {**document["attributes"], **change}
    document["attributes"] = {**attributes, "digest": attributes_digest(attributes)}
    (copied / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(CacheCorruptError, match=r"zarr\.json is damaged: it is not the description that was written"):
        RegionCache.open(copied)


@pytest.mark.parametrize("shape", [[10**30, 4], [-1, 4], ["85", 4], [85, 4.5], [85], 3])
def test_an_array_of_an_impossible_shape(copied: Path, shape: Any) -> None:
    path = copied / "hidden" / "zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shape": shape}))
    with pytest.raises(CacheCorruptError, match=r"hidden/zarr\.json is damaged: it "):
        ShardRows(copied / "hidden", PLAN)


@pytest.mark.parametrize("codecs", [3, [], [{}], [["bytes"]], [{"name": "sharding_indexed", "configuration": 3}]])
def test_an_array_with_codecs_that_are_none(copied: Path, codecs: Any) -> None:
    path = copied / "hidden" / "zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "codecs": codecs}))
    with pytest.raises(CacheCorruptError, match=r"hidden/zarr\.json is damaged: it is not the description of an array"):
        ShardRows(copied / "hidden", PLAN)


def test_a_version_of_many_digits(copied: Path) -> None:
    text = (copied / "zarr.json").read_text().replace('"format_version": 2', f'"format_version": {DIGITS[:90]}')
    (copied / "zarr.json").write_text(text)
    with pytest.raises(CacheFormatError, match=f"has version {DIGITS[:90]}; use the mocha-pipe that wrote it"):
        RegionCache.open(copied)
