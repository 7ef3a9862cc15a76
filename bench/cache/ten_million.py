"""Ten million regions and three arrays of 2,442 shards: what `million` measures of a million, and more.

No shard holds a number that anybody reads: files of finished shards are sparse, those of the targets with an index.
"""

import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from bench.cache.million import (
    HIDDEN_DIM,
    IMAGES,
    ROWS_PER_SHARD,
    VISUAL_DIM,
    mostly_built,
    open_and_resume,
    worker_memory,
    write_table,
)
from bench.figures import Figure
from bench.synthetic import synthetic_source, synthetic_spec
from bench.timing import seconds
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.pipeline.run.inputs import MINIATURE_TEACHER, teacher_config
from mocha_pipe.teacher_cache.building.plan import plan_build
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import (
    CHUNK_ROWS,
    ShardPlan,
    create_array_atomically,
    create_group,
    encode_shard,
    shard_path,
)
from mocha_pipe.teacher_cache.store.targets import CachedTargets
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

TIMES = 10
DIM = 512
STEPS, STEP_ROWS = 200, 125
"""Steps of training whose targets are fetched, and regions of each."""


def measure(root: Path, *, images: int = TIMES * IMAGES, rows_per_shard: int = ROWS_PER_SHARD) -> dict[str, Figure]:
    """The smaller table, for memory, is the one of `million`."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name)
        table = write_table(folder / "large", images)
        write_table(folder / "small", images // TIMES)
        mostly_built(folder / "cache", table)
        del table
        return {
            "memory_1e7_vs_1e6": worker_memory(folder, rows_per_shard),
            **open_and_resume(folder, "1e7", target=60.0, rounds=1),
            "plan_1e7_s": _plan(folder),
            "fetch_1e7_ms": _fetch(folder),
            "verify_table_1e7_s": _verify(folder),
        }


def _plan(folder: Path) -> Figure:
    """A whole plan by the miniature teacher, for a cache that is not there."""
    table = RegionTable.read(folder / "large")
    source = synthetic_source(table, folder)
    teacher = teacher_config(TeacherConfig(model=MINIATURE_TEACHER, device="cpu"))
    spent = seconds(lambda: plan_build(source, table, folder / "new", teacher, dim=None, sample=64, device="cpu"))
    return Figure(
        value=spent, better="lower",
        note=f"seconds of a plan for {len(table):,} regions, the teacher on 64 of them included",
    )  # fmt: skip


def _fetch(folder: Path) -> Figure:
    """Random regions from targets whose files have an index and no content."""
    cache = RegionCache.open(folder / "cache")
    create_array_atomically(cache.path, "targets", cache.plan, DIM, {"projection_digest": "0" * 32})
    last = len(cache.plan) - 1
    contents = {
        shard: encode_shard(np.zeros((stop - start, DIM), np.float16), cache.plan.rows_per_shard)
        for shard, (start, stop) in ((0, cache.plan.span(0)), (last, cache.plan.span(last)))
    }
    for shard in range(len(cache.plan)):
        _write_sparse(shard_path(cache.path / "targets", shard), contents.get(shard, contents[0]), cache.plan)
    started = perf_counter()
    targets = CachedTargets(cache.rows("targets"), np.zeros(0, np.int64))
    opened = perf_counter() - started
    generator = np.random.default_rng(0)
    steps = [generator.choice(cache.plan.rows, STEP_ROWS).astype(np.int64) for _ in range(STEPS)]
    times = [1000 * seconds(lambda rows=rows: targets.lookup(rows)) for rows in steps * 2]  # type: ignore[misc]
    return Figure(
        value=statistics.median(times[STEPS:]), better="lower",
        note=f"milliseconds to fetch the targets of {STEP_ROWS} random regions of {cache.plan.rows:,}, {DIM} wide; "
        f"mapping {len(cache.plan)} files takes {opened:.2f} s before",
    )  # fmt: skip


def _write_sparse(path: Path, content: bytes, plan: ShardPlan) -> None:
    """A file of this size that holds the index at the end of the content, and nothing before it."""
    index = content[-(plan.rows_per_shard // CHUNK_ROWS * 16 + 4) :]
    with path.open("wb") as stream:
        stream.truncate(len(content) - len(index))
        stream.seek(0, 2)
        stream.write(index)


def _verify(folder: Path) -> Figure:
    """A whole verify of a cache that has its table and no shard."""
    table = RegionTable.read(folder / "large")
    spec = synthetic_spec(hidden_dim=HIDDEN_DIM, visual_dim=VISUAL_DIM)
    create_group(folder / "empty", plan=ShardPlan.for_rows(len(table)), spec=spec, table=table)
    del table
    report = verify_cache(folder / "empty")
    assert {finding.kind for finding in report.findings} == {"missing"}
    return Figure(
        value=report.seconds, better="lower",
        note=f"seconds to verify the table of {report.rows:,} regions, every key computed again",
    )  # fmt: skip
