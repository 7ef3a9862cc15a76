"""Builds on a local Ray cluster of two workers; one of them is killed in the middle."""

import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.build import BuildReport, build_cache
from mocha_pipe.teacher_cache.errors import CacheNotFoundError, EmbeddingError, TeacherError
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import done_shards
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster(helpers: SimpleNamespace) -> Iterator[None]:
    """Two workers, which get the teacher of these tests by value as they cannot import it."""
    from ray import cloudpickle

    modules = [sys.modules[__name__], sys.modules[helpers.Teacher.__module__]]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # sockets lie there, and their paths must be short
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        yield
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
        ray.shutdown()


def logging_teacher(kind: type, logs: Path, **options: Any) -> Any:
    """A teacher that notes what it sees under the number of its process."""
    logs.mkdir(exist_ok=True)
    log = logs / f"{os.getpid()}.log"
    log.touch()
    return kind(log=log, **options)


def build_on_ray(
    source: DetectionSource, table: RegionTable, folder: Path, helpers: SimpleNamespace, **options: Any
) -> BuildReport:
    options = {"batch": 1, "rows_per_shard": 32, **options}
    return build_cache(source, table, folder, spec=helpers.spec, engine="ray", **options)


def seen(logs: Path) -> dict[int, list[str]]:
    """What the teacher of each process saw."""
    return {int(path.stem): path.read_text().splitlines() for path in logs.glob("*.log")}


def test_the_bytes_are_those_of_one_process_though_a_worker_is_killed(
    cluster: None, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    """Equal regions lie in shards of both workers, some rows are in another cache, and one image cannot be decoded."""
    once = helpers.make_source(tmp_path / "images", images=50)
    source, folder, logs = helpers.repeated(once), tmp_path / "cache", tmp_path / "logs"
    table = RegionTable.build(source)
    helpers.build(once, tmp_path / "donor", helpers.Teacher(), part=(3, 6))
    rows = helpers.region_rows(once)
    once.records[12].path.write_bytes(b"no picture")
    options: dict[str, Any] = {"table": table, "reuse": [tmp_path / "donor"], "batch": 1}
    reference = helpers.build(source, tmp_path / "reference", helpers.Teacher(), **options)
    killed: list[tuple[int, int, set[int]]] = []

    def kill_one() -> None:
        """When a shard is committed, both workers embed, and one of them is in the middle of another shard."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = done_shards(folder / "hidden") & done_shards(folder / "visual")
            found = seen(logs)
            for process, names in found.items() if done and len(found) == 2 else ():
                for shard, count in Counter(rows[name] // 32 for name in names).items():
                    if shard not in done and 8 <= count <= 16:
                        os.kill(process, signal.SIGKILL)
                        killed.append((process, shard, done))
                        return
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one)
    killer.start()
    load_teacher = partial(logging_teacher, helpers.Teacher, logs, delay=0.1)
    report = build_on_ray(source, table, folder, helpers, reuse=options["reuse"], load_teacher=load_teacher)
    killer.join()

    [(victim, lost, committed)] = killed
    by_process = seen(logs)
    assert len(by_process) == 3, "another worker took its place"
    assert os.getpid() not in by_process
    tree = helpers.file_tree(folder)
    assert {name: tree[name] for name in tree if ".partial" not in name} == helpers.file_tree(tmp_path / "reference")
    assert report.set_aside == reference.set_aside
    assert len(report.set_aside) == 9
    for name in ("embedded", "reused", "duplicates", "computed_shards", "missing_shards", "dim"):
        assert getattr(report, name) == getattr(reference, name)
    assert (report.embedded, report.reused, report.computed_shards, report.dim) == (133, 32, 12, 8)
    assert report.forecast is not None

    times = Counter(chain.from_iterable(by_process.values()))
    assert len(times) == report.embedded
    assert set(times.values()) == {1, 2}
    twice = {name for name, count in times.items() if count == 2}
    assert twice <= set(by_process[victim])
    assert {rows[name] // 32 for name in twice} == {lost}, "only the shard in flight is embedded again"
    assert lost not in committed


def nothing_finite(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
    embeddings.hidden[:] = np.nan
    return embeddings


def test_an_error_of_a_worker_is_raised_here_as_it_is(
    cluster: None, source: DetectionSource, table: RegionTable, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    load_teacher = partial(helpers.Teacher, damage=nothing_finite)
    with pytest.raises(EmbeddingError) as caught:
        build_on_ray(source, table, tmp_path / "cache", helpers, load_teacher=load_teacher, batch=4, rows_per_shard=96)
    assert type(caught.value) is EmbeddingError
    assert re.fullmatch(r"embeddings must be finite .*; try --dtype float32", str(caught.value))
    assert not done_shards(tmp_path / "cache" / "hidden")


def dies() -> None:
    os._exit(3)


def test_workers_that_die_again_and_again_end_the_build(
    cluster: None,
    source: DetectionSource,
    table: RegionTable,
    tmp_path: Path,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mocha_pipe.teacher_cache.building import ray_engine

    monkeypatch.setattr(ray_engine, "RETRIES", 0)
    with pytest.raises(TeacherError) as caught:
        build_on_ray(source, table, tmp_path / "cache", helpers, load_teacher=dies, rows_per_shard=96)
    assert re.fullmatch(
        r"a Ray worker must live as long as a shard takes; 1 in a row died on the same one \(.+\); see their logs "
        r"\(`ray logs`\), free memory or pass a smaller --batch, and run the same command again: it goes on after the "
        r"last finished shard",
        str(caught.value),
    )


def test_a_node_that_does_not_see_the_cache_says_so(tmp_path: Path, helpers: SimpleNamespace) -> None:
    from mocha_pipe.teacher_cache.building.ray_engine import ShardWorker

    worker = ShardWorker(tmp_path / "cache", None, None, None, [], 1)  # type: ignore[arg-type]
    with pytest.raises(CacheNotFoundError) as caught:
        worker.embed(0)
    assert str(caught.value) == (
        f"all nodes of a Ray cluster must see the cache; {platform.node()} has nothing at {tmp_path / 'cache'}; put "
        "cache and images on a disk that they share, or build in parts with --part and join them with `mocha-pipe "
        "cache merge`"
    )


def test_a_complete_cache_needs_no_worker(
    source: DetectionSource, finished: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocha_pipe.teacher_cache.building.build._ray_engine", None)
    assert helpers.build(source, finished, None, engine="ray").computed_shards == 0


def test_without_ray_the_error_says_how_to_get_it(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "mocha_pipe.teacher_cache.building.ray_engine", raising=False)
    with pytest.raises(TeacherError) as caught:
        helpers.build(source, tmp_path / "cache", None, engine="ray")
    assert str(caught.value) == (
        "--engine ray needs the package ray, which is not installed (ray); install it with: pip install "
        "'mocha-pipe[ray]'"
    )
    assert not RegionCache.open(tmp_path / "cache").is_complete
