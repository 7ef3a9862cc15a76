"""A real process builds a cache, is killed with SIGKILL again and again, and the result is the uninterrupted one."""

import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.store.layout import ShardPlan, done_shards
from tests.teacher_cache.fakes import FakeTeacher, another_process, build


def build_in_another_process(
    connection: Connection, source: DetectionSource, folder: Path, log: Path, delay: float
) -> None:
    build(source, folder, FakeTeacher(delay=delay, log=log), batch=4)
    connection.send("done")


def done(folder: Path) -> set[int]:
    return done_shards(folder / "hidden") & done_shards(folder / "visual")


def killed_build(source: DetectionSource, folder: Path, log: Path, num_done: int, num_embedded: int) -> None:
    """A build that gets SIGKILL when so many shards are committed and its teacher is in the middle of the next."""
    with another_process(build_in_another_process, source, folder, log, 0.05) as (process, _):
        deadline = time.monotonic() + 60
        while len(done(folder)) < num_done or not log.exists() or len(log.read_text().splitlines()) < num_embedded:
            assert process.is_alive(), "the build ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -9


def test_killed_build_resumes_to_the_same_bytes(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images", images=50)
    table = RegionTable.build(source)
    plan = ShardPlan(len(table), 32)
    assert len(plan) == 6
    reference, folder = tmp_path / "reference", tmp_path / "cache"
    helpers.build(source, reference, helpers.Teacher(), batch=4)

    committed_at_kill: list[set[int]] = []
    for attempt, num_done in enumerate((1, 3)):
        num_embedded = (num_done - len(done(folder))) * 32 + 8
        killed_build(source, folder, tmp_path / f"{attempt}.log", num_done, num_embedded)
        committed_at_kill.append(done(folder))
        assert num_done <= len(committed_at_kill[-1]) < len(plan)
    for path in folder.rglob(".*.partial*"):
        os.utime(path, (0, 0))
    with another_process(build_in_another_process, source, folder, tmp_path / "2.log", 0) as (_, connection):
        assert connection.recv() == "done"

    expected, found = helpers.file_tree(reference), helpers.file_tree(folder)
    assert sorted(found) == sorted(expected)
    assert found == expected

    names = helpers.region_rows(source)
    assert len(names) == len(table)
    logs: Sequence[list[str]] = [(tmp_path / f"{attempt}.log").read_text().splitlines() for attempt in range(3)]
    for committed, log in zip(committed_at_kill, logs[1:], strict=True):
        embedded = {names[line] // 32 for line in log}
        assert embedded
        assert not embedded & committed, "a committed shard was embedded again"
    assert {names[line] for log in logs for line in log} == set(range(len(table)))
