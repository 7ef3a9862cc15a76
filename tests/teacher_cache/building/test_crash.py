"""A real process builds a cache, is killed with SIGKILL again and again, and the result is the uninterrupted one."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from mocha_pipe.data.images import read_image
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.store.layout import ShardPlan, done_shards

CHILD = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("helpers", sys.argv[1])
helpers = importlib.util.module_from_spec(spec)
sys.modules["helpers"] = helpers
spec.loader.exec_module(helpers)
images, folder, log, delay = Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), float(sys.argv[5])
source = helpers.make_source(images, images=50)
helpers.build(source, folder, helpers.FakeTeacher(delay=delay, log=log), batch=4)
"""


def start(tmp_path: Path, folder: Path, log: Path, delay: float) -> "subprocess.Popen[bytes]":
    arguments = [Path(__file__).parents[1] / "conftest.py", tmp_path / "images", folder, log, delay]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", CHILD, *map(str, arguments)], env=environment)


def done(folder: Path) -> set[int]:
    return done_shards(folder / "hidden") & done_shards(folder / "visual")


def kill_when(process: "subprocess.Popen[bytes]", folder: Path, num_done: int, log: Path, num_embedded: int) -> None:
    """Wait until shards are committed and the teacher is in the middle of the next, then SIGKILL."""
    deadline = time.monotonic() + 60
    while len(done(folder)) < num_done or not log.exists() or len(log.read_text().splitlines()) < num_embedded:
        assert process.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9


def test_killed_build_resumes_to_the_same_bytes(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images", images=50)
    table = RegionTable.build(source)
    plan = ShardPlan(len(table), 32)
    assert len(plan) == 6
    reference, folder = tmp_path / "reference", tmp_path / "cache"
    uninterrupted = start(tmp_path, reference, tmp_path / "reference.log", 0)

    committed_at_kill: list[set[int]] = []
    for attempt, num_done in enumerate((1, 3)):
        log = tmp_path / f"{attempt}.log"
        num_embedded = (num_done - len(done(folder))) * 32 + 8
        kill_when(start(tmp_path, folder, log, 0.05), folder, num_done, log, num_embedded)
        committed_at_kill.append(done(folder))
        assert num_done <= len(committed_at_kill[-1]) < len(plan)
    for path in folder.rglob(".*.partial*"):
        os.utime(path, (0, 0))
    assert start(tmp_path, folder, tmp_path / "2.log", 0).wait() == 0
    assert uninterrupted.wait() == 0

    expected, found = helpers.file_tree(reference), helpers.file_tree(folder)
    assert sorted(found) == sorted(expected)
    assert found == expected

    names = {}
    for row, image in enumerate(table.image_of_rows(range(len(table)))):
        crop = cut_crop(read_image(source.records[image].path), table.xyxy[row], 0.1, 16)
        names[helpers.region_name(crop, table.class_names[table.class_ids[row]])] = row
    assert len(names) == len(table)
    for attempt, committed in enumerate(committed_at_kill, start=1):
        embedded = {names[line] // 32 for line in (tmp_path / f"{attempt}.log").read_text().splitlines()}
        assert embedded
        assert not embedded & committed, "a committed shard was embedded again"
    logged = [line for attempt in range(3) for line in (tmp_path / f"{attempt}.log").read_text().splitlines()]
    assert {names[line] for line in logged} == set(range(len(table)))
