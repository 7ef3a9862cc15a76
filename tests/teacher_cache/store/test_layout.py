import hashlib
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.files import file_digest
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.teacher_cache.store import layout
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import (
    ShardPlan,
    attributes_digest,
    create_group,
    done_shards,
    encode_shard,
    shard_bytes,
    shard_path,
    sweep_stale,
    write_shard,
)

PLAN = ShardPlan(85, 32)


@pytest.fixture
def group(tmp_path: Path, helpers: SimpleNamespace, table: RegionTable) -> Path:
    folder = tmp_path / "cache"
    assert create_group(folder, plan=PLAN, spec=helpers.spec, table=table)
    return folder


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, 256), (99_999, 256), (100_000, 1024), (999_999, 1024), (1_000_000, 4096), (10**8, 4096)]
)
def test_shards_grow_with_the_cache(rows: int, expected: int) -> None:
    assert ShardPlan.for_rows(rows).rows_per_shard == expected


@settings(max_examples=25)
@given(st.integers(1, 5000), st.sampled_from([32, 64, 256]))
def test_spans_cover_every_row_once(rows: int, rows_per_shard: int) -> None:
    plan = ShardPlan(rows, rows_per_shard)
    covered = [row for shard in range(len(plan)) for row in range(*plan.span(shard))]
    assert covered == list(range(rows))


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.sampled_from([32, 64, 128]))
def test_shards_equal_what_zarr_writes(
    tmp_path_factory: pytest.TempPathFactory, rows: int, dim: int, rows_per_shard: int
) -> None:
    folder = tmp_path_factory.mktemp("zarr")
    values = np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float16)
    plan = ShardPlan(rows, rows_per_shard)
    layout.create_array_atomically(folder, "array", plan, dim, {})
    array = zarr.open_array(folder / "array", mode="r+").with_config({"write_empty_chunks": True})
    for shard in range(len(plan)):
        start, stop = plan.span(shard)
        array[start:stop] = values[start:stop]
        assert shard_path(folder / "array", shard).read_bytes() == encode_shard(values[start:stop], rows_per_shard)


def test_shard_bytes_are_pinned() -> None:
    """Caches are shared by copying files: whatever zarr is installed, equal rows give equal bytes."""
    values = (np.arange(40 * 3) / 8).astype(np.float16).reshape(40, 3)
    content = encode_shard(values, 128)
    assert len(content) == 2 * (32 * 3 * 2 + 4) + 4 * 16 + 4
    assert hashlib.blake2b(content, digest_size=16).hexdigest() == "f4ee56483d0ca906655cf6aa65879ab7"


def test_plain_zarr_reads_what_was_written(group: Path) -> None:
    values = np.random.default_rng(0).normal(size=(85, 24)).astype(np.float16)
    for shard in (2, 0, 1):
        write_shard(group / "hidden", PLAN, shard, values[slice(*PLAN.span(shard))])
    array = zarr.open_group(group, mode="r")["hidden"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(np.asarray(array[:]), values)
    assert array.dtype == np.float16


def test_layout_on_disk_is_pinned(group: Path) -> None:
    metadata = json.loads((group / "hidden" / "zarr.json").read_text())
    checked = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {"chunk_shape": [32, 24], "codecs": checked, "index_codecs": checked, "index_location": "end"}
    assert metadata["shape"] == [85, 24]
    assert metadata["data_type"] == "float16"
    assert metadata["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": [32, 24]}}
    assert metadata["codecs"] == [{"name": "sharding_indexed", "configuration": sharding}]
    assert metadata["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
    assert metadata["fill_value"] == "NaN"
    assert metadata["dimension_names"] == ["row", "hidden_feature"]


def test_attributes_say_what_the_cache_is(group: Path, helpers: SimpleNamespace, table: RegionTable) -> None:
    attributes = dict(zarr.open_group(group, mode="r").attrs)
    assert attributes.pop("digest") == attributes_digest(attributes)
    assert attributes.pop("versions").keys() >= {"numpy", "torch", "zarr"}  # type: ignore[union-attr]
    assert attributes == {
        "format": "mocha-pipe teacher cache",
        "format_version": 2,
        "teacher": helpers.spec.to_json(),
        "teacher_digest": helpers.spec.digest(),
        "table_digest": table.digest,
        "table_files": {name: file_digest(group / name) for name in ("images.parquet", "regions.parquet")},
        "rows": 85,
        "rows_per_shard": 32,
    }
    assert RegionTable.read(group).digest == table.digest


def test_digest_of_the_attributes_is_pinned() -> None:
    """Other versions must find the same one, in whatever order json gives the fields back."""
    attributes = {"rows": 85, "teacher": {"prompt": "Qué es?", "crop_margin": 0.1}, "versions": {}}
    assert attributes_digest(attributes) == "de854da2fd5760e52bb0c052d1d693bf"
    assert attributes_digest({**attributes, "digest": "anything"}) == attributes_digest(attributes)
    assert attributes_digest(dict(reversed(attributes.items()))) == attributes_digest(attributes)
    assert attributes_digest(json.loads(json.dumps(attributes))) == attributes_digest(attributes)


@settings(max_examples=25)
@given(st.sampled_from(["rows", "rows_per_shard", "format", "versions", "new"]), st.integers(-5, 5) | st.text())
def test_every_attribute_is_part_of_the_digest(name: str, value: object) -> None:
    attributes = {"rows": 85, "rows_per_shard": 32, "format": "x", "versions": {"zarr": "3"}}
    changed = {**attributes, name: value}
    assert (attributes_digest(changed) == attributes_digest(attributes)) == (changed == attributes)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 300), st.integers(1, 20), st.sampled_from([32, 64, 128]))
def test_bytes_are_known_beforehand(
    tmp_path_factory: pytest.TempPathFactory, rows: int, dim: int, rows_per_shard: int
) -> None:
    plan, folder = ShardPlan(rows, rows_per_shard), tmp_path_factory.mktemp("bytes")
    for shard in range(len(plan)):
        start, stop = plan.span(shard)
        write_shard(folder, plan, shard, np.zeros((stop - start, dim), np.float16))
    assert shard_bytes(plan, dim) == sum(path.stat().st_size for path in folder.iterdir())


def test_a_shard_is_done_when_every_array_of_the_teacher_has_it(group: Path) -> None:
    cache = RegionCache.open(group)
    assert not cache.has_teacher_shard(0)
    write_shard(group / "hidden", PLAN, 0, np.zeros((32, 24), np.float16))
    assert not cache.has_teacher_shard(0)
    write_shard(group / "visual", PLAN, 0, np.zeros((32, 8), np.float16))
    assert cache.has_teacher_shard(0)
    assert not cache.has_teacher_shard(1)


def test_a_shard_of_fill_values_gets_its_file(group: Path) -> None:
    write_shard(group / "visual", PLAN, 1, np.full((32, 8), np.nan, np.float16))
    assert done_shards(group / "visual") == {1}


def test_done_shards_ignores_everything_else(group: Path) -> None:
    write_shard(group / "hidden", PLAN, 2, np.zeros((21, 24), np.float16))
    for name in (".c.0.123-abcd.partial.0", "c.0.0.0123.partial", "c.x.0", "notes.txt"):
        (group / "hidden" / name).write_bytes(b"")
    assert done_shards(group / "hidden") == {2}
    assert done_shards(group / "targets") == set()


def test_interrupted_write_leaves_nothing(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    before = sorted(path.name for path in (group / "hidden").iterdir())
    with pytest.raises(KeyboardInterrupt):
        write_shard(group / "hidden", PLAN, 0, np.zeros((32, 24), np.float16))
    assert sorted(path.name for path in (group / "hidden").iterdir()) == before


def test_creation_fails_without_traces(
    tmp_path: Path, helpers: SimpleNamespace, table: RegionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RegionTable, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        create_group(tmp_path / "cache", plan=PLAN, spec=helpers.spec, table=table)
    assert list(tmp_path.iterdir()) == []


def test_one_of_many_creators_wins(tmp_path: Path, helpers: SimpleNamespace, table: RegionTable) -> None:
    barrier = threading.Barrier(4)
    won = []

    def create(rows_per_shard: int) -> None:
        barrier.wait()
        plan = ShardPlan(85, rows_per_shard)
        if create_group(tmp_path / "cache", plan=plan, spec=helpers.spec, table=table):
            won.append(rows_per_shard)

    threads = [threading.Thread(target=create, args=(32 * count,)) for count in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [zarr.open_group(tmp_path / "cache", mode="r").attrs["rows_per_shard"]] == won
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_creation_leaves_what_is_there(tmp_path: Path, helpers: SimpleNamespace, table: RegionTable) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("cache", "file"):
        assert not create_group(tmp_path / name, plan=PLAN, spec=helpers.spec, table=table)
    assert helpers.file_tree(tmp_path) == {"cache/thesis.tex": b"precious", "file": b"precious"}


def test_creation_follows_the_umask(group: Path) -> None:
    (group.parent / "reference").mkdir()
    assert group.stat().st_mode == (group.parent / "reference").stat().st_mode


def test_sweep_removes_only_old_temporaries_of_this_cache(group: Path) -> None:
    old = [
        group / ".projection.12-00ff00ff.partial.safetensors",
        group / "hidden" / ".c.0.12-00ff00ff.partial.0",
        group / f".targets.{'0f' * 16}.partial" / "zarr.json",
        group.parent / f".cache.{'0f' * 16}.partial" / "zarr.json",
    ]
    kept = [
        group / "hidden" / ".c.1.12-00ff00ff.partial.0",
        group.parent / f".other.{'0f' * 16}.partial" / "zarr.json",
        group / "hidden" / "notes.partial",
        group / "hidden" / ".film.partial.mp4",
        group.parent / ".cache.tar.partial",
    ]
    for path in [*old, *kept]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for path in [*old, *(path.parent for path in old if path.name == "zarr.json"), *kept[1:], kept[1].parent]:
        os.utime(path, (0, 0))
    sweep_stale(group)
    assert not [path for path in old if path.exists()]
    assert not [path.parent for path in old if path.name == "zarr.json" and path.parent.exists()]
    assert all(path.exists() for path in kept)


def test_sweep_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    sweep_stale(tmp_path / "nowhere" / "cache")
