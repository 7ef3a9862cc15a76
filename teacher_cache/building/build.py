"""build_cache: the teacher looks at every region once; what is already in the cache is left alone.

    missing shards -> crops -> teacher -> (`hidden`,) `visual` -> moments -> projection.safetensors -> `targets`

Every arrow resumes: a shard file exists exactly when it is complete. Several builds of one cache at once share its
shards (store/claims.py, shard_order.py). The build that sees the last one done derives the targets. A complete cache
loads no teacher.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from mocha_pipe.data.files import finish_filling, is_vacant
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.embed import ShardEmbedder
from mocha_pipe.teacher_cache.building.forecast import Forecast, Tally
from mocha_pipe.teacher_cache.building.reuse import Donor
from mocha_pipe.teacher_cache.building.shard_order import (
    Part,
    check_regions,
    claimed_shards,
    pending_shards,
    rows_to_embed,
)
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError, ProjectionError, TeacherError
from mocha_pipe.teacher_cache.projecting.derive import derive_targets
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION
from mocha_pipe.teacher_cache.store.cache import RegionCache, folder_bytes
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.store.consolidated import consolidate
from mocha_pipe.teacher_cache.store.disk import disk_errors
from mocha_pipe.teacher_cache.store.layout import ShardPlan, create_group, sweep_stale
from mocha_pipe.teacher_cache.store.quarantine import SetAside
from mocha_pipe.teacher_cache.teachers.base import Teacher

Engine = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """What one call of `build_cache` did."""

    rows: int
    """Regions in the cache."""
    shards: int
    """Shards of an array."""
    computed_shards: int
    """Shards written in this call."""
    skipped_shards: int
    """Shards that were there before, or that other builds wrote meanwhile."""
    missing_shards: int
    """Shards left to the other parts of a divided build."""
    embedded: int
    """Regions that the teacher looked at in this call."""
    reused: int
    """Regions copied from other caches."""
    duplicates: int
    """Regions copied from an equal region of this cache."""
    set_aside: tuple[SetAside, ...]
    """All regions of the cache that have no embedding, and why."""
    seconds: float
    """Wall time of the call."""
    forecast: Forecast | None
    """For the regions that the teacher looked at, made after its first windows; None where there were too few."""
    embedding_seconds: float
    """What the forecast turned out to be."""
    bytes: int
    """Size of the cache's folder."""
    dim: int | None
    """Width of a target; None while shards are missing."""


def build_cache(
    source: DetectionSource,
    table: RegionTable,
    folder: Path,
    *,
    spec: TeacherSpec,
    load_teacher: Callable[[], Teacher],
    dim: int | None = None,
    batch: int = 16,
    device: str = "cpu",
    rows_per_shard: int | None = None,
    reuse: Sequence[Path] = (),
    part: Part | None = None,
    retry_failed: bool = False,
    engine: Engine = "local",
    progress: bool = False,
) -> BuildReport:
    """Make a cache, or complete one.

    Args:
        source: the images that the table was built from.
        table: the regions, one row each.
        folder: the cache's folder; made where missing.
        spec: what `load_teacher` will load; compared with the cache's before anything is computed.
        load_teacher: called at most once, and only when a region needs it.
        dim: width of a target. None keeps the cache's, or takes `default_dim` for a new one; another width than the
            cache's computes projection and targets again, without the teacher.
        batch: crops per forward pass.
        device: torch device for the covariance and its eigenvectors.
        rows_per_shard: S of a new cache; None follows its size. An existing cache keeps its own.
        reuse: other caches of the same teacher; rows with equal keys are copied from them.
        part: do only these shards, and wait for nobody. None does what no other build is at, until all is done.
        retry_failed: first try again the regions that were set aside.
        engine: `local` embeds in this process, `ray` on the workers of a Ray cluster.
        progress: show bars over the regions.

    Raises:
        DatasetError: there are fewer than two different regions.
        DatasetNotFoundError: an image is gone. Shards written before stay.
        CacheMismatchError: the folder holds another teacher's embeddings, or other regions.
        CacheFormatError: the folder holds something else, or an array that another program laid out anew lacks a shard.
        CacheCorruptError: a shard that is needed is damaged.
        CacheWriteError: the disk failed. Shards written before stay.
        EmbeddingError: the teacher returned nothing that float16 can hold.
        ProjectionError: the embeddings vary in fewer than `dim` directions.
    """
    started = time.perf_counter()
    check_regions(source, table)
    if dim is not None and dim < 1:
        raise ProjectionError(f"targets need at least one dimension; asked for {dim}; pass --dim 1 or more")
    assert tuple(record.name for record in source.records) == table.image_names, "the table is of another source"
    tally = Tally()
    missing: tuple[int, ...] = ()
    with disk_errors(folder):
        donors = [Donor(other, spec) for other in reuse]
        cache = open_or_create(folder, table, spec, rows_per_shard)
        is_wanted = retry_failed and bool(cache.quarantine())
        if is_wanted or not cache.is_complete or dim not in (None, cache.rows("targets").dim):
            cache.require_own_layout()
            with ShardClaims(folder) as claims, _bar(cache, part, progress) as bar:
                inputs = cache, source, table, load_teacher
                with ShardEmbedder(*inputs, donors=donors, batch=batch, on_rows=bar.update) as embedder:
                    if retry_failed:
                        _retry(cache, claims, embedder)
                    if engine == "ray":
                        tally = _ray_engine()(*inputs, reuse=reuse, batch=batch, bar=bar)
                    else:
                        to_embed = rows_to_embed(cache, table, part, donors)
                        _embed_missing(cache, table, claims, embedder, part, to_embed, bar)
                tally.add(embedder.tally)
                bar.close()
                missing = cache.missing_teacher_shards()  # once: another part may write its last shard at any time
                if not missing:
                    derive_targets(cache, claims, dim, device=device, progress=progress)
        # A complete cache may be one that nobody can write, or another program laid it out anew.
        with contextlib.suppress(OSError, CacheFormatError, CacheCorruptError):
            cache.require_own_layout()
            consolidate(folder)
    return BuildReport(
        rows=len(table),
        shards=len(cache.plan),
        computed_shards=tally.shards,
        skipped_shards=len(cache.plan) - len(missing) - tally.shards,
        missing_shards=len(missing),
        embedded=tally.embedded,
        reused=tally.reused,
        duplicates=tally.duplicates,
        set_aside=cache.quarantine(),
        seconds=time.perf_counter() - started,
        forecast=tally.forecast(tally.embedded),
        embedding_seconds=sum(seconds for _, seconds in tally.windows),
        bytes=folder_bytes(folder),
        dim=None if missing else cache.rows("targets").dim,
    )


def open_or_create(
    folder: Path, table: RegionTable, spec: TeacherSpec, rows_per_shard: int | None = None
) -> RegionCache:
    """The cache of these regions and this teacher in `folder`, made where there is nothing yet.

    Raises:
        CacheMismatchError, CacheFormatError, CacheCorruptError: as `RegionCache.open`.
    """
    finish_filling(folder, DESCRIPTION)
    if is_vacant(folder):
        create_group(folder, plan=ShardPlan.for_rows(len(table), rows_per_shard), spec=spec, table=table)
    cache = RegionCache.open(folder, expect_spec=spec, expect_table=table)
    sweep_stale(folder)  # only now, as another program's temporary files in another folder are not ours to remove
    return cache


def _embed_missing(
    cache: RegionCache,
    table: RegionTable,
    claims: ShardClaims,
    embedder: ShardEmbedder,
    part: Part | None,
    to_embed: int,
    bar: "tqdm[Any]",
) -> None:
    """Embed shard after shard, the next one begun before the last is finished."""
    begun, is_announced = None, False
    for shard in claimed_shards(
        cache, table, claims, part, lambda shards: bar.set_postfix_str(f"waiting for {shards} shards of other builds")
    ):
        work = None if shard is None else embedder.begin(shard)
        if begun:
            embedder.finish(begun)
            claims.release(begun.shard)
            forecast = embedder.tally.forecast(to_embed)
            if forecast and not is_announced:
                bar.write(f"teacher: forecast {forecast} for {to_embed} regions", file=sys.stderr)
                is_announced = True
        begun = work


def _ray_engine() -> Callable[..., Tally]:
    try:
        from mocha_pipe.teacher_cache.building.ray_engine import embed_on_ray
    except ModuleNotFoundError as error:
        raise TeacherError(
            f"--engine ray needs the package ray, which is not installed ({error.name}); "
            "install it with: pip install 'mocha-pipe[ray]'"
        ) from None
    return embed_on_ray


def _retry(cache: RegionCache, claims: ShardClaims, embedder: ShardEmbedder) -> None:
    """Try again what was set aside; a shard that another build is at is left to it, one not written to this one."""
    for shard in sorted({region.row // cache.plan.rows_per_shard for region in cache.quarantine()}):
        if cache.has_teacher_shard(shard) and claims.take(shard):
            embedder.retry(shard, claims.deriving)
            claims.release(shard)


def _bar(cache: RegionCache, part: Part | None, progress: bool) -> "tqdm[Any]":
    """A bar over the regions, or those of a part, that starts behind what is there."""
    index, count = part or (0, 1)
    total = _num_rows(cache, range(index, len(cache.plan), count))
    done = total - _num_rows(cache, pending_shards(cache, part))
    return tqdm(total=total, initial=done, desc="teacher", unit="region", disable=not progress)


def _num_rows(cache: RegionCache, shards: Iterable[int]) -> int:
    return sum(stop - start for start, stop in map(cache.plan.span, shards))
