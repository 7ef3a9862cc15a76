"""Regions that have no embedding: listed with their reason, left out, and tried again on request."""

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mocha_pipe.data.files import json_digest
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building import build, embed
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheIncompleteError, CacheUnreadableError
from mocha_pipe.teacher_cache.projecting.whitening import whiten
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.quarantine import SetAside, quarantine_path, read_set_aside, write_set_aside
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings
from tests.shared import as_nobody

BROKEN = "image012.png"
ROWS = tuple(range(34, 38))  # its boxes, in the second of three shards


def region(row: int) -> SetAside:
    return SetAside(row=row, key=f"{row:032d}", image="grün.png", class_name="mug", reason="no picture")


def test_lists_are_read_back_by_ascending_row(tmp_path: Path) -> None:
    write_set_aside(tmp_path, 10, [region(321), region(330)])
    write_set_aside(tmp_path, 2, [region(70)])
    (tmp_path / "quarantine" / ".shard-3.1-2.partial.json").write_text("{")
    assert read_set_aside(tmp_path) == (region(70), region(321), region(330))


def test_an_empty_list_has_no_file(tmp_path: Path) -> None:
    write_set_aside(tmp_path, 2, [region(70)])
    write_set_aside(tmp_path, 2, [])
    write_set_aside(tmp_path, 3, [])
    assert list((tmp_path / "quarantine").iterdir()) == []
    assert read_set_aside(tmp_path) == read_set_aside(tmp_path / "nowhere") == ()


@pytest.mark.parametrize("damage", ["cut", "reason", "row", "extra", "list"])
def test_a_damaged_list_is_refused(tmp_path: Path, damage: str) -> None:
    write_set_aside(tmp_path, 2, [region(70)])
    path = quarantine_path(tmp_path, 2)
    content = json.loads(path.read_text())
    entry = content["regions"][0]
    if damage == "extra":
        entry["note"] = "added"
        content["digest"] = json_digest(content["regions"])
    elif damage != "cut":
        entry.update({"reason": "none"} if damage == "reason" else {"row": 71})
    text = "[]" if damage == "list" else json.dumps(content)
    path.write_text(text[:-5] if damage == "cut" else text)
    with pytest.raises(CacheCorruptError) as caught:
        read_set_aside(tmp_path)
    assert str(caught.value) == (
        f"{path} is damaged: it is not the list that was written; "
        f"run `mocha-pipe cache verify {tmp_path} --repair --data DATA`"
    )


def test_lists_that_cannot_be_seen_are_not_taken_for_none(tmp_path: Path) -> None:
    lists = tmp_path / "quarantine"
    assert read_set_aside(tmp_path) == ()
    lists.write_text("mine")
    with pytest.raises(CacheCorruptError) as caught:
        read_set_aside(tmp_path)
    assert str(caught.value) == (
        f"{lists} is damaged: it is a file, and must be a folder; move it away with `mv {lists} {lists}.aside` and run "
        "the same command again"
    )
    lists.unlink()
    lists.symlink_to("gone")
    with pytest.raises(CacheIncompleteError, match="quarantine is a link to gone, which is not there; fetch"):
        read_set_aside(tmp_path)
    lists.unlink()
    lists.mkdir(mode=0)
    with as_nobody(tmp_path), pytest.raises(CacheUnreadableError) as refused:
        read_set_aside(tmp_path)
    assert str(refused.value) == (
        f"{lists} cannot be read (Permission denied); let its owner run `chmod -R a+rX {tmp_path}`"
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, helpers: SimpleNamespace) -> SimpleNamespace:
    """The usual images. One is broken after the table was made; `mend` brings it back, `damage` breaks it again."""
    source = helpers.make_source(tmp_path_factory.mktemp("broken"))
    path = source.records[12].path
    content = path.read_bytes()
    assert path.name == BROKEN
    return SimpleNamespace(
        source=source,
        table=RegionTable.build(source),
        path=path,
        mend=lambda: path.write_bytes(content),
        damage=lambda: path.write_bytes(content[: len(content) // 2]),
    )


@pytest.fixture
def world(images: SimpleNamespace) -> SimpleNamespace:
    """With the broken image."""
    images.damage()
    return images


@pytest.fixture(scope="module")
def built(images: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory, helpers: SimpleNamespace) -> Path:
    """The cache of the images while one is broken; tests only read it."""
    folder = tmp_path_factory.mktemp("built") / "cache"
    images.damage()
    helpers.build(images.source, folder, helpers.Teacher(), table=images.table)
    return folder


@pytest.fixture
def folder(built: Path, world: SimpleNamespace, tmp_path: Path) -> Path:
    """The same cache, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "cache"))


def test_an_unreadable_image_is_set_aside_and_the_build_goes_on(
    world: SimpleNamespace, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    teacher = helpers.Teacher()
    report = helpers.build(world.source, tmp_path / "cache", teacher, table=world.table)
    assert tuple(region.row for region in report.set_aside) == ROWS
    assert {region.image for region in report.set_aside} == {BROKEN}
    for found in report.set_aside:
        assert found.reason.startswith(f"{BROKEN}: cannot be read as an image (")
        assert str(world.path.parent) not in found.reason, "no folder of this machine travels with a cache"
    assert (report.computed_shards, report.missing_shards, report.dim) == (3, 0, 8)
    assert sum(teacher.calls) == report.embedded == 81
    cache, whole = RegionCache.open(tmp_path / "cache"), RegionCache.open(finished)
    assert cache.is_complete
    assert cache.info()["set_aside"] == 4
    others = np.delete(np.arange(85), ROWS)
    for name in ("hidden", "visual"):
        np.testing.assert_array_equal(cache.rows(name).lookup(others), whole.rows(name).lookup(others))
        assert np.isnan(cache.rows(name).lookup(np.array(ROWS))).all()
    assert cache.targets().set_aside.tolist() == list(ROWS)


def test_what_was_set_aside_is_left_alone_without_retry(
    world: SimpleNamespace, folder: Path, built: Path, helpers: SimpleNamespace
) -> None:
    world.mend()
    report = helpers.build(world.source, folder, None, table=world.table)
    assert len(report.set_aside) == 4
    assert helpers.file_tree(folder) == helpers.file_tree(built)


def test_retry_embeds_only_what_was_set_aside(
    world: SimpleNamespace, finished: Path, folder: Path, helpers: SimpleNamespace
) -> None:
    before = RegionCache.open(folder)
    targets = before.rows("targets").lookup(np.arange(85))
    projection = before.projection_digest
    world.mend()
    teacher = helpers.Teacher()
    report = helpers.build(world.source, folder, teacher, table=world.table, retry_failed=True)
    assert teacher.calls == [4]
    assert (report.embedded, report.set_aside, report.computed_shards) == (4, (), 0)
    assert not list((folder / "quarantine").iterdir())

    cache, whole = RegionCache.open(folder), RegionCache.open(finished)
    assert cache.is_complete
    for name in ("hidden", "visual"):
        np.testing.assert_array_equal(cache.rows(name).lookup(np.arange(85)), whole.rows(name).lookup(np.arange(85)))
    # The projection stays, so that the targets of all other regions do.
    assert cache.projection_digest == projection
    again, others = cache.targets().lookup(np.arange(85)), np.delete(np.arange(85), ROWS)
    np.testing.assert_array_equal(again[others], targets[others])
    hidden, visual = (cache.rows(name).lookup(np.array(ROWS)) for name in ("hidden", "visual"))
    np.testing.assert_array_equal(
        again[list(ROWS)], whiten(cache.projection(), hidden, visual).astype(np.float16).astype(np.float32)
    )


def test_retry_of_what_still_fails_changes_nothing_and_loads_no_teacher(
    world: SimpleNamespace, folder: Path, built: Path, helpers: SimpleNamespace
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    report = helpers.build(world.source, folder, None, table=world.table, retry_failed=True)
    assert report.set_aside == RegionCache.open(built).quarantine()
    assert report.embedded == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_retry_keeps_the_list_of_what_still_fails(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    def damage_at(*rows: int) -> Callable[[RegionEmbeddings, int], RegionEmbeddings]:
        def damage(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
            for row in rows:
                if first <= row < first + len(embeddings.hidden):
                    embeddings.hidden[row - first, 2] = np.nan
            return embeddings

        return damage

    helpers.build(source, tmp_path / "cache", helpers.Teacher(damage=damage_at(40, 41, 70)))
    teacher = helpers.Teacher(damage=damage_at(1))  # the second of the two that are tried first
    report = helpers.build(source, tmp_path / "cache", teacher, retry_failed=True)
    assert teacher.calls == [2, 1]
    assert [region.row for region in report.set_aside] == [41]
    assert np.isfinite(RegionCache.open(tmp_path / "cache").rows("hidden").lookup(np.array([40, 70]))).all()


def test_retry_without_anything_set_aside_needs_no_teacher(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "cache"))
    assert helpers.build(source, folder, None, retry_failed=True).embedded == 0
    assert helpers.file_tree(folder) == helpers.file_tree(finished)


@pytest.fixture
def doubled(world: SimpleNamespace, helpers: SimpleNamespace) -> SimpleNamespace:
    """Every image under two names, so that the broken one fails in the second shard and again in a later one."""
    source = helpers.repeated(world.source)
    digests = (*world.table.image_digests, *world.table.image_digests)
    world.mend()
    table = RegionTable.build(source)
    assert table.image_digests == digests
    world.path.write_bytes(b"no picture")
    return SimpleNamespace(source=source, table=table, mend=world.mend)


@pytest.mark.parametrize("size", [32, 256])
def test_equal_regions_are_set_aside_together_and_come_back_together(
    doubled: SimpleNamespace, tmp_path: Path, helpers: SimpleNamespace, size: int
) -> None:
    """In several shards and in one."""
    folder = tmp_path / "cache"
    report = helpers.build(doubled.source, folder, helpers.Teacher(), table=doubled.table, rows_per_shard=size)
    rows = [region.row for region in report.set_aside]
    assert rows == [n for n in range(192) if doubled.table.first_of_key[n] in ROWS]
    assert len(rows) == 9
    assert (len({row // size for row in rows}) > 1) == (size == 32)
    doubled.mend()
    teacher = helpers.Teacher()
    report = helpers.build(doubled.source, folder, teacher, table=doubled.table, retry_failed=True)
    assert (teacher.calls, report.duplicates, report.set_aside) == ([4], 5, ())
    cache = RegionCache.open(folder)
    for name in ("hidden", "visual", "targets"):
        values = cache.rows(name).lookup(np.arange(192))
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(values, values[doubled.table.first_of_key])


def test_rows_that_another_build_mends_meanwhile_are_copied_as_they_are_now(
    doubled: SimpleNamespace, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    folder = tmp_path / "cache"
    helpers.build(doubled.source, folder, helpers.Teacher(), table=doubled.table)
    assert {region.row // 32 for region in RegionCache.open(folder).quarantine()} == {1, 4}
    for shard in (3, 4):  # both copy from shard 1
        for name in ("hidden", "visual"):
            (folder / name / f"c.{shard}.0").unlink()
    cache = RegionCache.open(folder)
    with embed.ShardEmbedder(cache, doubled.source, doubled.table, helpers.Teacher) as embedder:
        embedder.finish(embedder.begin(3))
        doubled.mend()
        with embed.ShardEmbedder(cache, doubled.source, doubled.table, helpers.Teacher) as another:
            another.retry(1, contextlib.nullcontext)
        embedder.finish(embedder.begin(4))
    assert cache.quarantine() == ()
    for name in ("hidden", "visual"):
        values = cache.rows(name).lookup(np.arange(192))
        np.testing.assert_array_equal(values, values[doubled.table.first_of_key])
        assert np.isfinite(values).all()


@pytest.fixture(scope="module")
def retried(
    images: SimpleNamespace, built: Path, tmp_path_factory: pytest.TempPathFactory, helpers: SimpleNamespace
) -> Path:
    """The cache after a retry that nobody stopped; tests only read it."""
    folder = Path(shutil.copytree(built, tmp_path_factory.mktemp("retried") / "cache"))
    images.mend()
    helpers.build(images.source, folder, helpers.Teacher(), table=images.table, retry_failed=True)
    return folder


@pytest.mark.parametrize("stop_after", range(4))
def test_a_retry_that_is_stopped_anywhere_is_done_again(
    world: SimpleNamespace,
    retried: Path,
    folder: Path,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    """Stopped before each of its files; a build without retry in between finds a cache that it can complete."""
    world.mend()
    writes = iter(range(stop_after))

    def interrupted(original: Callable[..., None]) -> Callable[..., None]:
        def write(*args: object, **options: object) -> None:
            if next(writes, None) is None:
                raise KeyboardInterrupt
            original(*args, **options)

        return write

    with monkeypatch.context() as patched:
        patched.setattr(embed, "write_shard", interrupted(embed.write_shard))
        patched.setattr(embed, "write_set_aside", interrupted(embed.write_set_aside))
        patched.setattr(build, "derive_targets", interrupted(build.derive_targets))
        with pytest.raises(KeyboardInterrupt):
            helpers.build(world.source, folder, helpers.Teacher(), table=world.table, retry_failed=True)
    report = helpers.build(world.source, folder, None, table=world.table)
    assert tuple(region.row for region in report.set_aside) == (ROWS if stop_after < 3 else ())
    others = np.delete(np.arange(85), ROWS)
    targets = RegionCache.open(folder).rows("targets").lookup(np.arange(85))
    assert np.isfinite(targets[others]).all()
    helpers.build(world.source, folder, helpers.Teacher(), table=world.table, retry_failed=True)
    assert helpers.file_tree(folder) == helpers.file_tree(retried)


def test_another_dim_after_a_stopped_retry(
    world: SimpleNamespace, folder: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One array has the rows and the other has not: they take no part in the projection."""
    world.mend()
    write_shard = embed.write_shard

    def write(folder: Path, *args: object) -> None:
        if folder.name == "visual":
            raise KeyboardInterrupt
        write_shard(folder, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(embed, "write_shard", write)
        with pytest.raises(KeyboardInterrupt):
            helpers.build(world.source, folder, helpers.Teacher(), table=world.table, retry_failed=True)
    helpers.build(world.source, folder, None, table=world.table, dim=3)
    cache = RegionCache.open(folder)
    assert cache.projection().rows == 81
    others = np.delete(np.arange(85), ROWS)
    assert np.isfinite(cache.targets().lookup(others)).all()


def test_retry_leaves_a_shard_that_was_never_written_to_the_build(
    world: SimpleNamespace, finished: Path, folder: Path, helpers: SimpleNamespace
) -> None:
    """A build that was killed between a list and its shard."""
    for name in ("hidden", "visual", "targets"):
        (folder / name / "c.1.0").unlink()
    (folder / "projection.safetensors").unlink()
    world.mend()
    teacher = helpers.Teacher()
    report = helpers.build(world.source, folder, teacher, table=world.table, retry_failed=True)
    assert (teacher.calls, report.computed_shards, report.set_aside) == ([32], 1, ())
    (folder / "quarantine").rmdir()
    assert helpers.file_tree(folder) == helpers.file_tree(finished)


def test_a_teacher_of_another_name_does_not_retry(
    world: SimpleNamespace, folder: Path, built: Path, helpers: SimpleNamespace
) -> None:
    world.mend()
    other = helpers.Teacher(spec=replace(helpers.spec, revision="beef"))
    with pytest.raises(ValueError, match="was made by another teacher than the one loaded: revision differs"):
        helpers.build(world.source, folder, other, spec=helpers.spec, table=world.table, retry_failed=True)
    assert helpers.file_tree(folder) == helpers.file_tree(built)
