import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from mocha_pipe import teacher_cache
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource, RegionTargets
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheFormatError,
    CacheIncompleteError,
    CacheMismatchError,
    CacheNotFoundError,
    CacheUnreadableError,
)
from mocha_pipe.teacher_cache.projecting.whitening import whiten
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import shard_path
from tests.shared import as_nobody


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A complete cache to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "cache"))


def subset(table: RegionTable, rows: list[int], class_names: tuple[str, ...] | None = None) -> RegionTable:
    """Some rows from the front, or two of one image in another order."""
    return replace(
        table, keys=table.keys[rows], class_ids=table.class_ids[rows], xyxy=table.xyxy[rows],
        first_row=np.minimum(table.first_row, len(rows)), class_names=class_names or table.class_names,
    )  # fmt: skip


def mismatch(path: Path, differences: str) -> str:
    return (
        f"cache {path} was made from something else: {differences}; name another folder with --cache, and copy what "
        f"is equal from this one with --reuse {path}"
    )


def test_opens_with_what_it_was_made_from(finished: Path, helpers: SimpleNamespace, table: RegionTable) -> None:
    cache = RegionCache.open(finished, expect_spec=helpers.spec, expect_table=table)
    assert cache.is_complete
    assert cache.spec == helpers.spec
    assert cache.table.digest == table.digest
    assert (cache.plan.rows, cache.plan.rows_per_shard, cache.missing_teacher_shards()) == (85, 32, ())


def test_targets_are_the_projected_embeddings(finished: Path) -> None:
    cache = RegionCache.open(finished)
    targets: RegionTargets = cache.targets()
    assert (len(targets), targets.dim) == (85, 8)
    rows = np.array([84, 3, 3, 40])
    found = targets.lookup(rows)
    assert found.dtype == np.float32
    hidden, visual = (cache.rows(name).lookup(rows) for name in ("hidden", "visual"))
    np.testing.assert_array_equal(
        found, whiten(cache.projection(), hidden, visual).astype(np.float16).astype(np.float32)
    )
    np.testing.assert_array_equal(targets.lookup(np.zeros(0, np.int64)), np.zeros((0, 8)))


@pytest.mark.parametrize("row", [-1, 85])
def test_target_outside(finished: Path, row: int) -> None:
    with pytest.raises(IndexError, match=f"^rows of 'targets' run from 0 to 84; asked for {row}$"):
        RegionCache.open(finished).targets().lookup(np.array([0, row]))


def test_plain_zarr_reads_every_array(finished: Path) -> None:
    cache, group = RegionCache.open(finished), zarr.open_group(finished, mode="r")
    for name in ("hidden", "visual", "targets"):
        array = group[name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(np.asarray(array[:]), cache.rows(name).lookup(np.arange(85)))
        assert np.isfinite(np.asarray(array[:])).all()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CacheNotFoundError) as caught:
        RegionCache.open(tmp_path / "cache")
    folder = tmp_path / "cache"
    assert str(caught.value) == (
        f"there is no teacher cache at {folder}; make it with `mocha-pipe cache build --cache {folder}`"
    )


@pytest.mark.parametrize("content", [None, "{", "[]", '{"attributes": {}}', '{"attributes": {"format": "other"}}'])
def test_something_else_there(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(CacheFormatError) as caught:
        RegionCache.open(tmp_path)
    assert (
        str(caught.value) == f"{tmp_path} holds something else than a teacher cache; name another folder with --cache"
    )


def test_newer_format(copied: Path) -> None:
    metadata = json.loads((copied / "zarr.json").read_text())
    metadata["attributes"]["format_version"] = 3
    (copied / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(CacheFormatError) as caught:
        RegionCache.open(copied)
    assert str(caught.value) == (
        f"this mocha-pipe reads caches of format version 2; {copied} has version 3; "
        "use the mocha-pipe that wrote it, or name another folder with --cache"
    )


def test_array_without_description(copied: Path) -> None:
    (copied / "visual" / "zarr.json").unlink()
    with pytest.raises(CacheCorruptError) as caught:
        RegionCache.open(copied).missing_teacher_shards()
    assert str(caught.value) == (
        f"{copied}/visual/zarr.json is damaged: it is missing; "
        f"run `mocha-pipe cache verify {copied} --repair --data DATA`"
    )


def test_another_teacher(finished: Path, helpers: SimpleNamespace) -> None:
    other = replace(helpers.spec, prompt="What is it?", layer=-2)
    with pytest.raises(CacheMismatchError) as caught:
        RegionCache.open(finished, expect_spec=other)
    found = (
        "prompt differs: cache has 'Describe the {label}.', expected 'What is it?'; "
        "layer differs: cache has -1, expected -2"
    )
    assert str(caught.value) == mismatch(finished, found)


def test_other_regions(finished: Path, table: RegionTable) -> None:
    cases = {
        "5 boxes removed (cache has 85 regions, expected 80)": subset(table, list(range(80))),
        "the same regions in another order": subset(table, [0, 2, 1, *range(3, 85)]),
        "class 1 differs: cache has 'key ring', expected 'key'": replace(
            table, class_names=("mug", "key", "plush toy")
        ),
        "class 3 differs: cache has none, expected 'cap'": replace(table, class_names=(*table.class_names, "cap")),
    }
    for expected, other in cases.items():
        with pytest.raises(CacheMismatchError) as caught:
            RegionCache.open(finished, expect_table=other)
        assert str(caught.value) == mismatch(finished, expected)


def test_teacher_and_regions_are_listed_together(finished: Path, helpers: SimpleNamespace, table: RegionTable) -> None:
    with pytest.raises(CacheMismatchError) as caught:
        RegionCache.open(
            finished, expect_spec=replace(helpers.spec, dtype="bfloat16"), expect_table=subset(table, list(range(84)))
        )
    assert str(caught.value) == mismatch(
        finished,
        "dtype differs: cache has 'float32', expected 'bfloat16'; 1 box removed (cache has 85 regions, expected 84)",
    )


@pytest.mark.parametrize("file", ["images.parquet", "regions.parquet"])
def test_a_table_that_is_elsewhere_or_of_others_is_not_called_damaged(copied: Path, file: str) -> None:
    (copied / file).chmod(0)
    with as_nobody(copied), pytest.raises(CacheUnreadableError, match=f"{file} cannot be read .*`chmod -R a"):
        _ = RegionCache.open(copied).table
    (copied / file).unlink()
    (copied / file).symlink_to("../gone")
    with pytest.raises(CacheIncompleteError, match=f"{file} is a link to ../gone, which is not there; fetch"):
        _ = RegionCache.open(copied).table


def test_table_of_another_cache(copied: Path, helpers: SimpleNamespace, tmp_path: Path) -> None:
    other = RegionTable.build(helpers.make_source(tmp_path / "images", seed=1))
    other.write(copied)
    digest = RegionCache.open(copied).table_digest
    with pytest.raises(CacheCorruptError) as caught:
        _ = RegionCache.open(copied).table
    assert str(caught.value) == (
        f"the region table in {copied} is damaged: it is of other regions (digest {other.digest}, expected {digest}); "
        f"run `mocha-pipe cache verify {copied} --repair --data DATA`"
    )


def test_missing_targets(copied: Path) -> None:
    shutil.rmtree(copied / "targets")
    cache = RegionCache.open(copied)
    assert not cache.is_complete
    command = f"`mocha-pipe cache build --cache {copied}`"
    with pytest.raises(CacheIncompleteError) as caught:
        cache.targets()
    assert (
        str(caught.value) == f"cache {copied} has no targets of its present projection yet; complete it with {command}"
    )
    with pytest.raises(CacheIncompleteError) as caught:
        cache.rows("targets")
    assert str(caught.value) == f"cache {copied} has no array 'targets' yet; complete it with {command}"


def test_missing_projection(copied: Path) -> None:
    (copied / "projection.safetensors").unlink()
    cache = RegionCache.open(copied)
    assert not cache.is_complete
    with pytest.raises(CacheIncompleteError) as caught:
        cache.projection()
    assert str(caught.value) == (
        f"cache {copied} has no projection.safetensors yet; complete it with `mocha-pipe cache build --cache {copied}`"
    )


def test_targets_of_another_projection_are_not_given_out(copied: Path) -> None:
    cache = RegionCache.open(copied)
    projection = cache.projection()
    replace(projection, components=-projection.components).save(copied / "projection.safetensors")
    assert not cache.is_complete
    with pytest.raises(CacheIncompleteError, match="has no targets of its present projection yet"):
        cache.targets()


def test_missing_target_shard(copied: Path) -> None:
    shard_path(copied / "targets", 1).unlink()
    cache = RegionCache.open(copied)
    assert not cache.is_complete
    with pytest.raises(CacheIncompleteError, match=r"^shard 1 of 'targets' \(rows 32 to 63\) is not in the cache"):
        cache.targets()


def test_damaged_target_is_never_loaded(copied: Path) -> None:
    path = shard_path(copied / "targets", 2)
    content = bytearray(path.read_bytes())
    content[5] ^= 4
    path.write_bytes(content)
    with pytest.raises(CacheCorruptError, match=r"c\.2\.0 is damaged: chunk 0 fails its checksum; run `mocha-pipe"):
        RegionCache.open(copied).targets()


def test_a_shard_counts_only_when_both_arrays_have_it(copied: Path) -> None:
    shard_path(copied / "hidden", 0).unlink()
    shard_path(copied / "visual", 2).unlink()
    assert RegionCache.open(copied).missing_teacher_shards() == (0, 2)


def test_info(finished: Path, helpers: SimpleNamespace, table: RegionTable, source: DetectionSource) -> None:
    info = json.loads(json.dumps(RegionCache.open(finished).info()))
    versions, total, share = info.pop("versions"), info.pop("bytes"), info.pop("explained_variance")
    assert "zarr" in versions
    assert total == sum(len(content) for content in helpers.file_tree(finished).values())
    assert 0.3 < share < 1
    assert {name: array.pop("bytes") > 85 * 2 * array["dim"] for name, array in info["arrays"].items()} == {
        "hidden": True,
        "visual": True,
        "targets": True,
    }
    assert info == {
        "path": str(finished),
        "complete": True,
        "rows": 85,
        "rows_per_shard": 32,
        "arrays": {
            "hidden": {"dim": 24, "shards_done": 3, "shards_total": 3, "layout": "ours"},
            "visual": {"dim": 8, "shards_done": 3, "shards_total": 3, "layout": "ours"},
            "targets": {"dim": 8, "shards_done": 3, "shards_total": 3, "layout": "ours"},
        },
        "dim": 8,
        "teacher": helpers.spec.to_json(),
        "teacher_digest": helpers.spec.digest(),
        "table_digest": table.digest,
        "set_aside": 0,
        "format_version": 2,
    }


def test_info_of_a_cache_on_its_way(copied: Path) -> None:
    shutil.rmtree(copied / "targets")
    (copied / "projection.safetensors").unlink()
    shard_path(copied / "hidden", 1).unlink()
    info = RegionCache.open(copied).info()
    assert (info["complete"], info["dim"], info["explained_variance"]) == (False, None, None)
    assert {name: array["shards_done"] for name, array in info["arrays"].items()} == {"hidden": 2, "visual": 3}


def test_code_of_the_readme_runs(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, tmp_path / "work" / "cache")  # the working folder of a test is its tmp_path
    readme = Path(teacher_cache.__file__).with_name("README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "table_digest" in capsys.readouterr().out
