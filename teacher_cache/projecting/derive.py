"""What follows from the teacher's arrays: the projection, fitted on all rows, and the targets.

The projection is written before the targets, and the targets name the projection that they belong to; so this resumes
where it was stopped. Rows that were set aside take no part in the fit, and their targets are NaN.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.files import file_digest
from mocha_pipe.teacher_cache.errors import EmbeddingError, mend_advice
from mocha_pipe.teacher_cache.projecting.whitening import Moments, exact_device, fit_projection, joint_embedding, whiten
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME, RegionCache
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.store.consolidated import consolidate
from mocha_pipe.teacher_cache.store.layout import (
    FLOAT16_MAX,
    create_array_atomically,
    remove_array,
    shard_path,
    write_shard,
)
from mocha_pipe.teacher_cache.store.projection import Projection, default_dim
from mocha_pipe.teacher_cache.store.quarantine import require_listed


def derive_targets(cache: RegionCache, claims: ShardClaims, dim: int | None, *, device: str, progress: bool) -> None:
    """Make projection and targets of a cache whose teacher arrays are complete, as far as they are not there.

    Arguments are those of `build_cache`. Others that have claims on this cache wait while this changes anything.

    Raises:
        CacheCorruptError: a shard is damaged, or has rows without numbers that no list names.
        CacheFormatError: another program laid an array out anew.
        ProjectionError: the embeddings vary in fewer than `dim` directions.
        EmbeddingError: a target is beyond float16.
    """
    if cache.is_complete and dim in (None, cache.rows("targets").dim):
        return
    cache.require_own_layout()
    with claims.deriving():
        path = cache.path / PROJECTION_NAME
        projection = cache.projection() if path.is_file() else None
        if dim is None and projection is None and cache.has("targets"):
            dim = cache.rows("targets").dim
        if projection is None or dim not in (None, projection.dim):
            projection = _fit(cache, dim, device=device, progress=progress)
            projection.save(path)
        if cache.has("targets") and not cache.has_current_targets():
            remove_array(cache.path, "targets")
        if not cache.has("targets"):
            attributes = {"projection_digest": file_digest(path)}
            create_array_atomically(cache.path, "targets", cache.plan, projection.dim, attributes)
        consolidate(cache.path)
        missing = cache.rows("targets").missing()
        for shard, hidden, visual in _teacher_blocks(cache, missing, "targets", progress=progress):
            write_shard(cache.path / "targets", cache.plan, shard, _targets(projection, hidden, visual))


def _fit(cache: RegionCache, dim: int | None, *, device: str, progress: bool) -> Projection:
    """Exact moments in one pass over the shards, always in their order, then the projection."""
    device = exact_device(device)
    moments = Moments(sum(cache.spec.arrays.values()), device)
    for _, hidden, visual in _teacher_blocks(cache, tuple(range(len(cache.plan))), "projection", progress=progress):
        is_there = _is_there(hidden, visual)
        if is_there.any():
            hidden_nH, visual_nZ = (torch.from_numpy(block[is_there]).to(device) for block in (hidden, visual))
            moments.add(joint_embedding(hidden_nH, visual_nZ))
    if dim is None:
        dim = default_dim(len(moments.mean_J), moments.count)
    return fit_projection(moments, hidden_dim=cache.spec.hidden_dim, dim=dim)


def _targets(projection: Projection, hidden: NDArray[np.float16], visual: NDArray[np.float16]) -> NDArray[np.float16]:
    is_there = _is_there(hidden, visual)
    targets = np.full((len(hidden), projection.dim), np.nan, np.float16)
    values = whiten(projection, hidden[is_there], visual[is_there])
    if (np.abs(values) > FLOAT16_MAX).any():
        raise EmbeddingError(
            f"targets must be at most {FLOAT16_MAX:.0f} in size; found {np.abs(values).max():.3g}; the regions hardly "
            f"vary in {projection.dim} directions: ask for fewer with --dim"
        )
    targets[is_there] = values
    return targets


def _is_there(hidden: NDArray[np.float16], visual: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Rows that were not set aside; a retry that was killed may have filled only one of their arrays."""
    is_there: NDArray[np.bool_] = ~np.isnan(np.concatenate([hidden[:, :1], visual[:, :1]], axis=1)).any(axis=1)
    return is_there


def _teacher_blocks(
    cache: RegionCache, shards: tuple[int, ...], description: str, *, progress: bool
) -> Iterator[tuple[int, NDArray[np.float16], NDArray[np.float16]]]:
    """Shard number, its rows of `hidden` (of width 0 where there is none) and `visual`; a bar runs over the regions."""
    readers = {name: cache.rows(name) for name in cache.spec.arrays}
    set_aside = [region.row for region in cache.quarantine()]
    spans = [cache.plan.span(shard) for shard in shards]
    total = sum(stop - start for start, stop in spans)
    with tqdm(total=total, desc=description, unit="region", delay=2, disable=not progress) as bar:
        for shard, (start, stop) in zip(shards, spans, strict=True):
            blocks = {name: reader.block(start, stop) for name, reader in readers.items()}
            for name, block in blocks.items():
                file, remedy = shard_path(cache.path / name, shard), mend_advice(cache.path)
                require_listed(block, start, set_aside, file, remedy)
            yield shard, blocks.get("hidden", np.zeros((stop - start, 0), np.float16)), blocks["visual"]
            bar.update(stop - start)
