import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mocha_pipe.data.errors import DatasetError, MochaError
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.checking.audit import LEAST_COSINE, AuditReport, audit_cache
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.errors import CacheIncompleteError, CacheMismatchError
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import ShardPlan, encode_shard, shard_path
from mocha_pipe.teacher_cache.store.reader import ShardRows
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings

PLAN = ShardPlan(85, 32)
ALL = 1000


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A complete cache to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "cache"))


@pytest.fixture
def audit(source: DetectionSource, helpers: SimpleNamespace) -> Callable[..., AuditReport]:
    """audit(folder, teacher=None, **options)"""

    def run(folder: Path, teacher: Any = None, **options: Any) -> AuditReport:
        return audit_cache(RegionCache.open(folder), source, teacher or helpers.Teacher(), **options)

    return run


def live_rows(source: DetectionSource, helpers: SimpleNamespace) -> dict[str, NDArray[np.float64]]:
    """All regions by a plain loop, rounded as the cache rounds."""
    from mocha_pipe.data.images import read_image
    from mocha_pipe.teacher_cache.crops import cut_crop

    teacher, blocks = helpers.Teacher(), []
    for record in source.records:
        for box, class_id in zip(record.xyxy, record.class_ids, strict=True):
            crop = cut_crop(read_image(record.path), box, teacher.spec.crop_margin, teacher.spec.crop_size)
            blocks.append(teacher.embed([crop], [source.class_names[class_id]]))
    return {
        name: np.concatenate([getattr(block, name) for block in blocks]).astype(np.float16).astype(np.float64)
        for name in ("hidden", "visual")
    }


def rewrite(folder: Path, name: str, change: Callable[[NDArray[np.float16]], None]) -> None:
    """Sound bytes with other values, which verify cannot tell from right ones."""
    values = ShardRows(folder / name, PLAN).block(0, 85).copy()
    change(values)
    for shard in range(3):
        shard_path(folder / name, shard).write_bytes(encode_shard(values[slice(*PLAN.span(shard))], 32))


def test_a_sound_cache_agrees(finished: Path, audit: Callable[..., AuditReport]) -> None:
    report = audit(finished, rows=40)
    assert report.ok
    assert (report.rows, report.seed, report.least_allowed) == (40, 0, LEAST_COSINE["float32"])
    for found in report.arrays.values():
        assert found.mean_cosine == pytest.approx(1, abs=1e-12)
        assert found.least_cosine == pytest.approx(1, abs=1e-12)
        assert found.max_difference == 0
        assert found.max_relative_difference == 0
    assert set(report.arrays) == {"hidden", "visual"}
    assert [row.cosine for row in report.worst] == pytest.approx([1] * 5)


def test_figures_equal_a_plain_reference(
    copied: Path, source: DetectionSource, helpers: SimpleNamespace, audit: Callable[..., AuditReport]
) -> None:
    noise = np.random.default_rng(1).normal(size=(85, 24))
    rewrite(copied, "hidden", lambda values: values.__iadd__((0.02 * noise).astype(np.float16)))
    report = audit(copied, rows=ALL)
    live, cached = (
        live_rows(source, helpers)["hidden"],
        ShardRows(copied / "hidden", PLAN).block(0, 85).astype(np.float64),
    )
    cosines = [float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in zip(cached, live, strict=True)]
    lengths = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(cached, live, strict=True)]
    found = report.arrays["hidden"]
    assert found.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-12)
    assert found.least_cosine == pytest.approx(min(cosines), abs=1e-12)
    assert found.max_difference == pytest.approx(np.abs(cached - live).max())
    assert found.max_relative_difference == pytest.approx(max(lengths))
    assert report.arrays["visual"].max_difference == 0
    worst = sorted(range(85), key=cosines.__getitem__)[:5]
    assert [row.row for row in report.worst] == worst
    table = RegionCache.open(copied).table
    for row in report.worst:
        assert row.cosine == pytest.approx(cosines[row.row], abs=1e-12)
        assert row.image == source.records[int(table.image_of_rows(np.array([row.row]))[0])].name
        assert row.class_name == source.class_names[table.class_ids[row.row]]


@pytest.mark.parametrize("name", ["hidden", "visual"])
def test_swapped_shards_are_seen_by_the_audit_alone(copied: Path, audit: Callable[..., AuditReport], name: str) -> None:
    first, second = (shard_path(copied / name, shard) for shard in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert verify_cache(copied).findings == ()
    report = audit(copied, rows=20)
    assert not report.ok
    assert report.arrays[name].least_cosine < 0.9
    assert report.arrays[name].max_difference > 0
    other = {"hidden": "visual", "visual": "hidden"}[name]
    assert report.arrays[other].max_difference == 0
    assert report.worst[0].cosine == report.arrays[name].least_cosine


def test_one_wrong_row_fails_the_audit(copied: Path, audit: Callable[..., AuditReport]) -> None:
    rewrite(copied, "visual", lambda values: values.__setitem__(50, values[51]))
    report = audit(copied, rows=ALL)
    assert not report.ok
    assert report.worst[0].row == 50
    assert report.worst[1].cosine == pytest.approx(1)


def test_a_row_of_zeros_agrees_with_nothing(copied: Path, audit: Callable[..., AuditReport]) -> None:
    rewrite(copied, "hidden", lambda values: values.__setitem__(9, 0))
    report = audit(copied, rows=ALL)
    assert (report.worst[0].row, report.worst[0].cosine, report.ok) == (9, 0.0, False)


@pytest.mark.parametrize(("dtype", "ok"), [("float32", False), ("bfloat16", True), ("float16", True)])
def test_a_coarser_number_type_is_given_more_room(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, dtype: str, ok: bool
) -> None:
    """A cosine of about 0.999: too little for the same arithmetic, enough where the last bits differ by machine."""
    spec = replace(helpers.spec, dtype=dtype)
    helpers.build(source, tmp_path / "cache", helpers.Teacher(spec=spec))

    def jitter(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
        noise = np.random.default_rng(first).normal(size=embeddings.hidden.shape)
        scale = 0.04 * np.linalg.norm(embeddings.hidden, axis=1, keepdims=True) / 24**0.5
        return RegionEmbeddings(hidden=(embeddings.hidden + scale * noise).astype(np.float32), visual=embeddings.visual)

    teacher = helpers.Teacher(spec=spec, damage=jitter)
    report = audit_cache(RegionCache.open(tmp_path / "cache"), source, teacher, rows=ALL)
    assert 0.99 < report.arrays["hidden"].least_cosine < 0.9999
    assert report.least_allowed == LEAST_COSINE[dtype]
    assert report.ok == ok


def audited_rows(
    folder: Path, source: DetectionSource, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> list[int]:
    """Which rows an audit computes again."""
    from mocha_pipe.teacher_cache.building.feed import CropFeed

    picked: list[int] = []
    windows = CropFeed.windows
    with monkeypatch.context() as patched:
        patched.setattr(
            CropFeed, "windows", lambda self, rows, size: picked.extend(rows.tolist()) or windows(self, rows, size)
        )
        report = audit_cache(RegionCache.open(folder), source, helpers.Teacher(), **options)
    assert report.rows == len(picked)
    return picked


def test_rows_follow_the_seed(
    finished: Path, source: DetectionSource, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = [audited_rows(finished, source, helpers, monkeypatch, rows=20, seed=seed) for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]
    for draw in draws:
        assert draw == sorted(set(draw))
        assert len(draw) == 20
    seen = {
        row for seed in range(20) for row in audited_rows(finished, source, helpers, monkeypatch, rows=20, seed=seed)
    }
    assert len(seen) > 75


def test_more_rows_than_there_are_is_all_of_them(
    finished: Path, source: DetectionSource, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audited_rows(finished, source, helpers, monkeypatch, rows=ALL) == list(range(85))


def test_rows_that_were_set_aside_are_not_drawn(
    tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = helpers.make_source(tmp_path / "images")
    source.records[20].path.write_bytes(b"no picture")
    helpers.build(source, tmp_path / "cache", helpers.Teacher())
    aside = [region.row for region in RegionCache.open(tmp_path / "cache").quarantine()]
    assert aside == [62, 63, 64, 65]
    picked = audited_rows(tmp_path / "cache", source, helpers, monkeypatch, rows=ALL)
    assert picked == [row for row in range(85) if row not in aside]


def test_another_teacher_is_refused_in_words(
    finished: Path, helpers: SimpleNamespace, audit: Callable[..., Any]
) -> None:
    teacher = helpers.Teacher(spec=replace(helpers.spec, prompt="What is it?", layer=-2))
    with pytest.raises(CacheMismatchError) as caught:
        audit(finished, teacher, rows=3)
    assert str(caught.value) == (
        f"cache {finished} was made by another teacher than the one loaded: "
        "prompt differs: cache has 'Describe the {label}.', expected 'What is it?'; "
        "layer differs: cache has -1, expected -2; name the one that made it with --teacher"
    )
    assert teacher.calls == []


def test_a_missing_shard_is_named(copied: Path, audit: Callable[..., Any]) -> None:
    shard_path(copied / "visual", 2).unlink()
    with pytest.raises(CacheIncompleteError, match=r"^shard 2 of 'visual' \(rows 64 to 84\) is not in the cache"):
        audit(copied, rows=ALL)


def test_a_cache_without_any_embedding_cannot_be_audited(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images")
    for record in source.records:
        record.path.write_bytes(b"no picture")
    with pytest.raises(MochaError):  # no directions for a projection
        helpers.build(source, tmp_path / "cache", helpers.Teacher())
    with pytest.raises(CacheIncompleteError) as caught:
        audit_cache(RegionCache.open(tmp_path / "cache"), source, helpers.Teacher(), rows=3)
    assert str(caught.value) == (
        f"an audit compares embeddings; all 85 regions of {tmp_path / 'cache'} were set aside; "
        "mend the cause and build again with --retry-failed"
    )


def test_an_image_that_broke_since_is_named(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images")
    helpers.build(source, tmp_path / "cache", helpers.Teacher())
    source.records[21].path.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"image021\.png: cannot be read as an image"):
        audit_cache(RegionCache.open(tmp_path / "cache"), source, helpers.Teacher(), rows=ALL)
