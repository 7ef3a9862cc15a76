"""The workers of a Ray cluster embed the missing shards; Ray places them and replaces those that die.

One actor per GPU, or per CPU where the cluster has no GPU. Actors claim a shard like any other build does, so a cluster
and separate builds can work on one cache. The cache's folder and the images must lie on a disk that all nodes see.
"""

import platform
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool
from tqdm import tqdm

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.embed import ShardEmbedder
from mocha_pipe.teacher_cache.building.forecast import Tally
from mocha_pipe.teacher_cache.building.reuse import Donor
from mocha_pipe.teacher_cache.building.shard_order import earlier_shards
from mocha_pipe.teacher_cache.errors import CacheNotFoundError, TeacherError
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import POLL_SECONDS, ShardClaims
from mocha_pipe.teacher_cache.teachers.base import Teacher

RETRIES = 4
"""How often a shard is tried again whose worker died; workers themselves are replaced without end."""


class ShardWorker:
    """An actor: one teacher, one shard at a time."""

    def __init__(
        self,
        folder: Path,
        source: DetectionSource,
        table: RegionTable,
        load_teacher: Callable[[], Teacher],
        reuse: Sequence[Path],
        batch: int,
    ) -> None:
        """Open nothing yet: Ray passes errors on as they are from `embed` only."""
        self._folder, self._reuse = folder, reuse
        self._inputs = source, table, load_teacher
        self._batch = batch

    def embed(self, shard: int) -> tuple[int, Tally | None]:
        """Do one shard; no tally where another build is at it or has done it.

        Raises:
            CacheNotFoundError: this node does not see the cache. Others: as `ShardEmbedder.finish`.
        """
        if not self._claims.take(shard):
            return shard, None
        try:
            if self._cache.has_teacher_shard(shard):
                return shard, None
            self._embedder.tally = Tally()
            self._embedder.finish(self._embedder.begin(shard))
        finally:
            self._claims.release(shard)
        return shard, self._embedder.tally

    @cached_property
    def _claims(self) -> ShardClaims:
        if not self._folder.exists():
            raise CacheNotFoundError(
                f"all nodes of a Ray cluster must see the cache; {platform.node()} has nothing at {self._folder}; put "
                "cache and images on a disk that they share, or build in parts with --part and join them with "
                "`mocha-pipe cache merge`"
            )
        return ShardClaims(self._folder).__enter__()  # held as long as the actor lives

    @cached_property
    def _cache(self) -> RegionCache:
        return RegionCache.open(self._folder)

    @cached_property
    def _embedder(self) -> ShardEmbedder:
        """With the teacher, which is loaded with the first region that needs it."""
        donors = [Donor(other, self._cache.spec) for other in self._reuse]
        return ShardEmbedder(self._cache, *self._inputs, donors=donors, batch=self._batch)


def embed_on_ray(
    cache: RegionCache,
    source: DetectionSource,
    table: RegionTable,
    load_teacher: Callable[[], Teacher],
    *,
    reuse: Sequence[Path],
    batch: int,
    bar: "tqdm[Any]",
) -> Tally:
    """Embed all missing shards on the cluster that RAY_ADDRESS names, or on this machine.

    Arguments are those of `build_cache`; the cache and the images lie on a disk that every node sees, and
    `load_teacher`, which each actor calls, must pickle. `bar` is moved on by the rows of each finished shard.

    Returns:
        The sum of what the actors did.

    Raises:
        TeacherError: workers die on a shard again and again. Others: as an actor's `embed`.
    """
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    actor = ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_restarts=-1, max_task_retries=RETRIES)(ShardWorker)
    arguments = (cache.path.resolve(), ray.put(source), ray.put(table), load_teacher)
    others = [folder.resolve() for folder in reuse]
    count = min(gpus or cpus, len(cache.missing_teacher_shards()))
    actors: list[Any] = [actor.remote(*arguments, others, batch) for _ in range(count)]
    pool, total, needs = ActorPool(actors), Tally(), earlier_shards(table, cache.plan)
    try:
        while missing := set(cache.missing_teacher_shards()):
            ready = [shard for shard in sorted(missing) if not needs[shard] & missing]
            shards_before = total.shards
            for shard, tally in pool.map_unordered(lambda worker, shard: worker.embed.remote(shard), ready):
                if tally is not None:
                    total.add(tally)
                    start, stop = cache.plan.span(shard)
                    bar.update(stop - start)
            if total.shards == shards_before:
                time.sleep(POLL_SECONDS)  # other builds are at the rest
    except RayTaskError as error:
        raise error.cause from None
    except RayActorError as error:
        raise TeacherError(
            f"a Ray worker must live as long as a shard takes; {RETRIES + 1} in a row died on the same one "
            f"({str(error).splitlines()[0]}); see their logs (`ray logs`), free memory or pass a smaller --batch, and "
            "run the same command again: it goes on after the last finished shard"
        ) from error
    finally:
        for handle in actors:
            ray.kill(handle)
    return total
