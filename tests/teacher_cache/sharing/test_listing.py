import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.errors import CacheNotFoundError
from mocha_pipe.teacher_cache.sharing import list_caches, pull, push
from mocha_pipe.teacher_cache.store.layout import shard_path


def test_all_caches_below_a_place_are_found(
    finished: Path, source: DetectionSource, helpers: SimpleNamespace, place: str, tmp_path: Path, tools: Any
) -> None:
    helpers.build(source, tmp_path / "part", helpers.Teacher(), part=(0, 2))
    push(finished, f"{place}/caches/coco")
    push(tmp_path / "part", f"{place}/caches/old/part")
    tools.put(f"{place}/photographs/zarr.json", b"{}")
    tools.put(f"{place}/readme.txt", b"hello")
    whole, part = list_caches(place)
    assert (whole.place, part.place) == (f"{place}/caches/coco", f"{place}/caches/old/part")
    assert (whole.teacher, whole.mode, whole.regions, whole.shards, whole.dim) == ("fake/teacher", "prompt", 85, 3, 8)
    assert whole.done == {"hidden": 3, "visual": 3, "targets": 3}
    assert whole.bytes == sum(map(len, tools.remote(f"{place}/caches/coco").values()))
    assert (whole.usable, whole.complete) == (True, True)
    assert part.done == {"hidden": 2, "visual": 2, "targets": 0}
    assert (part.dim, part.usable, part.complete) == (None, False, False)


def test_the_place_itself_may_be_a_cache(finished: Path) -> None:
    [found] = list_caches(f"{finished}/")
    assert found.place == str(finished)


def test_a_copy_of_the_targets_is_usable_but_not_complete(finished: Path, tmp_path: Path) -> None:
    pull(str(finished), tmp_path / "copy", targets_only=True)
    [found] = list_caches(str(tmp_path))
    assert (found.usable, found.complete) == (True, False)


def test_a_file_of_another_size_does_not_count(finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    shard_path(copy / "hidden", 1).write_bytes(b"torn")
    [found] = list_caches(str(tmp_path))
    assert found.done == {"hidden": 2, "visual": 3, "targets": 3}


def test_hidden_folders_are_passed_over(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / ".cache.0123.partial")
    assert list_caches(str(tmp_path)) == []


def test_sound_caches_are_listed_beside_a_damaged_one(finished: Path, place: str, tmp_path: Path, tools: Any) -> None:
    push(finished, f"{place}/sound")
    push(finished, f"{place}/damaged")
    push(finished, f"{place}/lost")
    tools.put(f"{place}/damaged/zarr.json", b"{")
    tools.remove(f"{place}/lost/zarr.json")
    damaged, lost, sound = list_caches(place)
    assert (sound.place, sound.complete, sound.note) == (f"{place}/sound", True, "")
    for found, name, finding in (
        (damaged, "damaged", "it is not the description that was written"),
        (lost, "lost", "it is missing or empty"),
    ):
        assert (found.place, found.complete, found.usable, found.done) == (f"{place}/{name}", False, False, {})
        assert found.note == (
            f"{place}/{name}/zarr.json is damaged: {finding}; send it again from a sound copy with "
            f"`mocha-pipe cache push FOLDER {place}/{name}`"
        )


def test_a_cache_of_another_version_is_listed_with_a_note(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "later"))
    path = folder / "zarr.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 90'))
    [found] = list_caches(str(tmp_path))
    assert found.note.startswith("this mocha-pipe reads caches of format version ")


@pytest.mark.parametrize("form", ["{place}/nowhere", "{folder}/no where"])
def test_a_place_that_is_not_there(place: str, tmp_path: Path, form: str) -> None:
    url = form.format(place=place, folder=tmp_path)
    above = place if "memory" in url else str(tmp_path)
    with pytest.raises(CacheNotFoundError) as refused:
        list_caches(url)
    assert str(refused.value) == (
        f"there is nothing at {url}; name a folder or URL that holds caches, such as: mocha-pipe cache ls {above}"
    )
    (tmp_path / "empty").mkdir()
    assert list_caches(str(tmp_path / "empty")) == []


def test_a_file_is_no_cache(finished: Path) -> None:
    with pytest.raises(CacheNotFoundError) as refused:
        list_caches(str(finished / "zarr.json"))
    assert str(refused.value) == (
        f"a cache is a folder, and {finished}/zarr.json is a file; see what is in its folder with: mocha-pipe cache "
        f"ls {finished}"
    )


@pytest.mark.parametrize("name", ["regions.parquet", "hidden/zarr.json"])
def test_a_file_that_every_cache_has_is_missed(finished: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    (copy / name).unlink()
    [found] = list_caches(str(copy))
    assert (found.usable, found.complete) == (False, False)
    assert found.note == (
        f"{copy}/{name} is damaged: it is missing; run `mocha-pipe cache verify {copy} --repair --data DATA`"
    )


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.write_text("{"), "it is not the list that was written"),
    ],
)
def test_a_damaged_list_is_named(finished: Path, tmp_path: Path, spoil: Callable[[Path], Any], finding: str) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    (copy / "quarantine").mkdir(exist_ok=True)
    spoil(copy / "quarantine/shard-1.json")
    [found] = list_caches(str(copy))
    assert (found.usable, found.complete) == (False, False)
    assert found.note == (
        f"{copy}/quarantine/shard-1.json is damaged: {finding}; "
        f"run `mocha-pipe cache verify {copy} --repair --data DATA`"
    )
