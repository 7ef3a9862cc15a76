"""A teacher that gives `visual` and no `hidden`: every step of a cache, from the first shard to a copy elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.build import BuildReport
from mocha_pipe.teacher_cache.checking.audit import audit_cache
from mocha_pipe.teacher_cache.checking.mending import remove_faults
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.errors import CacheIncompleteError, CacheMismatchError
from mocha_pipe.teacher_cache.projecting.derive import derive_targets
from mocha_pipe.teacher_cache.sharing import list_caches, merge, mirror, pull, push
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.store.layout import shard_path
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings
from tests.shared import DEVICE

Build = Callable[..., BuildReport]


@pytest.fixture(scope="module")
def teacher(helpers: SimpleNamespace) -> Any:
    spec = replace(
        helpers.spec, mode="visual", prompt="", hidden_dim=0, visual_dim=12, sees="the whole crop, 16 x 16 pixels"
    )
    return helpers.Teacher(spec=spec)


@pytest.fixture(scope="module")
def made(
    source: DetectionSource, helpers: SimpleNamespace, teacher: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A complete cache; tests only read it."""
    folder = tmp_path_factory.mktemp("visual") / "cache"
    helpers.build(source, folder, teacher, dim=6)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    pull(str(made), tmp_path / "copied")
    return tmp_path / "copied"


def arrays_of(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/zarr.json")}


def shards_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/c.*")}


def test_there_is_no_hidden_array(made: Path) -> None:
    assert arrays_of(made) == {"visual", "targets"}
    cache = RegionCache.open(made)
    assert cache.is_complete
    assert (cache.spec.mode, cache.spec.sees) == ("visual", "the whole crop, 16 x 16 pixels")
    info = cache.info()
    assert set(info["arrays"]) == {"visual", "targets"}
    assert info["complete"]
    with pytest.raises(CacheIncompleteError) as caught:
        cache.rows("hidden")
    assert str(caught.value) == (
        f"the teacher of cache {made} gives the array 'visual' alone; asked for 'hidden'; build another cache "
        "with a LLaVA: mocha-pipe cache build --teacher llava-hf/llava-1.5-7b-hf"
    )


def test_targets_are_the_whitened_visual_embedding(made: Path) -> None:
    cache = RegionCache.open(made)
    rows = np.arange(85)
    visual = cache.rows("visual").lookup(rows).astype(np.float64)
    centred = visual - visual.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:6]
    directions *= np.sign(directions[np.arange(6), np.abs(directions).argmax(axis=1)])[:, None]
    expected = centred @ directions.T / (singular[:6] / np.sqrt(84))
    np.testing.assert_allclose(cache.targets().lookup(rows), expected, atol=4e-3)
    assert cache.projection().hidden_dim == 0


def test_a_stopped_build_goes_on(
    copied: Path, made: Path, source: DetectionSource, helpers: SimpleNamespace, teacher: Any
) -> None:
    shard_path(copied / "visual", 1).unlink()
    shard_path(copied / "targets", 1).unlink()
    assert RegionCache.open(copied).missing_teacher_shards() == (1,)
    assert helpers.build(source, copied, teacher).embedded == 32
    assert shards_of(copied) == shards_of(made)
    assert helpers.build(source, copied, None, spec=teacher.spec).embedded == 0


def test_what_is_not_finite_is_set_aside_and_tried_again(
    source: DetectionSource, helpers: SimpleNamespace, teacher: Any, made: Path, tmp_path: Path
) -> None:
    def damage(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
        rows = first + np.arange(len(embeddings.visual))
        return RegionEmbeddings(embeddings.hidden, np.where(rows[:, None] == 7, np.nan, embeddings.visual))

    report = helpers.build(source, tmp_path / "c", replace(teacher, damage=damage, calls=[]), dim=6)
    assert [(region.row, region.reason) for region in report.set_aside] == [
        (7, "an embedding must fit float16; 'visual' is nan at feature 0")
    ]
    assert np.isnan(RegionCache.open(tmp_path / "c").targets().lookup(np.array([7]))).all()
    assert verify_cache(tmp_path / "c").findings == ()
    assert helpers.build(source, tmp_path / "c", teacher, retry_failed=True).set_aside == ()
    again, whole = RegionCache.open(tmp_path / "c"), RegionCache.open(made)
    np.testing.assert_array_equal(again.rows("visual").block(0, 85), whole.rows("visual").block(0, 85))


def test_verify_finds_and_repairs(
    copied: Path, made: Path, source: DetectionSource, helpers: SimpleNamespace, teacher: Any
) -> None:
    report = verify_cache(copied)
    assert (report.findings, report.arrays) == ((), {"visual": 3, "targets": 3})
    path = shard_path(copied / "visual", 2)
    path.write_bytes(path.read_bytes()[:-1])
    report = verify_cache(copied)
    assert [finding.file for finding in report.findings] == ["visual/c.2.0"]
    removed = remove_faults(copied, report)
    assert sorted(str(path.relative_to(copied)) for path in removed) == ["targets/c.2.0", "visual/c.2.0"]
    assert helpers.build(source, copied, teacher).embedded == 21
    assert shards_of(copied) == shards_of(made)


def test_audit_compares_the_one_array(made: Path, source: DetectionSource, teacher: Any) -> None:
    report = audit_cache(RegionCache.open(made), source, teacher, rows=20)
    assert report.ok
    assert set(report.arrays) == {"visual"}
    assert report.arrays["visual"].least_cosine == pytest.approx(1, abs=1e-12)


def test_rows_are_reused_from_a_cache_of_the_same_teacher(
    made: Path, finished: Path, source: DetectionSource, helpers: SimpleNamespace, teacher: Any, tmp_path: Path
) -> None:
    fewer = replace(source, records=source.records[:20])
    report = helpers.build(fewer, tmp_path / "new", None, spec=teacher.spec, reuse=[made], dim=6)
    assert (report.embedded, report.reused) == (0, len(RegionTable.build(fewer)))
    with pytest.raises(CacheMismatchError, match=r"mode differs: cache has 'prompt', expected 'visual'"):
        helpers.build(source, tmp_path / "other", teacher, reuse=[finished])


def test_it_travels(made: Path, tmp_path: Path) -> None:
    place = f"memory://visual/{tmp_path.name}"
    sent = push(made, place)
    assert (sent.files, sent.shards_missing) == (12, 0)
    assert push(made, place).files == 0
    assert pull(place, tmp_path / "copy").files == 12
    assert shards_of(tmp_path / "copy") == shards_of(made)
    assert arrays_of(tmp_path / "copy") == {"visual", "targets"}
    [found] = list_caches(place)
    assert (found.mode, found.done, found.usable, found.complete) == ("visual", {"visual": 3, "targets": 3}, True, True)
    assert pull(place, tmp_path / "targets", targets_only=True).shards_missing == 0
    assert set(shards_of(tmp_path / "targets")) == {f"targets/c.{shard}.0" for shard in range(3)}
    assert len(RegionCache.open(mirror(place, tmp_path / "mirrors")).targets()) == 85


def test_parts_merge(
    made: Path, source: DetectionSource, helpers: SimpleNamespace, teacher: Any, tmp_path: Path
) -> None:
    for index in (0, 1):
        helpers.build(source, tmp_path / f"part{index}", teacher, part=(index, 2), dim=6)
    report = merge(tmp_path / "whole", [str(tmp_path / "part0"), str(tmp_path / "part1")])
    assert report.shards_missing == 0
    with ShardClaims(tmp_path / "whole") as claims:
        derive_targets(RegionCache.open(tmp_path / "whole"), claims, 6, device=DEVICE, progress=False)
    assert shards_of(tmp_path / "whole") == shards_of(made)


def test_a_cache_of_another_kind_of_teacher_is_no_place_for_it(
    finished: Path, source: DetectionSource, helpers: SimpleNamespace, teacher: Any, made: Path
) -> None:
    with pytest.raises(CacheMismatchError, match=r"mode differs: cache has 'prompt', expected 'visual'"):
        helpers.build(source, finished, teacher)
    with pytest.raises(CacheMismatchError, match=r"holds another cache than"):
        push(made, str(finished))
