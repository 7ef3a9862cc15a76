"""Four proofs of the projection: equals a plain reference, repeats bitwise, whitens, and obeys its algebra."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.errors import CacheCorruptError, ProjectionError
from mocha_pipe.teacher_cache.projecting.whitening import Moments, fit_projection, joint_embedding, whiten
from mocha_pipe.teacher_cache.store.projection import Projection, default_dim

ROWS, HIDDEN, VISUAL, DIM = 400, 12, 5, 9


def embeddings(seed: int = 0, rows: int = ROWS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlated, off centre, with very different scales per direction."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(HIDDEN, HIDDEN)) * np.logspace(1, -2, HIDDEN)
    return generator.normal(size=(rows, HIDDEN)) @ mixing + 5, generator.normal(size=(rows, VISUAL)) + 1


def reference_joint(hidden: NDArray[np.float64], visual: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = [
        np.concatenate([h, z * (np.linalg.norm(h) / np.linalg.norm(z))]) for h, z in zip(hidden, visual, strict=True)
    ]
    return np.stack(rows)


def fit(hidden: NDArray[np.float64], visual: NDArray[np.float64], dim: int = DIM, block: int = 64) -> Projection:
    moments = Moments(hidden.shape[1] + visual.shape[1])
    for start in range(0, len(hidden), block):
        part = slice(start, start + block)
        moments.add(joint_embedding(torch.tensor(hidden[part]), torch.tensor(visual[part])))
    return fit_projection(moments, hidden_dim=hidden.shape[1], dim=dim)


def distances(points: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=-1)


def test_joint_embedding_equals_its_formula() -> None:
    hidden, visual = embeddings()
    joint = joint_embedding(torch.tensor(hidden), torch.tensor(visual)).numpy()
    np.testing.assert_allclose(joint, reference_joint(hidden, visual), rtol=1e-14)


def test_joint_embedding_of_an_empty_visual_vector() -> None:
    joint = joint_embedding(torch.ones(1, 3), torch.zeros(1, 2))
    assert joint.tolist() == [[1, 1, 1, 0, 0]]


def test_without_a_hidden_state_the_visual_embedding_stays_as_it_is() -> None:
    visual = torch.tensor(embeddings()[1])
    assert torch.equal(joint_embedding(torch.zeros(ROWS, 0), visual), visual)


def test_equals_pca_by_singular_values() -> None:
    hidden, visual = embeddings()
    joint = reference_joint(hidden, visual)
    centred = joint - joint.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(directions[np.arange(DIM), np.abs(directions[:DIM]).argmax(axis=1)])
    projection = fit(hidden, visual)
    np.testing.assert_allclose(projection.mean, joint.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(projection.eigenvalues, singular**2 / (ROWS - 1), rtol=1e-8)
    np.testing.assert_allclose(projection.components, directions[:DIM] * signs[:, None], atol=1e-9)
    expected = centred @ (directions[:DIM] * signs[:, None]).T / (singular[:DIM] / np.sqrt(ROWS - 1))
    np.testing.assert_allclose(whiten(projection, hidden, visual), expected, atol=1e-6)
    assert projection.explained_variance == pytest.approx((singular[:DIM] ** 2).sum() / (singular**2).sum())


def test_repeats_bitwise(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fit(*embeddings()).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_targets_of_the_training_rows_are_white() -> None:
    hidden, visual = embeddings()
    targets = whiten(fit(hidden, visual), hidden, visual)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(targets.T), np.eye(DIM), atol=1e-5)


def test_order_of_rows_and_size_of_blocks_do_not_matter() -> None:
    hidden, visual = embeddings()
    projection = fit(hidden, visual)
    order = np.random.default_rng(1).permutation(ROWS)
    for other in (fit(hidden[order], visual[order]), fit(hidden, visual, block=7), fit(hidden, visual, block=ROWS)):
        np.testing.assert_allclose(whiten(other, hidden, visual), whiten(projection, hidden, visual), atol=1e-6)
        np.testing.assert_allclose(other.eigenvalues, projection.eigenvalues, rtol=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_distances_survive_rotation_and_scale_of_the_visual_part(seed: int, scale: float) -> None:
    hidden, visual = embeddings(rows=60)
    generator = np.random.default_rng(seed)
    turn_h, turn_z = (np.linalg.qr(generator.normal(size=(size, size)))[0] for size in (HIDDEN, VISUAL))
    turned_hidden, turned_visual = hidden @ turn_h, visual @ turn_z * scale
    turned = whiten(fit(turned_hidden, turned_visual), turned_hidden, turned_visual)
    np.testing.assert_allclose(distances(turned), distances(whiten(fit(hidden, visual), hidden, visual)), atol=1e-4)


def test_distances_survive_a_common_scale() -> None:
    hidden, visual = embeddings()
    targets = whiten(fit(hidden, visual), hidden, visual)
    np.testing.assert_allclose(whiten(fit(hidden * 1000, visual), hidden * 1000, visual), targets, atol=1e-5)


def test_full_width_gives_mahalanobis_distances() -> None:
    hidden, visual = embeddings()
    joint = reference_joint(hidden, visual)
    root = np.linalg.cholesky(np.linalg.inv(np.cov(joint.T)))
    targets = whiten(fit(hidden, visual, dim=HIDDEN + VISUAL), hidden, visual)
    np.testing.assert_allclose(distances(targets), distances(joint @ root), rtol=1e-4, atol=1e-3)


def test_a_far_mean_does_not_cancel() -> None:
    generator = np.random.default_rng(0)
    joint = generator.normal(size=(1000, 4)) + 1e7
    moments = Moments(4)
    for part in np.split(joint, 10):
        moments.add(torch.tensor(part))
    np.testing.assert_allclose(moments.scatter_JJ.numpy() / 999, np.cov(joint.T), atol=1e-7)


def test_smaller_width_is_a_prefix_of_a_larger_one() -> None:
    hidden, visual = embeddings()
    small, large = (whiten(fit(hidden, visual, dim=dim), hidden, visual) for dim in (3, DIM))
    np.testing.assert_allclose(small, large[:, :3], atol=1e-6)


def test_a_row_alone_equals_the_row_in_a_batch() -> None:
    hidden, visual = embeddings()
    projection = fit(hidden, visual)
    alone = np.concatenate([whiten(projection, hidden[row : row + 1], visual[row : row + 1]) for row in range(20)])
    np.testing.assert_allclose(alone, whiten(projection, hidden[:20], visual[:20]), atol=1e-6)


def test_takes_float16_as_it_is_stored() -> None:
    hidden, visual = (values.astype(np.float16) for values in embeddings())
    projection = fit(hidden.astype(np.float64), visual.astype(np.float64))
    wide = whiten(projection, hidden.astype(np.float64), visual.astype(np.float64))
    np.testing.assert_array_equal(whiten(projection, hidden, visual), wide)


@pytest.mark.parametrize(
    ("joint_dim", "rows", "expected"),
    [
        (4608, 10**6, 512),
        (4608, 300, 299),
        (256, 10**5, 64),
        (2048, 10**5, 512),
        (2047, 10**5, 511),
        (3, 9, 1),
        (64, 1, 1),
    ],
)
def test_default_dim(joint_dim: int, rows: int, expected: int) -> None:
    assert default_dim(joint_dim, rows) == expected


def test_more_dimensions_than_rank() -> None:
    with pytest.raises(ProjectionError) as caught:
        fit(*embeddings(rows=6), dim=6)
    assert str(caught.value) == (
        "targets can have at most as many dimensions as the embeddings vary in; asked for 6, "
        "but the 6 regions vary in 5; pass --dim 5 or less"
    )
    assert fit(*embeddings(rows=6), dim=5).dim == 5


def test_more_dimensions_than_width() -> None:
    with pytest.raises(ProjectionError, match=r"asked for 18, but the 400 regions vary in 17; pass --dim 17 or less$"):
        fit(*embeddings(), dim=18)


@pytest.mark.parametrize("rows", [1, 5])
def test_no_variance(rows: int) -> None:
    with pytest.raises(ProjectionError) as caught:
        fit(np.ones((rows, HIDDEN)), np.ones((rows, VISUAL)), dim=1)
    assert str(caught.value) == (
        f"a projection needs at least two different embeddings; the {rows} regions all have the same; "
        "use a data set with more regions: --data"
    )


def test_survives_its_file(tmp_path: Path) -> None:
    hidden, visual = embeddings()
    projection = fit(hidden, visual)
    projection.save(tmp_path / "projection.safetensors")
    again = Projection.load(tmp_path / "projection.safetensors")
    assert (again.dim, again.rows, again.hidden_dim) == (DIM, ROWS, HIDDEN)
    np.testing.assert_array_equal(whiten(again, hidden, visual), whiten(projection, hidden, visual))
    np.testing.assert_array_equal(again.eigenvalues, projection.eigenvalues)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "projection.safetensors"
    fit(*embeddings()).save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CacheCorruptError) as caught:
        Projection.load(path)
    assert str(caught.value).startswith(f"{path} is damaged: ")
    assert str(caught.value).endswith(f"; run `mocha-pipe cache verify {tmp_path} --repair --data DATA`")


def test_other_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"mean": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CacheCorruptError, match=r"is damaged: its format is not 'mocha-pipe projection 1'; run "):
        Projection.load(tmp_path / "other.safetensors")
