"""A cache of a million regions: opening it, resuming its build, and the memory of a build worker.

ten_million.py measures the same, and more, at ten times as many.

The regions are synthetic: 200,000 images, all of which are the same small file. Shards are as large as those of a real
build, 4096 + 1024 wide. Finished shards are sparse files, since nothing reads them.
"""

import ctypes
import gc
import os
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import pyarrow as pa

from bench.figures import Figure
from bench.runs import in_a_process, memory_status
from bench.synthetic import CheapTeacher, synthetic_source, synthetic_spec, synthetic_table
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.teacher_cache.building.build import build_cache
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, ShardPlan, create_group, shard_bytes, shard_path
from mocha_pipe.teacher_cache.teachers.base import Teacher

HIDDEN_DIM, VISUAL_DIM = 4096, 1024
IMAGES, MOST_REGIONS = 200_000, 9
SMALL = 10
"""The smaller cache has a tenth of the images."""
ROWS_PER_SHARD = 1024
EMBEDDED_SHARDS = 4
ROUNDS = 3


def measure(root: Path, *, images: int = IMAGES, rows_per_shard: int = ROWS_PER_SHARD) -> dict[str, Figure]:
    """Open and resume in this process; memory in one process of its own for each size."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name)
        table = write_table(folder / "large", images)
        write_table(folder / "small", images // SMALL)
        mostly_built(folder / "cache", table)
        return {
            **open_and_resume(folder, "1e6", target=10.0, rounds=ROUNDS),
            "memory_1e6_vs_1e5": worker_memory(folder, rows_per_shard),
        }


def write_table(folder: Path, images: int) -> RegionTable:
    """A table of so many images in a folder, and itself."""
    folder.mkdir()
    table = synthetic_table(images, most=MOST_REGIONS)
    table.write(folder)
    return table


def mostly_built(folder: Path, table: RegionTable) -> None:
    """A cache that lacks every tenth shard, as several killed builds leave it."""
    spec = synthetic_spec(hidden_dim=HIDDEN_DIM, visual_dim=VISUAL_DIM)
    plan = ShardPlan.for_rows(len(table))
    create_group(folder, plan=plan, spec=spec, table=table)
    for name, dim in zip(TEACHER_ARRAYS, (HIDDEN_DIM, VISUAL_DIM), strict=True):
        for shard in range(len(plan)):
            if shard % 10 != 9:
                start, stop = plan.span(shard)
                path = shard_path(folder / name, shard)
                path.touch()
                os.truncate(path, shard_bytes(ShardPlan(stop - start, plan.rows_per_shard), dim))


class _ReachedTeacher(Exception):  # noqa: N818  (no error: the build came as far as it should)
    """A build wants its teacher."""


def open_and_resume(folder: Path, size: str, *, target: float, rounds: int) -> dict[str, Figure]:
    """Seconds to open the cache, and from the start of a resumed build until it asks for its teacher.

    A build asks for its teacher when its first window of crops is cut.

    Args:
        folder: holds the table in `large` and the cache in `cache`.
        size: of the table, for the figures' names.
        target: of the resumed build.
        rounds: of which the median counts.
    """

    def load_teacher() -> Teacher:
        raise _ReachedTeacher

    spec = synthetic_spec(hidden_dim=HIDDEN_DIM, visual_dim=VISUAL_DIM)
    opened, resumed, read = [], [], []
    for _ in range(rounds):
        started = perf_counter()
        table = RegionTable.read(folder / "large")  # a new one each round: a table keeps what it computed
        read.append(perf_counter() - started)
        source = synthetic_source(table, folder)
        started = perf_counter()
        RegionCache.open(folder / "cache", expect_spec=spec, expect_table=table)
        opened.append(perf_counter() - started)
        started = perf_counter()
        try:
            build_cache(source, table, folder / "cache", spec=spec, load_teacher=load_teacher)
        except _ReachedTeacher:
            resumed.append(perf_counter() - started)
    regions = f"{len(table):,} regions, {len(table.image_names):,} images"
    return {
        f"open_{size}_s": Figure(
            value=statistics.median(opened), target=1.0, better="lower",
            note=f"seconds of RegionCache.open; {regions}; reading the table, where rows are named by key, takes "
            f"{statistics.median(read):.1f} s more",
        ),
        f"resume_scan_{size}_s": Figure(
            value=statistics.median(resumed), target=target, better="lower",
            note="seconds from build_cache to its teacher: comparing the tables, equal regions, listing shards, "
            f"claiming one, its first 128 crops; {regions}, nine of ten shards there; data set opened before",
        ),
    }  # fmt: skip


def worker_memory(folder: Path, rows_per_shard: int) -> Figure:
    """Peak memory of a worker, less that of its table, with the table in `large` against that in `small`."""
    peaks, notes = {}, []
    for size in ("small", "large"):
        regions, table_bytes, peak = in_a_process("memory", _build_some, folder, size, rows_per_shard)
        peaks[size] = peak - table_bytes
        notes.append(f"{regions:,} regions: peak {peak / 2**20:.0f} MiB, table {table_bytes / 2**20:.0f} MiB")
    return Figure(
        value=peaks["large"] / peaks["small"], target=1.3, better="lower",
        note=f"peak resident memory of a build worker, its table taken off; {'; '.join(notes)}; table = growth of "
        "resident memory while data set, table, its digest and its index of equal keys are loaded; "
        f"{EMBEDDED_SHARDS} shards of {rows_per_shard} regions each, {HIDDEN_DIM} + {VISUAL_DIM} wide",
    )  # fmt: skip


def _build_some(folder: Path, size: str, rows_per_shard: int) -> tuple[int, int, int]:
    """Build EMBEDDED_SHARDS shards, whatever the size of the table.

    Returns:
        Number of regions, bytes of the table, peak bytes of this process.
    """
    before = memory_status("VmRSS")
    table = RegionTable.read(folder / size)
    source = synthetic_source(table, folder)
    _ = table.digest, table.first_of_key
    _give_back()
    table_bytes = memory_status("VmRSS") - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    spec = synthetic_spec(hidden_dim=HIDDEN_DIM, visual_dim=VISUAL_DIM)
    shards = len(ShardPlan(len(table), rows_per_shard))
    assert shards > EMBEDDED_SHARDS, "a build that is no part would compute targets too"
    build_cache(
        source, table, folder / f"{size}-cache", spec=spec, load_teacher=lambda: CheapTeacher(spec),
        rows_per_shard=rows_per_shard, part=(0, -(-shards // EMBEDDED_SHARDS)),
    )  # fmt: skip
    return len(table), table_bytes, memory_status("VmHWM")


def _give_back() -> None:
    """Return freed memory to the system. The build would use it otherwise, and its peak would look too low."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
