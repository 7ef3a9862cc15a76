import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.errors import EmbeddingError, ProjectionError
from mocha_pipe.teacher_cache.projecting import derive
from mocha_pipe.teacher_cache.projecting.whitening import Moments, exact_device, fit_projection, joint_embedding, whiten
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings
from tests.shared import DEVICE

ASIDE = (0, 33, 34, 84)
OTHERS = np.delete(np.arange(85), ASIDE)


def spoil(rows: tuple[int, ...]) -> Callable[[RegionEmbeddings, int], RegionEmbeddings]:
    def damage(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
        for row in rows:
            if first <= row < first + len(embeddings.visual):
                embeddings.visual[row - first, 1] = np.inf
        return embeddings

    return damage


@pytest.fixture(scope="module")
def holed(source: DetectionSource, helpers: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete cache with four rows set aside, some in each shard; tests only read it."""
    folder = tmp_path_factory.mktemp("holed") / "cache"
    helpers.build(source, folder, helpers.Teacher(damage=spoil(ASIDE)))
    return folder


def teacher_rows(cache: RegionCache, rows: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    return cache.rows("hidden").lookup(rows), cache.rows("visual").lookup(rows)


def test_targets_of_rows_set_aside_are_nan_and_no_others(holed: Path) -> None:
    targets = RegionCache.open(holed).rows("targets").lookup(np.arange(85))
    assert np.isnan(targets[list(ASIDE)]).all()
    assert np.isfinite(targets[OTHERS]).all()


def test_a_device_without_float64_leaves_the_projection_to_the_cpu(
    holed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MPS has none; the error came after hours of embedding."""
    folder = Path(shutil.copytree(holed, tmp_path / "cache"))
    expected = (folder / "projection.safetensors").read_bytes()
    (folder / "projection.safetensors").unlink()
    with ShardClaims(folder) as claims:
        derive.derive_targets(RegionCache.open(folder), claims, None, device="mps", progress=False)
    assert (folder / "projection.safetensors").read_bytes() == expected
    assert [exact_device(name) for name in ("mps", "cpu", "cuda:1")] == ["cpu", "cpu", "cuda:1"]


def test_the_projection_is_that_of_the_other_rows_alone(holed: Path) -> None:
    """Bit by bit that of their moments, and up to rounding that of a plain covariance in numpy."""
    cache = RegionCache.open(holed)
    found = cache.projection()
    moments = Moments(32)
    for start in range(0, 85, 32):
        rows = OTHERS[(start <= OTHERS) & (start + 32 > OTHERS)]
        moments.add(joint_embedding(*map(torch.from_numpy, teacher_rows(cache, rows))))
    expected = fit_projection(moments, hidden_dim=24, dim=8)
    assert found.rows == 81
    for name in ("mean", "components", "eigenvalues"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))

    hidden, visual = (block.astype(np.float64) for block in teacher_rows(cache, OTHERS))
    scale = np.linalg.norm(hidden, axis=1) / np.linalg.norm(visual, axis=1)
    joint = np.concatenate([hidden, visual * scale[:, None]], axis=1)
    np.testing.assert_allclose(found.mean, joint.mean(axis=0), atol=1e-12)
    covariance = np.cov(joint.T)
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(covariance)[::-1], atol=1e-10)
    whitened = found.components @ covariance @ found.components.T / found.eigenvalues[:8, None]
    np.testing.assert_allclose(whitened, np.eye(8), atol=1e-8)


def test_targets_are_the_projection_of_their_rows(holed: Path) -> None:
    cache = RegionCache.open(holed)
    expected = whiten(cache.projection(), *teacher_rows(cache, OTHERS)).astype(np.float16)
    np.testing.assert_array_equal(cache.rows("targets").lookup(OTHERS), expected)


def test_another_dim_is_computed_without_the_teacher_and_keeps_the_holes(
    holed: Path, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    folder = tmp_path / "cache"
    helpers.build(source, folder, helpers.Teacher(damage=spoil(ASIDE)))
    report = helpers.build(source, folder, None, dim=3)
    assert (report.dim, len(report.set_aside), report.embedded) == (3, 4, 0)
    narrow, wide = RegionCache.open(folder), RegionCache.open(holed)
    np.testing.assert_allclose(
        narrow.rows("targets").lookup(OTHERS), wide.rows("targets").lookup(OTHERS)[:, :3], rtol=0, atol=0
    )
    assert np.isnan(narrow.rows("targets").lookup(np.array(ASIDE))).all()


def test_a_shard_without_any_embedding_takes_no_part(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    teacher = helpers.Teacher(damage=spoil(tuple(range(32, 64))))
    helpers.build(source, tmp_path / "cache", teacher)
    cache = RegionCache.open(tmp_path / "cache")
    assert cache.is_complete
    assert cache.projection().rows == 53
    targets = cache.targets()
    assert targets.set_aside.tolist() == list(range(32, 64))
    assert np.isnan(targets.lookup(np.arange(32, 64))).all()
    others = np.r_[0:32, 64:85]
    np.testing.assert_allclose(np.cov(targets.lookup(others).T), np.eye(8), atol=5e-3)


@pytest.mark.parametrize("writes", range(3))
def test_an_interrupted_derivation_goes_on_without_fitting_again(
    holed: Path,
    source: DetectionSource,
    tmp_path: Path,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:
    folder, left, write_shard = tmp_path / "cache", iter(range(writes)), derive.write_shard

    def write(*args: object) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write_shard(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(derive, "write_shard", write)
        with pytest.raises(KeyboardInterrupt):
            helpers.build(source, folder, helpers.Teacher(damage=spoil(ASIDE)))
    assert len(RegionCache.open(folder).rows("targets").missing()) == 3 - writes
    before = {path: path.stat().st_mtime_ns for path in (folder / "targets").glob("c.*")}
    with monkeypatch.context() as patched:
        patched.setattr(derive, "_fit", None)
        helpers.build(source, folder, None)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert helpers.file_tree(folder) == helpers.file_tree(holed)


def test_targets_of_an_older_projection_are_replaced(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    """A projection was written and then the process died: its targets are still those of the one before."""
    helpers.build(source, tmp_path / "direct", helpers.Teacher(), dim=3)
    helpers.build(source, tmp_path / "cache", helpers.Teacher())
    projection = (tmp_path / "direct" / "projection.safetensors").read_bytes()
    (tmp_path / "cache" / "projection.safetensors").write_bytes(projection)
    assert not RegionCache.open(tmp_path / "cache").is_complete
    helpers.build(source, tmp_path / "cache", None)
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(tmp_path / "direct")


def test_a_complete_cache_is_left_without_waiting_for_the_lock(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = ShardClaims(finished)
    monkeypatch.setattr(claims, "deriving", None)
    derive.derive_targets(RegionCache.open(finished), claims, None, device=DEVICE, progress=False)
    derive.derive_targets(RegionCache.open(finished), claims, 8, device=DEVICE, progress=False)


def test_what_another_build_derived_meanwhile_stays(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was missing before the lock was ours, and is there when it is."""
    folder = tmp_path / "cache"
    helpers.build(source, folder, helpers.Teacher(), part=(0, 2))
    helpers.build(source, folder, helpers.Teacher(), part=(1, 2))
    for path in folder.glob("targets/c.*"):
        path.unlink()
    late = RegionCache.open(folder)
    claims = ShardClaims(folder)

    @contextmanager
    def deriving() -> Iterator[None]:
        helpers.build(source, folder, None)
        monkeypatch.setattr(derive, "write_shard", None)
        monkeypatch.setattr(derive, "_fit", None)
        yield

    monkeypatch.setattr(claims, "deriving", deriving)
    derive.derive_targets(late, claims, None, device=DEVICE, progress=False)
    assert helpers.file_tree(folder) == helpers.file_tree(finished)


def test_targets_beyond_float16_are_refused(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive, "whiten", lambda projection, hidden, _: np.full((len(hidden), projection.dim), -7e4))
    with pytest.raises(EmbeddingError) as caught:
        helpers.build(source, tmp_path / "cache", helpers.Teacher())
    assert str(caught.value) == (
        "targets must be at most 65504 in size; found 7e+04; the regions hardly vary in 8 directions: ask for fewer "
        "with --dim"
    )


def test_a_width_that_the_other_rows_do_not_allow(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    """Rows that were set aside do not count."""
    teacher = helpers.Teacher(damage=spoil(tuple(range(4, 85))))
    with pytest.raises(ProjectionError, match=r"asked for 8, but the 4 regions vary in 3; pass --dim 3 or less$"):
        helpers.build(source, tmp_path / "cache", teacher, dim=8)
