"""audit_cache: random rows of a cache against what the live teacher says of the same regions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.archive.rounding import restore_rows, round_rows
from mocha_pipe.teacher_cache.building.feed import CropFeed
from mocha_pipe.teacher_cache.errors import CacheIncompleteError, CacheMismatchError
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.teachers.base import Teacher

LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.99, "float16": 0.99}
"""Cosine that every row must reach, by the teacher's number type: other batches, another device and other versions of
libraries move the last bits of an embedding."""
_WINDOW = 64  # regions that are embedded at a time
_WORST = 5  # rows that a report lists


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayAudit:
    """Agreement of one array with the live teacher."""

    mean_cosine: float
    least_cosine: float
    max_difference: float
    """Largest difference of a single number."""
    max_relative_difference: float
    """Largest length of a row's difference, as a share of the row's norm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditedRow:
    """A row and how well it agrees."""

    row: int
    image: str
    class_name: str
    cosine: float
    """The lowest of the teacher's arrays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditReport:
    """How far a cache agrees with the live teacher."""

    rows: int
    """Regions that were embedded again."""
    seed: int
    least_allowed: float
    """Cosine that every row must reach."""
    arrays: dict[str, ArrayAudit]
    worst: tuple[AuditedRow, ...]
    """The rows that agree least, by rising cosine."""

    @property
    def ok(self) -> bool:
        """Whether every row agrees."""
        return all(audit.least_cosine >= self.least_allowed for audit in self.arrays.values())


def audit_cache(
    cache: RegionCache, source: DetectionSource, teacher: Teacher, *, rows: int, seed: int = 0, progress: bool = False
) -> AuditReport:
    """Compute so many random rows again, or all that have an embedding, and compare; source and cache have one table.

    Raises:
        CacheMismatchError: the teacher is not the one that made the cache.
        CacheIncompleteError, CacheCorruptError: a row is not there, or damaged, or all were set aside.
        DatasetError: an image cannot be decoded any more.
    """
    if differences := cache.spec.exact.differences(teacher.spec):
        raise CacheMismatchError(
            f"cache {cache.path} was made by another teacher than the one loaded: {'; '.join(differences)}; "
            "name the one that made it with --teacher"
        )
    is_there = np.ones(len(cache.table), bool)
    is_there[[region.row for region in cache.quarantine()]] = False
    candidates = np.flatnonzero(is_there)
    if not len(candidates):
        raise CacheIncompleteError(
            f"an audit compares embeddings; all {len(cache.table)} regions of {cache.path} were set aside; mend the "
            "cause and build again with --retry-failed"
        )
    picks = np.sort(np.random.default_rng(seed).choice(candidates, min(rows, len(candidates)), replace=False))
    live = _live_rows(cache, source, teacher, picks, progress=progress)
    cosines, audits = np.ones(len(picks)), {}
    for name in cache.spec.arrays:
        audits[name], found = _compare(cache.rows(name).lookup(picks).astype(np.float64), live[name])
        cosines = np.minimum(cosines, found)
    return AuditReport(
        rows=len(picks),
        seed=seed,
        least_allowed=LEAST_COSINE[cache.spec.dtype],
        arrays=audits,
        worst=tuple(_describe(cache, int(picks[i]), float(cosines[i])) for i in np.argsort(cosines)[:_WORST]),
    )


def _live_rows(
    cache: RegionCache, source: DetectionSource, teacher: Teacher, rows: NDArray[np.int64], *, progress: bool
) -> dict[str, NDArray[np.float64]]:
    """What the teacher says now, rounded as the cache rounds it."""
    table, parts = cache.table, []
    with (
        CropFeed(source, table, cache.spec) as feed,
        tqdm(total=len(rows), desc="audit", unit="region", delay=2, disable=not progress) as bar,
    ):
        for window in feed.windows(rows, _WINDOW):
            names = [table.class_name(crop.row) for crop in window]
            parts.append(teacher.embed([crop.required() for crop in window], names))
            bar.update(len(window))
    found = {name: np.concatenate([getattr(part, name) for part in parts]) for name in cache.spec.arrays}
    as_stored = {name: values.astype(np.float16) for name, values in found.items()}
    if cache.spec.rounding:
        as_stored = {name: restore_rows(*round_rows(values)) for name, values in as_stored.items()}
    return {name: values.astype(np.float64) for name, values in as_stored.items()}


def _compare(
    cached_nD: NDArray[np.float64], live_nD: NDArray[np.float64]
) -> tuple[ArrayAudit, NDArray[np.float64]]:  # ..., (n,)
    norms, live_norms = np.linalg.norm(cached_nD, axis=1), np.linalg.norm(live_nD, axis=1)
    products = norms * live_norms
    cosines = np.where(products > 0, (cached_nD * live_nD).sum(axis=1) / np.where(products > 0, products, 1), 0.0)
    differences = np.linalg.norm(cached_nD - live_nD, axis=1)
    audit = ArrayAudit(
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        max_difference=float(np.abs(cached_nD - live_nD).max()),
        max_relative_difference=float((differences / np.maximum(live_norms, np.finfo(np.float64).tiny)).max()),
    )
    return audit, cosines


def _describe(cache: RegionCache, row: int, cosine: float) -> AuditedRow:
    table = cache.table
    image = table.image_names[int(table.image_of_rows(np.array([row]))[0])]
    return AuditedRow(row=row, image=image, class_name=table.class_name(row), cosine=cosine)
