import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building import embed, feed
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheFormatError,
    CacheMismatchError,
    ProjectionError,
)
from mocha_pipe.teacher_cache.projecting import derive
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import done_shards, shard_path
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A complete cache to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "cache"))


def test_every_row_holds_its_region(finished: Path, helpers: SimpleNamespace, source: DetectionSource) -> None:
    """Equals a plain loop over images and boxes."""
    from mocha_pipe.data.images import read_image

    hidden, visual, teacher = [], [], helpers.Teacher()
    for record in source.records:
        pixels = read_image(record.path)
        for box, class_id in zip(record.xyxy, record.class_ids, strict=True):
            crop = cut_crop(pixels, box, teacher.spec.crop_margin, teacher.spec.crop_size)
            embeddings = teacher.embed([crop], [source.class_names[class_id]])
            hidden.append(embeddings.hidden[0].astype(np.float16))
            visual.append(embeddings.visual[0].astype(np.float16))
    cache = RegionCache.open(finished)
    np.testing.assert_array_equal(cache.rows("hidden").lookup(np.arange(85)), np.stack(hidden))
    np.testing.assert_array_equal(cache.rows("visual").lookup(np.arange(85)), np.stack(visual))


def test_targets_are_white(finished: Path) -> None:
    values = RegionCache.open(finished).targets().lookup(np.arange(85))
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=2e-3)
    np.testing.assert_allclose(np.cov(values.T), np.eye(8), atol=5e-3)


def test_report(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    teacher = helpers.Teacher()
    report = helpers.build(source, tmp_path / "new" / "cache", teacher, batch=20)
    assert (report.rows, report.shards, report.computed_shards, report.skipped_shards, report.dim) == (85, 3, 3, 0, 8)
    assert report.bytes == RegionCache.open(tmp_path / "new" / "cache").info()["bytes"]
    assert report.seconds > 0
    assert teacher.calls == [32, 32, 21]


def test_equal_input_gives_equal_bytes(
    finished: Path, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    helpers.build(source, tmp_path / "cache", helpers.Teacher())
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(finished)
    assert sorted(helpers.file_tree(finished)) == sorted(
        ["zarr.json", "images.parquet", "regions.parquet", "projection.safetensors", "build.lock"]
        + [
            f"{name}/{file}"
            for name in ("hidden", "visual", "targets")
            for file in ("zarr.json", "c.0.0", "c.1.0", "c.2.0")
        ]
    )


def modification_times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_complete_cache_loads_and_computes_nothing(
    copied: Path, source: DetectionSource, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = modification_times(copied)
    for module, name in ((derive, "_fit"), (derive, "write_shard"), (embed, "write_shard"), (feed, "read_picture")):
        monkeypatch.setattr(module, name, None)
    for dim in (None, 8):
        report = helpers.build(source, copied, None, dim=dim, rows_per_shard=None)
        assert (report.computed_shards, report.skipped_shards, report.dim) == (0, 3, 8)
    assert modification_times(copied) == before


def test_only_missing_shards_are_embedded(
    finished: Path, copied: Path, source: DetectionSource, helpers: SimpleNamespace
) -> None:
    shard_path(copied / "hidden", 1).unlink()
    shard_path(copied / "visual", 2).unlink()
    teacher = helpers.Teacher()
    report = helpers.build(source, copied, teacher, batch=64)
    assert teacher.calls == [32, 21]
    assert (report.computed_shards, report.skipped_shards) == (2, 1)
    assert helpers.file_tree(copied) == helpers.file_tree(finished)


def test_other_dim_needs_no_teacher(
    copied: Path, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    embedded = {
        path: time for path, time in modification_times(copied).items() if "hidden/" in path or "visual/" in path
    }
    report = helpers.build(source, copied, None, dim=3)
    assert report.dim == 3
    cache = RegionCache.open(copied)
    assert cache.is_complete
    assert (cache.targets().dim, cache.projection().dim) == (3, 3)
    assert {path: modification_times(copied)[path] for path in embedded} == embedded
    helpers.build(source, tmp_path / "direct", helpers.Teacher(), dim=3)
    assert helpers.file_tree(copied) == helpers.file_tree(tmp_path / "direct")


def test_without_a_dim_the_present_one_stays(copied: Path, source: DetectionSource, helpers: SimpleNamespace) -> None:
    helpers.build(source, copied, None, dim=3)
    shard_path(copied / "targets", 0).unlink()
    assert helpers.build(source, copied, None).dim == 3
    assert RegionCache.open(copied).is_complete


def interrupted_after(writes: int) -> Callable[..., None]:
    """`write_shard` that is interrupted instead of writing once too often."""
    original, count = embed.write_shard, iter(range(writes))

    def write(*args: object) -> None:
        if next(count, None) is None:
            raise KeyboardInterrupt
        original(*args)  # type: ignore[arg-type]

    return write


@pytest.mark.parametrize("writes", [0, 1, 4, 5, 7])
def test_resumes_after_an_interruption_anywhere(
    finished: Path,
    source: DetectionSource,
    tmp_path: Path,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:
    folder = tmp_path / "cache"
    with monkeypatch.context() as patched:
        write = interrupted_after(writes)
        patched.setattr(embed, "write_shard", write)
        patched.setattr(derive, "write_shard", write)
        with pytest.raises(KeyboardInterrupt):
            helpers.build(source, folder, helpers.Teacher())
    done = done_shards(folder / "hidden") & done_shards(folder / "visual")
    report = helpers.build(source, folder, helpers.Teacher() if writes < 6 else None)
    assert (report.skipped_shards, report.computed_shards) == (len(done), 3 - len(done))
    assert len(done) == min(writes // 2, 3)
    assert helpers.file_tree(folder) == helpers.file_tree(finished)


@pytest.mark.parametrize("stop_at", ["remove_array", "create_array_atomically"])
def test_resumes_a_change_of_dim(
    copied: Path,
    source: DetectionSource,
    tmp_path: Path,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: str,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(derive, stop_at, interrupt)
        with pytest.raises(KeyboardInterrupt):
            helpers.build(source, copied, None, dim=3)
    assert not RegionCache.open(copied).is_complete
    assert helpers.build(source, copied, None).dim == 3
    helpers.build(source, tmp_path / "direct", helpers.Teacher(), dim=3)
    assert helpers.file_tree(copied) == helpers.file_tree(tmp_path / "direct")


def test_an_image_is_decoded_once_per_shard(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    read_picture = feed.read_picture
    monkeypatch.setattr(feed, "read_picture", lambda path: decoded.append(path.name) or read_picture(path))
    helpers.build(source, tmp_path / "cache", helpers.Teacher(), rows_per_shard=96)
    assert sorted(decoded) == [record.name for record in source.records if len(record.class_ids)]


def test_another_teacher_is_refused_before_it_is_loaded(
    copied: Path, source: DetectionSource, helpers: SimpleNamespace
) -> None:
    shard_path(copied / "hidden", 0).unlink()
    before = modification_times(copied)
    with pytest.raises(
        CacheMismatchError,
        match=r"num_beams differs: cache has 1, expected 4; name another folder with --cache, and copy",
    ):
        helpers.build(source, copied, None, spec=replace(helpers.spec, num_beams=4))
    assert modification_times(copied) == before


def test_other_regions_are_refused(copied: Path, tmp_path: Path, helpers: SimpleNamespace) -> None:
    other = helpers.make_source(tmp_path / "images", seed=1)
    with pytest.raises(
        CacheMismatchError, match=r"26 images changed \(cache has 85 regions, expected 85\); name another"
    ):
        helpers.build(other, copied, None)


def test_renamed_images_are_the_same_regions(copied: Path, tmp_path: Path, helpers: SimpleNamespace) -> None:
    """Keys hold the content of an image and no name, so a data set may move; its own names find the files."""
    source = helpers.make_source(tmp_path / "images")
    (tmp_path / "moved").mkdir()
    records = []
    for record in source.records:
        name = f"new-{record.name}"
        path = record.path.rename(tmp_path / "moved" / name)
        records.append(replace(record, path=path, name=name))
    shard_path(copied / "hidden", 0).unlink()
    report = helpers.build(replace(source, records=tuple(records)), copied, helpers.Teacher())
    assert report.computed_shards == 1


def test_teacher_that_is_not_what_was_named(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    teacher = helpers.Teacher(spec=replace(helpers.spec, revision="beef"))
    with pytest.raises(CacheMismatchError) as caught:
        helpers.build(source, tmp_path / "cache", teacher, spec=helpers.spec)
    assert str(caught.value) == (
        f"cache {tmp_path / 'cache'} was made by another teacher than the one loaded: "
        "revision differs: cache has '0123abcd', expected 'beef'; name another folder with --cache"
    )


def test_largest_float16_is_kept(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    def damage(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
        embeddings.visual[:, 0] = -65504
        return embeddings

    helpers.build(source, tmp_path / "cache", helpers.Teacher(damage=damage))
    rows = RegionCache.open(tmp_path / "cache").rows("visual").lookup(np.arange(85))
    assert (rows[:, 0] == -65504).all()


def test_no_regions(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images", images=1)
    with pytest.raises(DatasetError) as caught:
        helpers.build(source, tmp_path / "cache", None)
    assert str(caught.value) == (
        f"a teacher cache needs 2 or more different regions; {tmp_path / 'images'} has none; draw more boxes, or pass "
        "other data: --data"
    )
    assert not (tmp_path / "cache").exists()


def test_one_region_is_refused_before_the_teacher_is_paid(
    tmp_path: Path, source: DetectionSource, helpers: SimpleNamespace
) -> None:
    """No projection can be made of it, which would show only after the teacher has run."""
    record = next(record for record in source.records if len(record.class_ids))
    one = replace(record, xyxy=record.xyxy[[0, 0]], class_ids=record.class_ids[[0, 0]])  # the same box twice
    with pytest.raises(DatasetError, match=r"^a teacher cache needs 2 or more different regions; .+ has 1; draw more"):
        helpers.build(replace(source, records=(one,)), tmp_path / "cache", None)
    assert not (tmp_path / "cache").exists()


def test_one_region_that_can_be_read_is_refused_before_the_teacher_is_paid(
    tmp_path: Path, source: DetectionSource, helpers: SimpleNamespace
) -> None:
    first, second = [record for record in source.records if len(record.class_ids)][:2]
    one = replace(first, xyxy=first.xyxy[:1], class_ids=first.class_ids[:1])
    other = replace(second, xyxy=second.xyxy[:1], class_ids=second.class_ids[:1], readable=False)
    with pytest.raises(DatasetError, match=r" has 1 in images that can be read, of 2; draw more boxes, or"):
        helpers.build(replace(source, records=(one, other)), tmp_path / "cache", None)
    assert not (tmp_path / "cache").exists()


def test_dim_below_one(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    with pytest.raises(ProjectionError) as caught:
        helpers.build(source, tmp_path / "cache", None, dim=0)
    assert str(caught.value) == "targets need at least one dimension; asked for 0; pass --dim 1 or more"


def test_too_large_dim_keeps_the_embeddings(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    with pytest.raises(ProjectionError, match=r"asked for 33, but the 85 regions vary in 32; pass --dim 32 or less$"):
        helpers.build(source, tmp_path / "cache", helpers.Teacher(), dim=33)
    assert helpers.build(source, tmp_path / "cache", None, dim=32).dim == 32


def test_folder_of_somebody_else_is_left_alone(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("precious")
    (tmp_path / "thesis" / ".thesis.partial.tex").write_text("precious")  # looks like a file that a killed build left
    os.utime(tmp_path / "thesis" / ".thesis.partial.tex", (0, 0))
    (tmp_path / "file").write_text("precious")
    for name in ("thesis", "file"):
        with pytest.raises(CacheFormatError, match=f"{name} holds something else than a teacher cache; name another"):
            helpers.build(source, tmp_path / name, None)
    names = ("thesis/thesis.tex", "thesis/.thesis.partial.tex", "file")
    assert helpers.file_tree(tmp_path) == dict.fromkeys(names, b"precious")


def test_damaged_shard_stops_the_projection(copied: Path, source: DetectionSource, helpers: SimpleNamespace) -> None:
    path = shard_path(copied / "visual", 1)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(
        CacheCorruptError, match=r"visual/c\.1\.0 is damaged: .*; run `mocha-pipe cache verify .* --repair --data DATA`"
    ):
        helpers.build(source, copied, None, dim=3)
    path.write_bytes(content[:-1])
    assert RegionCache.open(copied).missing_teacher_shards() == (1,), "a file that was cut counts as none"
    assert helpers.build(source, copied, helpers.Teacher(), dim=3).computed_shards == 1
    assert path.read_bytes() == content


def test_old_temporaries_are_swept(copied: Path, source: DetectionSource, helpers: SimpleNamespace) -> None:
    stale = copied / "hidden" / ".c.0.99-00ff00ff.partial.0"
    stale.write_bytes(b"half a shard")
    os.utime(stale, (0, 0))
    helpers.build(source, copied, None)
    assert not stale.exists()


def test_progress_counts_regions(
    copied: Path, source: DetectionSource, helpers: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    shard_path(copied / "hidden", 1).unlink()
    helpers.build(source, copied, helpers.Teacher(), progress=True)
    shown = capfd.readouterr().err
    assert "teacher" in shown
    assert "53/85" in shown
    assert "85/85" in shown
