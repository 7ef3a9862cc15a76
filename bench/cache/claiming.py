"""Sixty-four processes that claim the shards of one cache on one disk; twenty of them are killed at work.

They embed nothing: a shard is claimed as a build claims it, a line in a log says so, and the shard is tiny.
A killed process may have begun what another then does again; what counts is that no shard is done twice while both
live, and that none is left when the last process ends.
"""

import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import numpy as np

from bench.figures import Figure
from bench.synthetic import synthetic_spec, synthetic_table
from mocha_pipe.teacher_cache.building.shard_order import claimed_shards
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.store.layout import ShardPlan, create_group, write_shard

PROCESSES, KILLED, SHARDS = 64, 20, 300
WORK_SECONDS = 0.02
_TIMEOUT = 300.0


def measure(root: Path, *, processes: int = PROCESSES, killed: int = KILLED, shards: int = SHARDS) -> dict[str, Figure]:
    """Shards that nobody did, and shards that were done again after they had been done."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name)
        table = synthetic_table(shards * 8, most=7)  # 4 regions an image on average, in shards of 32
        plan = ShardPlan(len(table), 32)
        create_group(folder / "cache", plan=plan, spec=synthetic_spec(hidden_dim=4, visual_dim=4), table=table)
        dead = _run(folder, processes, killed, len(plan))
        lost = len(RegionCache.open(folder / "cache").missing_teacher_shards())
        events = read_events(folder / "log")
    again = sum(len({event.process for event in own}) > 1 for own in events.values())
    note = (
        f"of {len(plan)} by {processes} processes on one disk, {len(dead)} of them killed at work; {again} shards went "
        "from a killed process to another"
    )
    twice = float(sum(is_done_twice(own, dead) for own in events.values()))
    return {
        "workers64_lost": Figure(value=lost, target=0, better="lower", note=f"shards that nobody did, {note}"),
        "workers64_twice": Figure(value=twice, target=0, better="lower", note=f"shards done twice, {note}"),
    }


@dataclass(frozen=True)
class Event:
    """A process claimed a shard, or has written it."""

    process: int
    kind: Literal["begun", "done"]


def read_events(log: Path) -> dict[int, list[Event]]:
    """What happened to each shard, in its order."""
    events: dict[int, list[Event]] = defaultdict(list)
    for line in log.read_text().splitlines() if log.exists() else []:
        process, kind, shard = line.split()
        events[int(shard)].append(Event(int(process), "done" if kind == "done" else "begun"))
    return events


def is_done_twice(events: list[Event], dead: set[int]) -> bool:
    """Whether a process began a shard that was done, or that another one was at which nobody killed."""
    before: set[tuple[int, bool]] = set()
    for event in events:
        if event.kind == "begun" and any(done or other not in dead for other, done in before):
            return True
        before.add((event.process, event.kind == "done"))
    return False


def _run(folder: Path, processes: int, killed: int, shards: int) -> set[int]:
    """Start all, kill some while they hold a shard, spread over the work; returns the killed ones' numbers."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    workers = {worker.pid: worker for worker in (_start(context, folder) for _ in range(processes))}
    dead: set[int] = set()
    deadline = time.monotonic() + _TIMEOUT
    try:
        while len(dead) < killed:
            assert time.monotonic() < deadline, "the processes are stuck"
            events = read_events(folder / "log")
            done = sum(event.kind == "done" for own in events.values() for event in own)
            at_work = [own[-1].process for own in events.values() if own[-1].kind == "begun"]
            victims = [process for process in at_work if process not in dead]
            if victims and done >= len(dead) * shards / (killed + 2):
                workers[victims[0]].kill()
                dead.add(victims[0])
            time.sleep(0.01)
        for process, worker in workers.items():
            worker.join(max(0.0, deadline - time.monotonic()))
            assert worker.exitcode == (-9 if process in dead else 0), f"a process ended with {worker.exitcode}"
    finally:
        for worker in workers.values():
            worker.kill()
    return dead


def _start(context: multiprocessing.context.ForkServerContext, folder: Path) -> BaseProcess:
    worker = context.Process(target=_work, args=(folder,), daemon=True)
    worker.start()
    return worker


def _work(folder: Path) -> None:
    """What each process does: as a build, which begins a shard before it finishes the one before."""
    cache = RegionCache.open(folder / "cache")
    table, begun = cache.table, None
    with ShardClaims(cache.path) as claims:
        for shard in claimed_shards(cache, table, claims, None, lambda _: None):
            if shard is not None:
                _note(folder, "begun", shard)
                time.sleep(WORK_SECONDS)
            if begun is not None:
                start, stop = cache.plan.span(begun)
                for name, width in cache.spec.arrays.items():
                    write_shard(cache.path / name, cache.plan, begun, np.zeros((stop - start, width), np.float16))
                _note(folder, "done", begun)
                claims.release(begun)
            begun = shard


def _note(folder: Path, kind: str, shard: int) -> None:
    descriptor = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{os.getpid()} {kind} {shard}\n".encode())  # one call: a kill leaves all of it or nothing
    os.close(descriptor)
