"""build_cache: the teacher looks at every region once; what is already in the cache is left alone.

    missing shards -> crops -> teacher -> `hidden`, `visual` -> moments -> projection.safetensors -> `targets`

Every arrow resumes: a shard file exists exactly when it is complete, the projection is written before the targets, and
the targets name the projection that they belong to. A complete cache loads no teacher and computes nothing.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.errors import DatasetError
from data.images import read_image
from data.regions import RegionTable
from data.types import DetectionSource
from teacher_cache.cache import PROJECTION_NAME, RegionCache, file_digest, folder_bytes
from teacher_cache.crops import cut_crop
from teacher_cache.errors import CacheMismatchError, EmbeddingError, ProjectionError
from teacher_cache.layout import (
    TEACHER_ARRAYS,
    ShardPlan,
    create_array_atomically,
    create_group,
    exclusive,
    remove_array,
    sweep_stale,
    write_shard,
)
from teacher_cache.projection import Moments, Projection, default_dim, joint_embedding
from teacher_cache.spec import TeacherSpec
from teacher_cache.teachers.base import Teacher

FLOAT16_MAX = 65504.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """What one call of `build_cache` did."""

    rows: int
    """Regions in the cache."""
    shards: int
    """Shards of an array."""
    computed_shards: int
    """Shards that the teacher embedded in this call."""
    skipped_shards: int
    """Shards that were there before."""
    seconds: float
    """Wall time of the call."""
    bytes: int
    """Size of the cache's folder."""
    dim: int
    """Width of a target."""


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
    progress: bool = False,
) -> BuildReport:
    """Make a cache, or complete one.

    Args:
        source: the images that the table was built from.
        table: the regions, one row each.
        folder: the cache's folder; made where missing.
        spec: what `load_teacher` will load; compared with the cache's before anything is computed.
        load_teacher: called at most once, and only when a shard is missing.
        dim: width of a target. None keeps the cache's, or takes `default_dim` for a new one; another width than the
            cache's computes projection and targets again, without the teacher.
        batch: crops per call of the teacher.
        device: torch device for the covariance and its eigenvectors.
        rows_per_shard: S of a new cache; None follows its size. An existing cache keeps its own.
        progress: show bars over the regions.

    Raises:
        DatasetError: there is no region, or an image cannot be decoded. Shards written before stay.
        CacheMismatchError: the folder holds another teacher's embeddings, or other regions.
        CacheFormatError: the folder holds something else.
        CacheCorruptError: a shard that the projection needs is damaged.
        EmbeddingError: the teacher returned a number that float16 cannot hold. Its shard is not written.
        ProjectionError: the embeddings vary in fewer than `dim` directions.
    """
    started = time.perf_counter()
    if len(table) == 0:
        raise DatasetError(
            f"a teacher cache needs at least one region; {source.root} has none; pass other data: --data"
        )
    if dim is not None and dim < 1:
        raise ProjectionError(f"targets need at least one dimension; asked for {dim}; pass --dim 1 or more")
    assert tuple(record.name for record in source.records) == table.image_names, "the table is of another source"
    sweep_stale(folder)
    teacher = None
    if _is_vacant(folder):
        teacher = load_teacher()  # only it knows the widths of its embeddings
        dims = {"hidden": teacher.hidden_dim, "visual": teacher.visual_dim}
        plan = ShardPlan.for_rows(len(table), rows_per_shard)
        create_group(folder, plan=plan, dims=dims, spec=spec, table=table)
    cache = RegionCache.open(folder, expect_spec=spec, expect_table=table)
    missing = cache.missing_teacher_shards()
    if missing:
        teacher = teacher or load_teacher()
        _check_teacher(cache, teacher)
        _embed_shards(cache, missing, source, table, teacher, batch=batch, progress=progress)
    final_dim = _derive_targets(cache, table, dim, device=device, progress=progress)
    return BuildReport(
        rows=len(table),
        shards=len(cache.plan),
        computed_shards=len(missing),
        skipped_shards=len(cache.plan) - len(missing),
        seconds=time.perf_counter() - started,
        bytes=folder_bytes(folder),
        dim=final_dim,
    )


def _is_vacant(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _check_teacher(cache: RegionCache, teacher: Teacher) -> None:
    differences = cache.spec.differences(teacher.spec)
    for name, dim in (("hidden", teacher.hidden_dim), ("visual", teacher.visual_dim)):
        if cache.rows(name).dim != dim:
            differences.append(f"width of '{name}': cache has {cache.rows(name).dim}, expected {dim}")
    if differences:
        raise CacheMismatchError(
            f"cache {cache.path} was made by another teacher than the one loaded: {'; '.join(differences)}; "
            "name another folder with --cache"
        )


def _embed_shards(
    cache: RegionCache,
    missing: tuple[int, ...],
    source: DetectionSource,
    table: RegionTable,
    teacher: Teacher,
    *,
    batch: int,
    progress: bool,
) -> None:
    """Embed and write shard after shard; batches start anew with each, so that a resumed build makes the same ones."""
    dims = {name: cache.rows(name).dim for name in TEACHER_ARRAYS}
    spans = [cache.plan.span(shard) for shard in missing]
    num_done = len(table) - sum(stop - start for start, stop in spans)
    with tqdm(total=len(table), initial=num_done, desc="teacher", unit="region", disable=not progress) as bar:
        for shard, (start, stop) in zip(missing, spans, strict=True):
            values = {name: np.empty((stop - start, dim), np.float16) for name, dim in dims.items()}
            crops = _crops(source, table, cache.spec, start, stop)
            for first in range(0, stop - start, batch):
                pixels, names = zip(*islice(crops, batch), strict=True)
                embeddings = teacher.embed(pixels, names)
                for name in TEACHER_ARRAYS:
                    block = to_float16(getattr(embeddings, name), table, start + first, name)
                    values[name][first : first + len(names)] = block
                bar.update(len(names))
            for name in TEACHER_ARRAYS:
                write_shard(cache.path / name, cache.plan, shard, values[name])


def _crops(
    source: DetectionSource, table: RegionTable, spec: TeacherSpec, start: int, stop: int
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """Crop and class name of each row; an image is decoded once for its consecutive rows."""
    images = table.image_of_rows(np.arange(start, stop)).tolist()
    decoded = -1
    for row, image in zip(range(start, stop), images, strict=True):
        if image != decoded:
            pixels, decoded = read_image(source.records[image].path), image
        crop = cut_crop(pixels, table.xyxy[row], spec.crop_margin, spec.crop_size)
        yield crop, table.class_names[int(table.class_ids[row])]


def to_float16(values_nD: NDArray[Any], table: RegionTable, first_row: int, name: str) -> NDArray[np.float16]:
    """Cast embeddings of the rows from `first_row` on, refusing what float16 cannot hold.

    Raises:
        EmbeddingError: a value is NaN, infinite, or beyond 65504 in size.
    """
    fits_nD = np.abs(values_nD) <= FLOAT16_MAX  # False for NaN
    if not fits_nD.all():
        position, feature = (int(index) for index in np.argwhere(~fits_nD)[0])
        row = first_row + position
        image = table.image_names[int(table.image_of_rows(np.array([row]))[0])]
        raise EmbeddingError(
            f"embeddings must be finite and at most {FLOAT16_MAX:.0f} in size; '{name}' has "
            f"{values_nD[position, feature]} at row {row} (image {image}, class "
            f"{table.class_names[int(table.class_ids[row])]}); try --dtype float32"
        )
    return values_nD.astype(np.float16)


def _derive_targets(cache: RegionCache, table: RegionTable, dim: int | None, *, device: str, progress: bool) -> int:
    """Projection and targets of a cache whose teacher arrays are complete; returns the width of a target."""
    if cache.is_complete and dim in (None, cache.rows("targets").dim):
        return cache.rows("targets").dim
    with exclusive(cache.path):  # two processes must not replace each other's targets
        path = cache.path / PROJECTION_NAME
        projection = cache.projection() if path.is_file() else None
        if projection is None or dim not in (None, projection.dim):
            projection = _fit(cache, dim, device=device, progress=progress)
            projection.save(path)
        if cache.has("targets") and not cache.has_current_targets():
            remove_array(cache.path, "targets")
        if not cache.has("targets"):
            attributes = {"projection_digest": file_digest(path)}
            create_array_atomically(cache.path, "targets", cache.plan, projection.dim, attributes)
        missing = cache.rows("targets").missing()
        for shard, hidden, visual in _teacher_blocks(cache, missing, "targets", progress=progress):
            first_row = cache.plan.span(shard)[0]
            values = to_float16(projection.apply(hidden, visual), table, first_row, "targets")
            write_shard(cache.path / "targets", cache.plan, shard, values)
    return projection.dim


def _fit(cache: RegionCache, dim: int | None, *, device: str, progress: bool) -> Projection:
    """Exact moments in one pass over the shards, always in their order, then the projection."""
    hidden_dim = cache.rows("hidden").dim
    moments = Moments(hidden_dim + cache.rows("visual").dim, device)
    for _, hidden, visual in _teacher_blocks(cache, tuple(range(len(cache.plan))), "projection", progress=progress):
        moments.add(joint_embedding(torch.from_numpy(hidden).to(device), torch.from_numpy(visual).to(device)))
    if dim is None:
        dim = default_dim(len(moments.mean_J), moments.count)
    return Projection.fit(moments, hidden_dim=hidden_dim, dim=dim)


def _teacher_blocks(
    cache: RegionCache, shards: tuple[int, ...], description: str, *, progress: bool
) -> Iterator[tuple[int, NDArray[np.float16], NDArray[np.float16]]]:
    """Shard number with its rows of `hidden` and `visual`, under a bar over the regions."""
    hidden, visual = (cache.rows(name) for name in TEACHER_ARRAYS)
    spans = [cache.plan.span(shard) for shard in shards]
    total = sum(stop - start for start, stop in spans)
    with tqdm(total=total, desc=description, unit="region", delay=2, disable=not progress) as bar:
        for shard, (start, stop) in zip(shards, spans, strict=True):
            yield shard, hidden.block(start, stop), visual.block(start, stop)
            bar.update(stop - start)
