import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mocha_pipe.data.files import file_digest, write_json
from mocha_pipe.data.regions import RegionTable, recompute_keys
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.errors import (
    CacheFormatError,
    CacheIncompleteError,
    CacheMismatchError,
    CacheNotFoundError,
    CacheWriteError,
)
from mocha_pipe.teacher_cache.projecting.derive import derive_targets
from mocha_pipe.teacher_cache.sharing import list_caches, merge, mirror, pull, push
from mocha_pipe.teacher_cache.sharing.holding import Holding
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.store.layout import (
    ShardPlan,
    create_array_atomically,
    create_group,
    shard_path,
    write_shard,
)
from mocha_pipe.teacher_cache.store.projection import Projection
from mocha_pipe.teacher_cache.store.quarantine import SetAside, read_set_aside, write_set_aside
from tests.shared import DEVICE


@pytest.fixture
def cache(finished: Path, tmp_path: Path) -> Path:
    """A complete cache to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "cache"))


@pytest.fixture
def pushed(finished: Path, place: str) -> str:
    """A complete cache behind a URL."""
    push(finished, f"{place}/coco")
    return f"{place}/coco"


def set_aside(folder: Path, row: int, shard: int) -> None:
    region = SetAside(row=row, key="0" * 32, image="image.png", class_name="mug", reason="it cannot be decoded")
    write_set_aside(folder, shard, [region])


def derive(folder: Path) -> None:
    with ShardClaims(folder) as claims:
        derive_targets(RegionCache.open(folder), claims, None, device=DEVICE, progress=False)


def test_a_cache_comes_back_as_it_was(finished: Path, s3: str, tmp_path: Path, tools: Any) -> None:
    sent = push(finished, f"{s3}/coco")
    fetched = pull(f"{s3}/coco", tmp_path / "copy")
    content = tools.content(finished)
    assert tools.content(tmp_path / "copy") == content
    assert tools.remote(f"{s3}/coco") == content
    size = sum(map(len, content.values()))
    for report in (sent, fetched):
        assert (report.files, report.bytes, report.present, report.shards_missing) == (16, size, 0, 0)
    assert RegionCache.open(tmp_path / "copy").is_complete
    assert not list(tmp_path.rglob("*.partial*"))
    assert [found.place for found in list_caches(s3)] == [f"{s3}/coco"]


def test_only_missing_files_travel(finished: Path, place: str, tmp_path: Path, tools: Any) -> None:
    push(finished, f"{place}/coco")
    pull(f"{place}/coco", tmp_path / "copy")
    for report in (push(finished, f"{place}/coco"), pull(f"{place}/coco", tmp_path / "copy")):
        assert (report.files, report.bytes, report.present) == (0, 0, 16)
    for name in ("hidden/c.1.0", "targets/c.2.0"):
        (tmp_path / "copy" / name).unlink()
        tools.remove(f"{place}/coco/{name}")
    assert push(finished, f"{place}/coco").files == 2
    assert pull(f"{place}/coco", tmp_path / "copy").files == 2
    assert tools.content(tmp_path / "copy") == tools.content(finished)


@pytest.mark.parametrize("form", ["{folder}/there", "file://{folder}/there", "memory:/{folder}/there"])
def test_any_place_holds_a_cache(finished: Path, tmp_path: Path, tools: Any, form: str) -> None:
    url = form.format(folder=tmp_path)
    assert push(finished, url).files == 16
    assert push(finished, url).files == 0
    assert pull(url, tmp_path / "copy").files == 16
    assert tools.content(tmp_path / "copy") == tools.content(finished)
    [found] = list_caches(url)
    assert found.complete


def test_a_part_of_a_cache_travels_without_a_claim_to_be_more(
    source: DetectionSource, helpers: SimpleNamespace, place: str, tmp_path: Path
) -> None:
    helpers.build(source, tmp_path / "part", helpers.Teacher(), part=(0, 2))
    write_json(tmp_path / "part" / "complete.json", {})
    report = push(tmp_path / "part", f"{place}/coco")
    assert (report.files, report.shards_missing) == (5 + 4, 3)
    pull(f"{place}/coco", tmp_path / "copy")
    assert RegionCache.open(tmp_path / "copy").missing_teacher_shards() == (1,)
    assert not (tmp_path / "copy" / "complete.json").exists()


def test_the_marker_of_a_complete_cache_comes_last(cache: Path, place: str, tmp_path: Path, tools: Any) -> None:
    write_json(cache / "complete.json", {"stage": "cache"})
    moved = cache / "hidden" / "c.1.0"
    moved.rename(tmp_path / "aside")
    push(cache, f"{place}/coco")
    assert "complete.json" not in tools.remote(f"{place}/coco")
    (tmp_path / "aside").rename(moved)
    assert push(cache, f"{place}/coco").files == 3
    pull(f"{place}/coco", tmp_path / "copy")
    assert tools.content(tmp_path / "copy") == tools.content(cache)


def test_members_who_computed_parts_join_them(
    finished: Path, source: DetectionSource, helpers: SimpleNamespace, place: str, tmp_path: Path, tools: Any
) -> None:
    for index in range(2):
        helpers.build(source, tmp_path / f"part{index}", helpers.Teacher(), part=(index, 2))
    push(tmp_path / "part0", f"{place}/part0")
    report = merge(tmp_path / "joined", [f"{place}/part0", str(tmp_path / "part1")])
    assert (report.files, report.shards_missing) == (5 + 6, 0)
    derive(tmp_path / "joined")
    assert tools.content(tmp_path / "joined") == tools.content(finished)


def test_members_push_their_parts_to_one_place(
    finished: Path, source: DetectionSource, helpers: SimpleNamespace, place: str, tmp_path: Path, tools: Any
) -> None:
    for index in range(2):
        helpers.build(source, tmp_path / f"part{index}", helpers.Teacher(), part=(index, 2))
        report = push(tmp_path / f"part{index}", f"{place}/coco")
    assert report.files == 2
    pull(f"{place}/coco", tmp_path / "joined")
    derive(tmp_path / "joined")
    assert tools.content(tmp_path / "joined") == tools.content(finished)


def test_merge_takes_no_targets(finished: Path, tmp_path: Path) -> None:
    merge(tmp_path / "joined", [str(finished)])
    assert not (tmp_path / "joined" / "targets").exists()
    assert not (tmp_path / "joined" / "projection.safetensors").exists()


def test_another_cache_is_not_mixed_in(
    finished: Path, pushed: str, source: DetectionSource, helpers: SimpleNamespace, tmp_path: Path, tools: Any
) -> None:
    spec = replace(helpers.spec, prompt="What is this {label}?")
    helpers.build(source, tmp_path / "other", helpers.Teacher(spec=spec))
    before = tools.remote(pushed)
    with pytest.raises(CacheMismatchError) as refused:
        push(tmp_path / "other", pushed)
    assert str(refused.value) == (
        f"{pushed} holds another cache than {tmp_path / 'other'}: prompt differs: cache has 'Describe the {{label}}.', "
        f"expected 'What is this {{label}}?'; push to another place, such as {pushed}-2"
    )
    assert tools.remote(pushed) == before
    with pytest.raises(CacheMismatchError, match=r"prompt differs: cache has 'What is .*; name another folder$"):
        pull(pushed, tmp_path / "other")
    with pytest.raises(CacheMismatchError, match=r"prompt differs.*; merge only parts of one cache$"):
        merge(tmp_path / "other", [pushed])


def test_other_regions_are_told_in_words(
    pushed: str, source: DetectionSource, helpers: SimpleNamespace, tmp_path: Path
) -> None:
    records = list(source.records)
    records[7] = replace(records[7], class_ids=(records[7].class_ids + 1) % 3)
    helpers.build(replace(source, records=tuple(records)), tmp_path / "other", helpers.Teacher())
    with pytest.raises(CacheMismatchError, match=r"than .*: 7 regions relabelled \(cache has 85 regions, expected 85"):
        push(tmp_path / "other", pushed)


def test_shards_of_another_size_are_refused(
    pushed: str, source: DetectionSource, helpers: SimpleNamespace, tmp_path: Path
) -> None:
    helpers.build(source, tmp_path / "other", helpers.Teacher(), rows_per_shard=64)
    with pytest.raises(CacheMismatchError, match="shards hold 64 rows, expected 32; name another folder"):
        pull(pushed, tmp_path / "other")


def test_targets_of_two_projections_are_not_mixed(
    pushed: str, cache: Path, source: DetectionSource, helpers: SimpleNamespace, tools: Any
) -> None:
    helpers.build(source, cache, None, dim=3)
    before, mine = tools.remote(pushed), tools.content(cache)
    with pytest.raises(CacheMismatchError, match=r"targets of another projection than .*; push to another place"):
        push(cache, pushed)
    with pytest.raises(CacheMismatchError, match=r"targets of another projection than .*; name another folder"):
        pull(pushed, cache)
    assert (tools.remote(pushed), tools.content(cache)) == (before, mine)


def test_targets_of_a_projection_that_is_gone_stay_at_home(cache: Path, rival: Path, place: str, tools: Any) -> None:
    shutil.copy(rival / "projection.safetensors", cache)
    report = push(cache, f"{place}/coco")
    assert report.shards_missing == 3
    assert not [name for name in tools.remote(f"{place}/coco") if name.startswith(("targets", "projection"))]


def test_the_first_of_two_owners_of_a_shard_wins(finished: Path, rival: Path, place: str, tools: Any) -> None:
    merged = tools.content(finished)
    push(finished, f"{place}/coco")
    for name in ("targets/zarr.json", "projection.safetensors", *(f"targets/c.{shard}.0" for shard in range(3))):
        tools.remove(f"{place}/coco/{name}")
    push(rival, f"{place}/coco")
    there = tools.remote(f"{place}/coco")
    assert {name: there[name] for name in merged if name.startswith(("hidden", "visual"))} == {
        name: content for name, content in merged.items() if name.startswith(("hidden", "visual"))
    }


def sides(folder: Path, shard: int, mine: Path, theirs: Path) -> set[str]:
    """Whose the files of a shard are."""
    found = set()
    for array in ("hidden", "visual"):
        path = shard_path(folder / array, shard)
        if path.exists():
            owners = {"mine": mine, "theirs": theirs}
            found |= {
                name for name, owner in owners.items() if file_digest(path) == file_digest(owner / array / path.name)
            }
    return found


@pytest.mark.parametrize("array", ["hidden", "visual"])
@pytest.mark.parametrize("way", ["push", "pull"])
def test_a_shard_of_which_one_file_is_there_is_never_mixed(
    finished: Path, rival: Path, place: str, tmp_path: Path, tools: Any, way: str, array: str
) -> None:
    """A stopped transfer of somebody else left one file; ours are other numbers."""
    folder = Path(shutil.copytree(rival, tmp_path / "there"))
    shutil.rmtree(folder / "targets")
    (folder / "projection.safetensors").unlink()
    other = "visual" if array == "hidden" else "hidden"
    shard_path(folder / other, 1).unlink()
    if way == "push":
        push(folder, f"{place}/coco")
        tools.put(f"{place}/coco/{array}/c.1.0", shard_path(rival / array, 1).read_bytes())
        push(finished, f"{place}/coco")
        shutil.rmtree(folder)
        merge(folder, [f"{place}/coco"])
    else:
        push(finished, f"{place}/coco")
        merge(folder, [f"{place}/coco"])
    assert [sides(folder, shard, finished, rival) for shard in range(3)] == [{"theirs"}, {"mine"}, {"theirs"}]


def test_a_file_of_a_shard_that_is_the_same_is_completed(finished: Path, pushed: str, tools: Any) -> None:
    tools.remove(f"{pushed}/visual/c.1.0")
    assert push(finished, pushed).files == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mine=st.sets(st.integers(0, 5)), theirs=st.sets(st.integers(0, 5)), torn=st.sets(st.integers(0, 5)))
def test_no_state_of_two_folders_makes_a_mixed_shard(
    finished: Path,
    rival: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mine: set[int],
    theirs: set[int],
    torn: set[int],
) -> None:
    """File 2 k + a of shard k is there or not, on either side, whole or cut; whole shards stay as they are."""
    root = tmp_path_factory.mktemp("states")
    folders = {}
    for name, origin, lacking in (("source", finished, mine), ("there", rival, theirs)):
        folder = Path(shutil.copytree(origin, root / name, ignore=shutil.ignore_patterns("targets", "*.safetensors")))
        for file in lacking:
            shard_path(folder / ("hidden", "visual")[file % 2], file // 2).unlink()
        folders[name] = folder
    for file in torn - theirs:
        path = shard_path(folders["there"] / ("hidden", "visual")[file % 2], file // 2)
        os.truncate(path, 100)
    merge(folders["there"], [str(folders["source"])])
    for shard in range(3):
        files = {2 * shard, 2 * shard + 1}
        if not files & (theirs | torn):
            assert sides(folders["there"], shard, finished, rival) == {"theirs"}
        elif not files & mine:
            assert sides(folders["there"], shard, finished, rival) == {"mine"}
    shutil.rmtree(root)


def test_lists_of_what_was_set_aside_travel(cache: Path, place: str, tmp_path: Path, tools: Any) -> None:
    set_aside(cache, 40, 1)
    push(cache, f"{place}/coco")
    pull(f"{place}/coco", tmp_path / "copy")
    assert tools.content(tmp_path / "copy") == tools.content(cache)
    assert [region.row for region in read_set_aside(tmp_path / "copy")] == [40]
    pull(f"{place}/coco", tmp_path / "targets", targets_only=True)
    assert [region.row for region in read_set_aside(tmp_path / "targets")] == [40]


def test_a_list_of_a_shard_that_was_replaced_goes_away(finished: Path, rival: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(rival, tmp_path / "there", ignore=shutil.ignore_patterns("targets", "*.safetensors")))
    set_aside(there, 40, 1)
    shard_path(there / "visual", 1).unlink()
    merge(there, [str(finished)])
    assert sides(there, 1, finished, rival) == {"mine"}
    assert read_set_aside(there) == ()


def test_targets_that_leave_out_other_regions_are_refused(cache: Path, pushed: str) -> None:
    set_aside(cache, 40, 1)
    for command in (lambda: push(cache, pushed), lambda: pull(pushed, cache)):
        with pytest.raises(
            CacheMismatchError, match=r"sets aside other regions in shard 1 than .*tried again what had"
        ):
            command()


def test_nothing_but_a_cache_travels(cache: Path, s3: str, tmp_path: Path, tools: Any) -> None:
    expected = tools.content(cache)
    for name in (".hidden.partial", "notes.txt", "hidden/c.9.0", "hidden/c.01.0", "quarantine/shard-9.json", "more/x"):
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_text("{}")
    push(cache, f"{s3}/coco")
    assert tools.remote(f"{s3}/coco") == expected
    for name in ("notes.txt", "hidden/c.9.0", "hidden/.c.1.0", "targets/../../evil", "../evil", "hidden/c.1.0/evil"):
        tools.put(f"{s3}/coco/{name}", b"evil")
    pull(f"{s3}/coco", tmp_path / "in" / "copy")
    assert tools.content(tmp_path / "in") == {f"copy/{name}": content for name, content in expected.items()}
    assert not list(tmp_path.rglob("*evil*"))


def test_push_leaves_other_things_alone(finished: Path, place: str, tools: Any) -> None:
    tools.put(f"{place}/coco/README.md", b"photographs")
    with pytest.raises(CacheFormatError) as refused:
        push(finished, f"{place}/coco")
    assert str(refused.value) == (
        f"a cache has a folder of its own; {place}/coco holds something else (README.md); name a new one, such as "
        f"{place}/coco/cache"
    )


@pytest.mark.parametrize("name", ["file", "folder/file"])
def test_pull_leaves_other_things_alone(pushed: str, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    folder = tmp_path / name.partition("/")[0]
    with pytest.raises(CacheFormatError, match=f"{folder} holds something else than a teacher cache; name another"):
        pull(pushed, folder)
    assert path.read_text() == "mine"


def test_a_place_without_a_cache(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, around in ((f"{s3}/coco", s3), ("s3://nobody", "s3://nobody"), ("cache", str(tmp_path))):
        with pytest.raises(CacheNotFoundError) as missing:
            pull(url, tmp_path / "copy")
        assert str(missing.value) == (
            f"there is no teacher cache at {url}; see what is there with: mocha-pipe cache ls {around}"
        )
    assert not (tmp_path / "copy").exists()


def test_a_cache_that_was_hardly_begun(pushed: str, finished: Path, tmp_path: Path, tools: Any) -> None:
    tools.remove(f"{pushed}/regions.parquet")
    with pytest.raises(
        CacheIncompleteError, match=r"coco lacks regions\.parquet, which every cache has; push it again"
    ):
        pull(pushed, tmp_path / "copy")
    push(finished, pushed)
    assert pull(pushed, tmp_path / "copy").files == 16
    (tmp_path / "copy/hidden/zarr.json").unlink()
    with pytest.raises(CacheIncompleteError) as own:
        push(tmp_path / "copy", pushed)
    assert str(own.value) == (
        f"{tmp_path}/copy lacks hidden/zarr.json, which every cache has; run `mocha-pipe cache verify {tmp_path}/copy "
        "--repair --data DATA`"
    )


def test_a_full_disk_is_told_in_words(pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    pull(pushed, tmp_path / "copy")
    shard_path(tmp_path / "copy" / "hidden", 1).unlink()
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CacheWriteError, match=r"disk under .*copy must hold .*No space left on device.*same command"):
        pull(pushed, tmp_path / "copy")
    monkeypatch.undo()
    assert not shard_path(tmp_path / "copy" / "hidden", 1).exists()


def test_a_shard_that_a_build_is_at_is_left_to_it(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    pull(str(finished), folder)
    for array in ("hidden", "visual"):
        for shard in (0, 1):
            shard_path(folder / array, shard).unlink()
    code = """
import sys
from pathlib import Path
from mocha_pipe.teacher_cache.store.claims import ShardClaims
with ShardClaims(Path(sys.argv[1])) as claims:
    claims.take(1)
    print("taken", flush=True)
    sys.stdin.readline()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout
        assert build.stdout.readline() == "taken\n"
        report = pull(str(finished), folder)
        build.communicate("\n")
    assert (report.files, report.shards_missing) == (2, 1)
    assert RegionCache.open(folder).missing_teacher_shards() == (1,)


def test_a_copy_for_distillation(finished: Path, pushed: str, tmp_path: Path, tools: Any) -> None:
    report = pull(pushed, tmp_path / "copy", targets_only=True)
    assert sorted(tools.content(tmp_path / "copy")) == sorted(
        ["zarr.json", "images.parquet", "regions.parquet", "hidden/zarr.json", "visual/zarr.json"]
        + [f"targets/{name}" for name in ("zarr.json", "c.0.0", "c.1.0", "c.2.0")]
    )
    assert (report.files, report.shards_missing) == (9, 0)
    rows = np.arange(85)
    copy, original = (RegionCache.open(folder).targets() for folder in (tmp_path / "copy", finished))
    np.testing.assert_array_equal(copy.lookup(rows), original.lookup(rows))
    assert pull(pushed, tmp_path / "copy", targets_only=True).files == 0
    assert pull(pushed, tmp_path / "copy").files == 7
    assert tools.content(tmp_path / "copy") == tools.content(finished)


def wide_cache(folder: Path, rows: int, rows_per_shard: int, helpers: SimpleNamespace) -> None:
    """A cache as wide as LLaVA-1.5-7B makes it, with the names and boxes of a real data set but zeros in it."""
    generator = np.random.default_rng(0)
    images = rows // 7
    counts = np.diff(np.linspace(0, rows, images + 1).astype(int))
    table = RegionTable(
        class_names=tuple(f"class {index}" for index in range(80)),
        image_names=tuple(f"train2017/{index:012d}.jpg" for index in range(images)),
        image_digests=tuple(generator.bytes(16).hex() for _ in range(images)),
        image_sizes=np.full((images, 2), 640, np.int32),
        first_row=np.concatenate([[0], np.cumsum(counts)]),
        xyxy=generator.uniform(0, 640, (rows, 4)).astype(np.float32),
        class_ids=generator.integers(0, 80, rows).astype(np.int32),
        keys=np.full(rows, b"0" * 32),
    )
    table = replace(table, keys=recompute_keys(table))
    plan, spec = ShardPlan(rows, rows_per_shard), replace(helpers.spec, hidden_dim=4096, visual_dim=1024)
    create_group(folder, plan=plan, spec=spec, table=table)
    Projection(
        mean=np.zeros(5120), components=np.eye(512, 5120), eigenvalues=np.ones(5120), hidden_dim=4096, rows=rows
    ).save(folder / "projection.safetensors")
    create_array_atomically(
        folder, "targets", plan, 512, {"projection_digest": file_digest(folder / "projection.safetensors")}
    )
    for name, dim in (("hidden", 4096), ("visual", 1024), ("targets", 512)):
        for shard in range(len(plan)):
            start, stop = plan.span(shard)
            write_shard(folder / name, plan, shard, np.zeros((stop - start, dim), np.float16))


def test_targets_are_a_ninth_of_the_bytes(tmp_path: Path, helpers: SimpleNamespace) -> None:
    """Not counting the projection, whose share falls with the rows."""
    wide_cache(tmp_path / "cache", 3000, 256, helpers)
    [listing] = list_caches(str(tmp_path / "cache"))
    projection = (tmp_path / "cache" / "projection.safetensors").stat().st_size
    report = pull(str(tmp_path / "cache"), tmp_path / "targets", targets_only=True)
    assert RegionCache.open(tmp_path / "targets").targets().dim == 512
    assert 3000 * 512 * 2 < report.bytes <= (listing.bytes - projection) / 9


def test_a_mirror_is_fetched_once(pushed: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mirror(pushed, tmp_path / "remote")
    assert folder.parent == tmp_path / "remote"
    assert folder.name.startswith("coco-")
    assert len(RegionCache.open(folder).targets()) == 85
    monkeypatch.setattr(Place, "fetch", None)
    assert mirror(pushed, tmp_path / "remote") == folder


def test_another_cache_under_a_url_gets_another_mirror(pushed: str, rival: Path, tmp_path: Path, tools: Any) -> None:
    first = mirror(pushed, tmp_path / "remote")
    tools.remove(pushed)
    push(rival, pushed)
    second = mirror(pushed, tmp_path / "remote")
    assert first != second
    assert RegionCache.open(second).projection_digest == RegionCache.open(rival).projection_digest


def test_a_cache_without_all_targets_is_no_mirror(cache: Path, place: str, tmp_path: Path) -> None:
    shard_path(cache / "targets", 1).unlink()
    push(cache, f"{place}/coco")
    with pytest.raises(CacheIncompleteError) as refused:
        mirror(f"{place}/coco", tmp_path / "remote")
    assert str(refused.value) == (
        f"distillation needs all targets of a cache; {place}/coco has 2 of 3 shards; complete it with "
        "`mocha-pipe cache build` where it is made, then push it again"
    )
    assert not (tmp_path / "remote").exists()


def test_two_pushes_at_once_end_in_one_cache(finished: Path, rival: Path, s3: str, tmp_path: Path, tools: Any) -> None:
    """Of two owners with other numbers in the same shards, who take turns at random."""
    folders = [tmp_path / "mine", tmp_path / "theirs"]
    for folder, origin in zip(folders, (finished, rival), strict=True):
        merge(folder, [str(origin)])
    with ThreadPoolExecutor(2) as pool:
        for report in pool.map(lambda folder: push(folder, f"{s3}/coco"), folders):
            assert report.files <= 11
    merge(tmp_path / "copy", [f"{s3}/coco"])
    for shard in range(3):
        assert len(sides(tmp_path / "copy", shard, finished, rival)) == 1


@pytest.mark.parametrize("prompt", ["Describe the {label}.", "What is this {label}?"])
def test_a_place_that_somebody_else_takes_meanwhile(
    finished: Path,
    source: DetectionSource,
    helpers: SimpleNamespace,
    place: str,
    tmp_path: Path,
    tools: Any,
    monkeypatch: pytest.MonkeyPatch,
    prompt: str,
) -> None:
    """They come after we found nothing there: with the same cache, or with another one."""
    helpers.build(source, tmp_path / "theirs", helpers.Teacher(spec=replace(helpers.spec, prompt=prompt)))
    look = Place.entries

    def look_too_early(self: Place, folder: str = "") -> Any:
        if self.url == place:
            monkeypatch.undo()
            push(tmp_path / "theirs", place)
        return look(self, folder)

    monkeypatch.setattr(Place, "entries", look_too_early)
    if prompt == helpers.spec.prompt:
        assert push(finished, place).files == 0
    else:
        with pytest.raises(CacheMismatchError, match="prompt differs"):
            push(finished, place)
    assert tools.remote(place) == tools.content(tmp_path / "theirs")


def test_a_projection_that_somebody_else_sends_meanwhile(
    finished: Path, rival: Path, place: str, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Place.send

    def send_too_late(self: Place, files: Any, stale: Any, there: Any) -> list[str]:
        if "projection.safetensors" in files:
            for name in ("projection.safetensors", "targets/zarr.json"):
                tools.put(f"{place}/{name}", (rival / name).read_bytes())
        return send(self, files, stale, there)

    monkeypatch.setattr(Place, "send", send_too_late)
    with pytest.raises(CacheMismatchError, match="targets of another projection"):
        push(finished, place)
    assert not [name for name in tools.remote(place) if name.startswith("targets/c")]


def test_progress_is_shown_in_bytes(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = pull(str(finished), tmp_path / "copy", progress=True)
    last = capsys.readouterr().err.strip().rpartition("\r")[2]
    identity = Holding(Place(str(finished))).identity  # comes before the bar starts
    first = sum((finished / name).stat().st_size for name in identity)
    size = f"{(report.bytes - first) / 1024:.1f}k"
    assert last.startswith("pull: 100%")
    assert f"{size}/{size} [" in last
