import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import zarr

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.checking.mending import remove_faults
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.sharing import pull, push
from mocha_pipe.teacher_cache.store.attributes import parse_attributes
from mocha_pipe.teacher_cache.store.cache import ARRAYS, RegionCache
from mocha_pipe.teacher_cache.store.consolidated import consolidate, is_consolidated
from mocha_pipe.teacher_cache.store.layout import ShardPlan, create_group, remove_array


@pytest.fixture
def cache(finished: Path, tmp_path: Path) -> Path:
    """A complete cache to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "cache"))


@pytest.fixture
def old(cache: Path) -> Path:
    """A complete cache of before: no list of arrays, and one name for the widths of all of them."""
    for name in ARRAYS:
        edit(cache / name, dimension_names=["row", "feature"])
    path = cache / "zarr.json"
    document = json.loads(path.read_text())
    del document["consolidated_metadata"]
    path.write_text(json.dumps(document, indent=2))
    return cache


def edit(folder: Path, **fields: object) -> None:
    path = folder / "zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}, indent=2))


def listed(folder: Path) -> dict[str, object]:
    """Arrays as the description has them, by name."""
    metadata: dict[str, object] = json.loads((folder / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    return metadata


def described(folder: Path) -> dict[str, object]:
    """The same, as they describe themselves."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/zarr.json")}


def identity(folder: Path) -> str:
    return str(parse_attributes((folder / "zarr.json").read_bytes(), "")["digest"])


def test_zarr_lists_the_arrays_and_warns_of_nothing(finished: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        members = dict(zarr.open_group(finished, mode="r").members(max_depth=None))
    assert sorted(members) == ["hidden", "targets", "visual"]
    assert {name: array.metadata.dimension_names for name, array in members.items()} == {
        name: ("row", f"{name}_feature") for name in ARRAYS
    }


def test_the_list_grows_with_the_cache(tmp_path: Path, table: RegionTable, helpers: SimpleNamespace) -> None:
    folder = tmp_path / "cache"
    create_group(folder, plan=ShardPlan(len(table), 32), spec=helpers.spec, table=table)
    assert listed(folder) == described(folder)
    assert sorted(listed(folder)) == ["hidden", "visual"]


def test_other_targets_are_listed_anew(cache: Path, source: DetectionSource, helpers: SimpleNamespace) -> None:
    before = identity(cache)
    helpers.build(source, cache, helpers.Teacher(), dim=3)
    assert described(cache)["targets"]["shape"] == [85, 3]  # type: ignore[index]
    assert listed(cache) == described(cache)
    assert identity(cache) == before


def test_equal_content_is_not_written_again(cache: Path) -> None:
    before = (cache / "zarr.json").stat().st_mtime_ns
    consolidate(cache)
    assert (cache / "zarr.json").stat().st_mtime_ns == before


def test_another_process_may_add_an_array_meanwhile(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found when the list was made is compared again after it was written."""
    (cache / "targets").rename(cache.parent / "aside")
    replace = Path.replace

    def slow_replace(path: Path, target: Path) -> Path:
        if (cache.parent / "aside").exists():
            (cache.parent / "aside").rename(cache / "targets")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", slow_replace)
    consolidate(cache)
    assert sorted(listed(cache)) == ["hidden", "targets", "visual"]


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"node_type": "array", "fill_value": NaN}'])
def test_a_damaged_description_is_not_listed(cache: Path, damage: bytes) -> None:
    (cache / "targets" / "zarr.json").write_bytes(damage)
    consolidate(cache)
    assert sorted(listed(cache)) == ["hidden", "visual"]


def test_a_cache_of_before_is_sound_and_a_build_leaves_its_arrays(
    old: Path, source: DetectionSource, helpers: SimpleNamespace
) -> None:
    before, attributes = described(old), identity(old)
    assert verify_cache(old).findings == ()
    (old / "hidden" / "c.1.0").unlink()
    helpers.build(source, old, helpers.Teacher())
    assert described(old) == before
    assert listed(old) == before
    assert identity(old) == attributes
    assert verify_cache(old).findings == ()


def test_old_and_new_go_on_from_each_other(old: Path, finished: Path, tmp_path: Path) -> None:
    """What is there stays as it is, in either direction; the list follows what is there."""
    for folder, other in ((tmp_path / "first", finished), (tmp_path / "second", old)):
        shutil.copytree(old if other == finished else finished, folder)
        before = described(folder)
        (folder / "visual" / "c.2.0").unlink()
        (folder / "hidden" / "c.2.0").unlink()
        pull(str(other), folder)
        assert described(folder) == before
        assert listed(folder) == before
        assert verify_cache(folder).findings == ()
        assert RegionCache.open(folder).is_complete


def test_a_place_behind_a_url_lists_what_arrived(
    old: Path, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    """First a part without targets, then the whole; between the two another member asks for it."""
    part, place = tmp_path / "part", f"memory://{tmp_path.name}/cache"
    shutil.copytree(old, part)
    remove_array(part, "targets")
    (part / "projection.safetensors").unlink()
    push(part, place)
    pull(place, tmp_path / "first")
    push(old, place)
    pull(place, tmp_path / "second")
    assert sorted(listed(tmp_path / "first")) == ["hidden", "visual"]
    assert listed(tmp_path / "second") == described(old)
    import fsspec

    there = json.loads(fsspec.filesystem("memory").cat_file(f"/{tmp_path.name}/cache/zarr.json"))
    assert there["consolidated_metadata"]["metadata"] == described(old)


def test_a_stale_list_is_found_and_mended(cache: Path) -> None:
    edit(cache / "targets", attributes={**described(cache)["targets"]["attributes"], "note": "ours"})  # type: ignore[index]
    report = verify_cache(cache)
    assert [(found.kind, found.file, found.message) for found in report.findings] == [
        ("stale", "zarr.json", "its list of arrays is not what they say of themselves")
    ]
    assert remove_faults(cache, report) == []
    assert verify_cache(cache).findings == ()


def test_every_array_that_is_there_must_be_listed(cache: Path) -> None:
    assert is_consolidated(cache, ARRAYS)
    (cache / "targets").rename(cache.parent / "aside")
    assert is_consolidated(cache, ("hidden", "visual"))  # a build makes the targets anew, and lists them
    consolidate(cache)
    assert is_consolidated(cache, ("hidden", "visual"))
    (cache.parent / "aside").rename(cache / "targets")
    assert not is_consolidated(cache, ARRAYS)


def test_a_list_that_zarr_wrote_may_have_more_fields(cache: Path) -> None:
    edit(cache / "targets", storage_transformers=[])
    document = json.loads((cache / "zarr.json").read_text())
    path = cache / "hidden" / "zarr.json"
    fields = json.loads(path.read_text())
    del fields["storage_transformers"]
    path.write_text(json.dumps(fields))
    assert document["consolidated_metadata"]["metadata"]["hidden"] == {**fields, "storage_transformers": []}
    assert is_consolidated(cache, ARRAYS)
