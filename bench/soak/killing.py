"""Builds that are killed: a small world, processes that build its cache, and when to strike.

Processes come from a fork server that has everything imported, so that a start costs little; a kill is SIGKILL.
"""

import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from bench.synthetic import CheapTeacher, synthetic_spec
from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.build import build_cache
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, ShardPlan, done_shards

Moment = Literal["start", "embedding", "writing", "projection", "targets", "end"]
"""When to strike: before there is a cache; between two shards; while a file of the teacher's arrays is written; between
the last of these files and the first target; between targets; when the last target is there."""
MOMENTS: dict[Moment, float] = {
    "start": 0.08, "embedding": 0.38, "writing": 0.26, "projection": 0.12, "targets": 0.1, "end": 0.06
}  # fmt: skip
"""How often each moment is chosen. After the early ones there is work left, so the same cache takes more kills."""
ROWS_PER_SHARD, HIDDEN_DIM, VISUAL_DIM, DIM = 32, 384, 128, 64
DEADLINE = 120.0
"""Seconds after which a build that still goes on counts as hung."""
_POLL = 0.0005
_SPREAD: dict[Moment, float] = {
    "start": 0.06, "embedding": 0.03, "writing": 0.002, "projection": 0.1, "targets": 0.01, "end": 0.005
}  # fmt: skip
"""Seconds that this part of the work takes, about; the kill falls anywhere in it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """What is built again and again."""

    source: DetectionSource
    table: RegionTable
    spec: TeacherSpec

    @property
    def plan(self) -> ShardPlan:
        """Rows and shards of its cache."""
        return ShardPlan(len(self.table), ROWS_PER_SHARD)


def make_world(folder: Path, scenes: int) -> World:
    """Scenes of the miniature. The last scene equals the first, and one in the middle cannot be decoded."""
    size = WorldSize(train_scenes=scenes, val_scenes=1, objects_per_shape=2, scenes_per_object=1)
    make_miniature(folder, size, progress=False)
    images = sorted((folder / "images" / "train").iterdir())
    labels = sorted((folder / "labels" / "train").iterdir())
    for files in (images, labels):
        files[-1].write_bytes(files[0].read_bytes())
    middle = images[len(images) // 2]
    middle.write_bytes(middle.read_bytes()[:100])
    source = open_source(folder / "data.yaml", "train", keep_unreadable=True)
    spec = synthetic_spec(hidden_dim=HIDDEN_DIM, visual_dim=VISUAL_DIM)
    return World(source=source, table=RegionTable.build(source), spec=spec)


def start_build(world: World, folder: Path, log: Path) -> BaseProcess:
    """Start a process that runs the real `build_cache`, from an empty or half-made folder to its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_build, args=(world, folder, log), daemon=True)
    process.start()
    return process


def errors_of(log: Path) -> Path:
    """File that gets what the builds with that log say on stderr."""
    return log.with_suffix(".stderr")


def _build(world: World, folder: Path, log: Path) -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # tqdm's own lock is shared: a killed process would hold it for ever
    sys.stderr = errors_of(log).open("a")
    teacher = CheapTeacher(world.spec, log)
    build_cache(
        world.source, world.table, folder, spec=world.spec, load_teacher=lambda: teacher, dim=DIM, batch=2,
        rows_per_shard=ROWS_PER_SHARD,
    )  # fmt: skip


def committed(folder: Path) -> set[int]:
    """Shards that are done: present in every array that the teacher gives."""
    return set.intersection(*(done_shards(folder / name) for name in TEACHER_ARRAYS))


def strike(victim: BaseProcess, moment: Moment, folder: Path, plan: ShardPlan, generator: np.random.Generator) -> int:
    """Kill a build with SIGKILL somewhere in that part of its work.

    Only the cache's folder tells how far the build is; the build does not know that it is watched, and may have ended.

    Returns:
        The time of the kill, on the clock that processes share.

    Raises:
        TimeoutError: the moment did not come within DEADLINE.
    """
    has_come = _sign(moment, folder, plan, generator)
    deadline = time.monotonic() + DEADLINE
    while victim.is_alive() and not has_come():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a build hangs: {moment} did not come in {DEADLINE:.0f} s in {folder}")
        time.sleep(_POLL)
    time.sleep(float(generator.uniform(0, _SPREAD[moment])))
    struck = time.monotonic_ns()
    victim.kill()
    victim.join()
    return struck


def _sign(moment: Moment, folder: Path, plan: ShardPlan, generator: np.random.Generator) -> Callable[[], bool]:
    """A function that tells whether the moment has come."""
    array = folder / TEACHER_ARRAYS[int(generator.integers(len(TEACHER_ARRAYS)))]
    enough = min(len(committed(folder)) + int(generator.integers(4)), len(plan))
    targets, some = folder / "targets", int(generator.integers(len(plan)))
    signs: dict[Moment, Callable[[], bool]] = {
        "start": lambda: True,
        "embedding": lambda: folder.exists() and len(committed(folder)) >= enough,
        "writing": lambda: len(committed(folder)) >= enough and any(_being_written(array)),
        "projection": lambda: len(committed(folder)) == len(plan),
        "targets": lambda: targets.exists() and len(done_shards(targets)) >= some,
        "end": lambda: len(done_shards(targets)) == len(plan),
    }
    return signs[moment]


def phase_of(folder: Path, plan: ShardPlan, since: float) -> Moment:
    """How far the builds of a cache had come when the last one was killed.

    Args:
        folder: of the cache.
        plan: of the cache.
        since: when the last build began, on the clock of file times. Older partial files are an earlier build's.
    """
    if not folder.exists():
        return "start"
    if len(committed(folder)) < len(plan):
        fresh = [path for name in TEACHER_ARRAYS for path in _being_written(folder / name)]
        return "writing" if any(path.stat().st_mtime >= since for path in fresh) else "embedding"
    if not (folder / "targets").exists():
        return "projection"
    return "targets" if len(done_shards(folder / "targets")) < len(plan) else "end"


def _being_written(array: Path) -> list[Path]:
    return list(array.glob(".*.partial*"))
