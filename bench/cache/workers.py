"""Two processes on one cache against one: the same build, one core and one thread each."""

import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from bench.figures import Figure
from bench.inputs import BenchInputs, bench_inputs, shipped_teacher
from mocha_pipe.teacher_cache.building.build import build_cache
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.teachers.base import Teacher

ROUNDS = 3
ROWS_PER_SHARD = 64
"""Small shards: there are many, so that it hardly matters who builds the last one."""
PRELOADED = [__name__, "mocha_pipe.teacher_cache.teachers.llava.teacher"]
"""What every process finds imported."""
_TIMEOUT = 120.0


def measure(
    root: Path,
    *,
    rounds: int = ROUNDS,
    inputs: BenchInputs | None = None,
    load_teacher: Callable[[], Teacher] = shipped_teacher,
) -> dict[str, Figure]:
    """Wall time from the moment when all processes have loaded and warmed their teacher to the end of the last."""
    inputs = inputs or bench_inputs(root)
    ratios, both = [], []
    for _ in range(rounds):
        one, two = (_build_seconds(inputs, load_teacher, root, processes) for processes in (1, 2))
        ratios.append(one / two)
        both.append((one, two))
    seconds = " / ".join(f"{statistics.median(times):.1f}" for times in zip(*both, strict=True))
    return {
        "two_workers_vs_one": Figure(
            value=statistics.median(ratios), target=1.8, better="higher",
            note=f"seconds of one process / of two on one cache, {seconds}, targets included; each on its own core "
            f"with one thread; {len(inputs.table)} regions in shards of {ROWS_PER_SHARD}, miniature teacher",
        )
    }  # fmt: skip


def _build_seconds(inputs: BenchInputs, load_teacher: Callable[[], Teacher], root: Path, processes: int) -> float:
    folder = Path(tempfile.mkdtemp(dir=root)) / "cache"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    barrier = context.Barrier(processes + 1)
    cores = sorted(os.sched_getaffinity(0))
    workers = []
    for index in range(processes):
        arguments = (inputs, load_teacher, folder, cores[index % len(cores)], barrier)
        workers.append(context.Process(target=_build, args=arguments, daemon=True))
    try:
        for worker in workers:
            worker.start()
        barrier.wait(_TIMEOUT)
        started = perf_counter()
        for worker in workers:
            worker.join(_TIMEOUT)
        elapsed = perf_counter() - started
        assert all(worker.exitcode == 0 for worker in workers), "a build failed"
        assert RegionCache.open(folder, expect_table=inputs.table).is_complete
    finally:
        shutil.rmtree(folder.parent)
    return elapsed


def _build(inputs: BenchInputs, load_teacher: Callable[[], Teacher], folder: Path, core: int, barrier: Barrier) -> None:
    """What each process does."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    teacher = load_teacher()
    size, names = teacher.spec.crop_size, inputs.table.class_names
    crops = [np.zeros((size, size, 3), np.uint8)] * 32
    teacher.embed(crops, [names[index % len(names)] for index in range(len(crops))])
    torch.linalg.eigh(torch.eye(64, dtype=torch.float64))  # loads its library when it is first used
    barrier.wait(_TIMEOUT)
    build_cache(
        inputs.source, inputs.table, folder, spec=teacher.spec, load_teacher=lambda: teacher,
        rows_per_shard=ROWS_PER_SHARD,
    )  # fmt: skip
