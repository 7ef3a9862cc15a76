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
    source: DetectionSource, folder: Path, helpers: SimpleNamespace, *, delay: float = 0.0, **options: Any
) -> BuildReport:
    load_teacher = partial(logging_teacher, helpers.Teacher, folder.parent / "logs", delay=delay)
    options = {"batch": 1, "rows_per_shard": 32, "engine": "ray", "load_teacher": load_teacher, **options}
    return build_cache(source, RegionTable.build(source), folder, spec=helpers.spec, **options)


def seen(logs: Path) -> dict[int, list[str]]:
    """What the teacher of each process saw."""
    return {int(path.stem): path.read_text().splitlines() for path in logs.glob("*.log")}


def test_each_region_is_embedded_once_and_the_bytes_are_those_of_one_process(
    cluster: None, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    """Also where equal regions lie in shards of both workers."""
    twice = helpers.repeated(source)
    helpers.build(twice, tmp_path / "reference", helpers.Teacher())
    report = build_on_ray(twice, tmp_path / "cache", helpers, delay=0.05)
    assert (report.embedded, report.duplicates, report.computed_shards, report.dim) == (85, 107, 6, 8)
    assert report.forecast is not None
    by_process = seen(tmp_path / "logs")
    assert len(by_process) == 2
    assert os.getpid() not in by_process
    assert set(Counter(chain.from_iterable(by_process.values())).values()) == {1}
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(tmp_path / "reference")


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(
    cluster: None, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    source, folder = helpers.make_source(tmp_path / "images", images=50), tmp_path / "cache"
    helpers.build(source, tmp_path / "reference", helpers.Teacher())
    killed: list[tuple[int, int, set[int]]] = []

    def kill_one() -> None:
        """When a shard is committed and both workers are in the middle of another one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = done_shards(folder / "hidden") & done_shards(folder / "visual")
            logs = seen(tmp_path / "logs")
            if done and len(logs) == 2:
                victim = min(logs)
                if len(logs[victim]) % 32 in (8, 16):
                    os.kill(victim, signal.SIGKILL)
                    killed.append((victim, len(logs[victim]), done))
                    return
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = build_on_ray(source, folder, helpers, delay=0.1)
    killer.join()
    [(victim, _, committed)] = killed
    by_process = seen(tmp_path / "logs")
    assert len(by_process) == 3, "another worker took its place"
    assert (report.missing_shards, report.dim) == (0, 8)
    tree = helpers.file_tree(folder)
    assert {name: tree[name] for name in tree if ".partial" not in name} == helpers.file_tree(tmp_path / "reference")
    others = {name for process, names in by_process.items() if process != victim for name in names}
    lost = set(by_process[victim]) - others
    assert len(lost) % 32 == 0, "only shards that it had finished were not embedded again"
    assert len(lost) <= 32 * len(committed)


def test_workers_copy_from_other_caches_and_set_aside_like_this_process(
    cluster: None, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    source = helpers.make_source(tmp_path / "images")
    table = RegionTable.build(source)
    helpers.build(source, tmp_path / "donor", helpers.Teacher(), part=(0, 2))
    source.records[12].path.write_bytes(b"no picture")
    options = {"spec": helpers.spec, "load_teacher": helpers.Teacher, "rows_per_shard": 32}
    options["reuse"] = [tmp_path / "donor"]
    report = build_cache(source, table, tmp_path / "cache", engine="ray", **options)
    here = build_cache(source, table, tmp_path / "here", **options)
    assert report.set_aside == here.set_aside
    assert (len(report.set_aside), report.reused, report.embedded) == (4, 53, 28)
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(tmp_path / "here")


def nothing_finite(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
    embeddings.hidden[:] = np.nan
    return embeddings


def test_an_error_of_a_worker_is_raised_here_as_it_is(
    cluster: None, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    load_teacher = partial(logging_teacher, helpers.Teacher, tmp_path / "logs", damage=nothing_finite)
    with pytest.raises(EmbeddingError) as caught:
        build_on_ray(source, tmp_path / "cache", helpers, load_teacher=load_teacher, batch=4)
    assert type(caught.value) is EmbeddingError
    assert re.fullmatch(r"embeddings must be finite .*; try --dtype float32", str(caught.value))
    assert not done_shards(tmp_path / "cache" / "hidden")


def dies() -> None:
    os._exit(3)


def test_workers_that_die_again_and_again_end_the_build(
    cluster: None, source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mocha_pipe.teacher_cache.building import ray_engine

    monkeypatch.setattr(ray_engine, "RETRIES", 0)
    with pytest.raises(TeacherError) as caught:
        build_on_ray(source, tmp_path / "cache", helpers, load_teacher=dies)
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
