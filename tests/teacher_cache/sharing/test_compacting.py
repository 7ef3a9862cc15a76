import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.archive.rounding import LEAST_COSINE, RULE, cosines
from mocha_pipe.teacher_cache.checking.audit import audit_cache
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheFormatError,
    CacheIncompleteError,
    CacheMismatchError,
)
from mocha_pipe.teacher_cache.sharing import compact, list_caches, merge, mirror, pull, push
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import shard_path
from tests.teacher_cache.fakes import another_process

ARRAYS = ("hidden", "visual", "targets")


@pytest.fixture(scope="module")
def exact(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive, to be read only."""
    folder = tmp_path_factory.mktemp("exact") / "archive"
    compact(finished, str(folder))
    return folder


@pytest.fixture(scope="module")
def lossy(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lossy archive, to be read only."""
    folder = tmp_path_factory.mktemp("lossy") / "archive"
    compact(finished, str(folder), lossy=True)
    return folder


@pytest.fixture(scope="module")
def rounded(lossy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a lossy archive brings back, to be read only."""
    folder = tmp_path_factory.mktemp("rounded") / "cache"
    pull(str(lossy), folder)
    return folder


def test_an_exact_archive_brings_the_same_bytes_back(finished: Path, exact: Path, tmp_path: Path, tools: Any) -> None:
    report = pull(str(exact), tmp_path / "back")
    assert tools.content(tmp_path / "back") == tools.content(finished)
    assert (report.files, report.shards_missing) == (16, 0)
    assert not verify_cache(tmp_path / "back").findings


def test_an_archive_travels_through_a_bucket(finished: Path, s3: str, tmp_path: Path, tools: Any) -> None:
    report = compact(finished, f"{s3}/coco")
    assert compact(finished, f"{s3}/coco").files == 0
    pull(f"{s3}/coco", tmp_path / "back")
    assert tools.content(tmp_path / "back") == tools.content(finished)
    [found] = list_caches(s3)
    assert (found.complete, found.usable) == (True, True)
    stored = {name: len(content) for name, content in tools.remote(f"{s3}/coco").items()}
    assert found.bytes == sum(stored.values())
    assert sum(report.bytes.values()) == sum(stored.values())
    assert sum(report.raw_bytes.values()) == sum(map(len, tools.content(finished).values()))
    folder = mirror(f"{s3}/coco", tmp_path / "remote")
    assert len(RegionCache.open(folder).targets()) == 85


def test_other_programs_read_the_arrays(finished: Path, rounded: Path, exact: Path, lossy: Path) -> None:
    for array in ARRAYS:
        values = zarr.open_group(exact, mode="r")[array][:]
        np.testing.assert_array_equal(values, RegionCache.open(finished).rows(array).block(0, 85))
        group = zarr.open_group(lossy, mode="r")
        steps = group[f"{array}_step"][:]
        values = (group[array][:] - group[array].attrs["offset"]) * steps[:, None]
        np.testing.assert_array_equal(values.astype(np.float16), RegionCache.open(rounded).rows(array).block(0, 85))


def test_rounding_is_told_and_another_cache(finished: Path, rounded: Path, tmp_path: Path) -> None:
    report = compact(finished, str(tmp_path / "archive"), lossy=True)
    cache = RegionCache.open(rounded)
    assert cache.is_complete
    assert cache.spec.rounding == RULE
    assert not verify_cache(rounded).findings
    for array in ARRAYS:
        found = cosines(*(RegionCache.open(folder).rows(array).block(0, 85) for folder in (finished, rounded)))
        assert report.loss[array].least_cosine == found.min() >= LEAST_COSINE
        assert report.loss[array].mean_cosine == pytest.approx(found.mean())
        assert 0.8 < report.loss[array].kept_neighbours <= 1
    assert not (rounded / "complete.json").exists()


def test_rounded_and_exact_caches_never_mix(
    finished: Path, rounded: Path, lossy: Path, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    differ = f"rounding differs: cache has '{RULE}', expected ''"
    copy = Path(shutil.copytree(rounded, tmp_path / "copy"))
    with pytest.raises(CacheMismatchError, match=differ):
        pull(str(finished), copy)
    with pytest.raises(CacheMismatchError, match="rounding differs"):
        merge(Path(shutil.copytree(finished, tmp_path / "exact")), [str(lossy)])
    with pytest.raises(CacheMismatchError, match=differ):
        helpers.build(source, copy, helpers.Teacher())
    with pytest.raises(CacheMismatchError, match=differ):
        helpers.build(source, tmp_path / "new", helpers.Teacher(), reuse=[rounded])
    remote = mirror(str(lossy), tmp_path / "remote")
    assert remote != mirror(str(finished), tmp_path / "remote")


def test_a_rounded_cache_travels_and_is_compacted_without_further_loss(
    rounded: Path, tmp_path: Path, tools: Any
) -> None:
    with pytest.raises(CacheMismatchError, match="its values are not rounded twice; share that archive, or leave out"):
        compact(rounded, str(tmp_path / "twice"), lossy=True)
    compact(rounded, str(tmp_path / "again"))
    pull(str(tmp_path / "again"), tmp_path / "back")
    push(rounded, str(tmp_path / "pushed"))
    for folder in ("back", "pushed"):
        assert tools.content(tmp_path / folder) == tools.content(rounded)


def test_what_is_missing_of_a_rounded_cache_is_pulled(rounded: Path, lossy: Path, tmp_path: Path, tools: Any) -> None:
    copy = Path(shutil.copytree(rounded, tmp_path / "copy"))
    shutil.rmtree(copy / "targets")
    with pytest.raises(CacheIncompleteError, match=f"complete it with `mocha-pipe cache pull ARCHIVE {copy}`"):
        RegionCache.open(copy).targets()
    assert pull(str(lossy), copy).shards_missing == 0
    assert tools.content(copy) == tools.content(rounded)


def test_an_audit_rounds_what_the_teacher_says(
    rounded: Path, source: DetectionSource, helpers: SimpleNamespace
) -> None:
    report = audit_cache(RegionCache.open(rounded), source, helpers.Teacher(), rows=85)
    assert report.ok
    assert report.arrays["hidden"].max_difference < 1e-3


def without_row_1(embeddings: Any, first: int) -> Any:
    """What a teacher returns that cannot make row 1."""
    if first:
        return embeddings
    hidden = embeddings.hidden.copy()
    hidden[1] = np.nan
    return replace(embeddings, hidden=hidden)


def test_rows_that_were_set_aside_stay_so(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, tools: Any
) -> None:
    cache = tmp_path / "cache"
    helpers.build(source, cache, helpers.Teacher(damage=without_row_1))
    for lossy in (False, True):
        archive, back = tmp_path / f"archive-{lossy}", tmp_path / f"back-{lossy}"
        compact(cache, str(archive), lossy=lossy)
        pull(str(archive), back)
        report = verify_cache(back)
        assert (report.findings, report.set_aside) == ((), 1)
    assert tools.content(tmp_path / "back-False") == tools.content(cache)


@pytest.mark.parametrize("lossy", [False, True])
def test_an_archive_of_before_what_failed_was_tried_again_is_refused(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, tools: Any, lossy: bool
) -> None:
    cache, archive = tmp_path / "cache", tmp_path / "archive"
    helpers.build(source, cache, helpers.Teacher(damage=without_row_1))
    compact(cache, str(archive), lossy=lossy)
    (archive / "quarantine/shard-0.json").unlink()  # what is lost comes back
    compact(cache, str(archive), lossy=lossy)
    before = tools.content(archive)
    assert "quarantine/shard-0.json" in before
    helpers.build(source, cache, helpers.Teacher(), retry_failed=True)
    with pytest.raises(CacheMismatchError) as refused:
        compact(cache, str(archive), lossy=lossy)
    assert str(refused.value) == (
        f"{archive} sets aside other regions in shard 0 than {cache}: what had failed was tried again since; name a "
        f"new folder, such as {archive}-2"
    )
    assert tools.content(archive) == before


def test_the_list_of_arrays_is_no_part_of_what_an_archive_is_of(finished: Path, exact: Path, tmp_path: Path) -> None:
    """A cache of before gets the list when files travel."""
    cache, archive = (Path(shutil.copytree(path, tmp_path / path.name)) for path in (finished, exact))
    document = json.loads((cache / "zarr.json").read_text())
    del document["consolidated_metadata"]
    (cache / "zarr.json").write_text(json.dumps(document))
    (archive / "targets/c.1.0").unlink()
    assert compact(cache, str(archive)).files == 1
    pull(str(archive), cache)
    assert compact(cache, str(archive)).files == 0


def test_what_is_there_is_not_written_again(finished: Path, exact: Path, lossy: Path, tmp_path: Path) -> None:
    for archive, written in ((exact, 1), (lossy, 1)):
        copy = Path(shutil.copytree(archive, tmp_path / archive.parent.name))
        (copy / "hidden/c.1.0").unlink()
        before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.0")}
        report = compact(finished, str(copy), lossy=archive == lossy)
        assert report.files == written
        assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.0") if path in before} == before
        assert (copy / "hidden/c.1.0").read_bytes() == (archive / "hidden/c.1.0").read_bytes()


def compact_slowly(connection: Connection, cache: Path, archive: Path, *, lossy: bool) -> None:
    from mocha_pipe.data import files

    replace_file = Path.replace

    def late(path: Path, target: Path) -> Path:
        connection.send("a file is about to appear")
        connection.recv()
        return replace_file(path, target)

    files.Path.replace = late  # type: ignore[method-assign,assignment]
    compact(cache, str(archive), lossy=lossy)
    connection.send("done")


@pytest.mark.parametrize("is_lossy", [False, True])
def test_a_killed_call_leaves_nothing_torn_and_goes_on(
    finished: Path, exact: Path, lossy: Path, tmp_path: Path, tools: Any, is_lossy: bool
) -> None:
    archive, reference = tmp_path / "archive", tools.content(lossy if is_lossy else exact)
    for survived in (0, 5):
        with another_process(_kill_target, finished, archive, is_lossy) as (process, connection):
            for _ in range(survived):
                assert connection.recv() == "a file is about to appear"
                connection.send("go on")
            connection.recv()
            process.kill()
            process.join()
        found = tools.content(archive) if archive.exists() else {}
        assert found.items() <= reference.items()
    for path in archive.rglob(".*.partial*"):
        os.utime(path, (0, 0))
    compact(finished, str(archive), lossy=is_lossy)
    assert tools.content(archive) == reference
    assert not list(archive.rglob("*.partial*"))


def _kill_target(connection: Connection, cache: Path, archive: Path, lossy: bool) -> None:
    compact_slowly(connection, cache, archive, lossy=lossy)


def test_a_part_of_an_archive_brings_its_part_back(finished: Path, exact: Path, tmp_path: Path, tools: Any) -> None:
    archive = Path(shutil.copytree(exact, tmp_path / "archive"))
    (archive / "hidden/c.1.0").unlink()
    assert pull(str(archive), tmp_path / "back").shards_missing == 1
    compact(finished, str(archive))
    pull(str(archive), tmp_path / "back")
    assert tools.content(tmp_path / "back") == tools.content(finished)


@pytest.mark.parametrize("name", ["hidden/c.1.0", "hidden_step/c.1", "targets/c.2.0", "regions.parquet"])
def test_damage_is_found_and_the_remedy_mends_it(
    finished: Path, lossy: Path, rounded: Path, tmp_path: Path, tools: Any, name: str
) -> None:
    archive = Path(shutil.copytree(lossy, tmp_path / "archive"))
    tools.flip(archive / name)
    with pytest.raises(CacheCorruptError) as error:
        pull(str(archive), tmp_path / "back")
    message = str(error.value)
    damaged, command = message.partition(" is damaged: ")[0], shlex.split(message.split("`")[1])
    assert command == ["mocha-pipe", "cache", "compact", "--lossy", "FOLDER", str(archive)]
    assert Path(damaged) == archive / name.replace("_step/c.1", "/c.1.0")
    Path(damaged).unlink()
    compact(finished, str(archive), lossy=True)
    pull(str(archive), tmp_path / "back")
    assert tools.content(tmp_path / "back") == tools.content(rounded)


def test_a_lost_file_of_steps_is_damage(lossy: Path, tmp_path: Path) -> None:
    archive = Path(shutil.copytree(lossy, tmp_path / "archive"))
    (archive / "visual_step/c.0").unlink()
    with pytest.raises(CacheCorruptError, match=r"visual/c\.0\.0 is damaged: .*visual_step/c\.0.*; remove it there"):
        pull(str(archive), tmp_path / "back")


def test_an_archive_is_no_cache_and_says_how_to_get_one(
    finished: Path, exact: Path, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    remedy = f"is the compact archive of a teacher cache; .*: mocha-pipe cache pull {exact} FOLDER$"
    asked: list[Callable[[], object]] = [
        lambda: RegionCache.open(exact),
        lambda: verify_cache(exact),
        lambda: helpers.build(source, exact, helpers.Teacher()),
        lambda: compact(exact, str(tmp_path / "other")),
        lambda: pull(str(finished), exact),
    ]
    for ask in asked:
        with pytest.raises(CacheFormatError, match=remedy):
            ask()


def test_files_of_a_cache_are_not_pushed_into_an_archive(finished: Path, place: str, tools: Any) -> None:
    compact(finished, f"{place}/coco")
    assert push(finished, f"{place}/coco").files == 0
    tools.remove(f"{place}/coco/hidden/c.0.0")
    with pytest.raises(CacheFormatError, match=r"is a compact archive that lacks hidden/c\.0\.0; go on with it .*: `"):
        push(finished, f"{place}/coco")


def test_only_complete_caches_are_compacted(
    finished: Path, source: DetectionSource, table: RegionTable, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    part = tmp_path / "part"
    helpers.build(source, part, helpers.Teacher(), part=(0, 2))
    with pytest.raises(CacheIncompleteError, match=r"an archive holds a complete cache; .* lacks shards or targets"):
        compact(part, str(tmp_path / "archive"))
    assert not (tmp_path / "archive").exists()


def test_other_folders_are_left_alone(finished: Path, exact: Path, rival: Path, tmp_path: Path, tools: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "diary.txt").write_text("mine")
    with pytest.raises(CacheFormatError) as refused:
        compact(finished, str(other))
    assert str(refused.value) == (
        f"an archive has a folder of its own; {other} holds something else (diary.txt); name a new one, such as "
        f"{other}/archive"
    )
    with pytest.raises(CacheFormatError, match="holds something else than an archive; name a new folder"):
        compact(finished, str(shutil.copytree(finished, tmp_path / "cache")))
    copy = Path(shutil.copytree(exact, tmp_path / "copy"))
    for cache, is_lossy in ((finished, True), (rival, False)):
        with pytest.raises(CacheMismatchError, match="copy is the exact archive of a cache, of another one or of this"):
            compact(cache, str(copy), lossy=is_lossy)
    assert tools.content(copy) == tools.content(exact)


@pytest.mark.parametrize("dropping", ["Thumbs.db", "desktop.ini", ".DS_Store"])
def test_what_a_desktop_leaves_in_a_folder_keeps_no_archive_out(finished: Path, tmp_path: Path, dropping: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / dropping).write_bytes(b"a desktop's")
    compact(finished, str(tmp_path / "out"))
    pull(str(tmp_path / "out"), tmp_path / "back")
    assert RegionCache.open(tmp_path / "back").is_complete


def test_a_damaged_shard_of_the_cache_is_not_compacted(finished: Path, tmp_path: Path, tools: Any) -> None:
    cache = Path(shutil.copytree(finished, tmp_path / "cache"))
    tools.flip(shard_path(cache / "visual", 1))
    with pytest.raises(CacheCorruptError, match=r"c\.1\.0 is damaged: .*cache verify .* --repair"):
        compact(cache, str(tmp_path / "archive"))
    assert not (tmp_path / "archive/visual/c.1.0").exists()
