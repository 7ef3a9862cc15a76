"""Several builds of one cache: real processes at once, one of them killed, and builds that each do a part."""

import os
import time
from collections import Counter
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building import build as build_module
from mocha_pipe.teacher_cache.building import shard_order
from mocha_pipe.teacher_cache.building.build import open_or_create
from mocha_pipe.teacher_cache.building.shard_order import claimed_shards, earlier_shards
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.store.layout import done_shards, shard_path, shard_size
from tests.teacher_cache.fakes import FakeTeacher, another_process, build

DELAY = 0.04  # a call of the teacher; four calls a shard


def build_in_another_process(
    connection: Connection, source: DetectionSource, folder: Path, log: Path, delay: float, options: dict[str, Any]
) -> None:
    """Builds when it is told to, and answers with its report."""
    connection.send("ready")
    connection.recv()
    connection.send(build(source, folder, FakeTeacher(delay=delay, log=log), batch=1, **options))


class Builds:
    """Processes that build the same cache and start together."""

    def __init__(self, source: DetectionSource, folder: Path, *options: dict[str, Any], delay: float = DELAY) -> None:
        self.folder, self._stack = folder, ExitStack()
        self.logs = [folder.parent / f"{folder.name}-{number}.log" for number in range(len(options))]
        started = [
            self._stack.enter_context(another_process(build_in_another_process, source, folder, log, delay, option))
            for log, option in zip(self.logs, options, strict=True)
        ]
        self.processes, self._connections = zip(*started, strict=True)

    def __enter__(self) -> "Builds":
        for connection in self._connections:
            assert connection.recv() == "ready"
        for connection in self._connections:
            connection.send("go")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def report(self, number: int) -> build_module.BuildReport:
        """When the process has ended well."""
        assert self._connections[number].poll(60)
        report: build_module.BuildReport = self._connections[number].recv()
        return report

    def embedded(self, number: int) -> list[str]:
        """Names of the regions that its teacher saw."""
        return self.logs[number].read_text().splitlines() if self.logs[number].exists() else []

    def done(self) -> set[int]:
        return done_shards(self.folder / "hidden") & done_shards(self.folder / "visual")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, helpers: SimpleNamespace) -> DetectionSource:
    """169 regions: six shards."""
    source: DetectionSource = helpers.make_source(tmp_path_factory.mktemp("large"), images=50)
    assert source.num_regions == 169
    return source


@pytest.fixture(scope="module")
def reference(
    large: DetectionSource, tmp_path_factory: pytest.TempPathFactory, helpers: SimpleNamespace
) -> dict[str, bytes]:
    """What a single build leaves."""
    folder = tmp_path_factory.mktemp("reference") / "cache"
    helpers.build(large, folder, helpers.Teacher())
    tree: dict[str, bytes] = helpers.file_tree(folder)
    return tree


@pytest.fixture(scope="module")
def twice(large: DetectionSource, helpers: SimpleNamespace) -> DetectionSource:
    """Equal regions in several shards: twelve of them."""
    source: DetectionSource = helpers.repeated(large)
    return source


@pytest.fixture(scope="module")
def reference_of_twice(
    twice: DetectionSource, tmp_path_factory: pytest.TempPathFactory, helpers: SimpleNamespace
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("reference-of-twice") / "cache"
    helpers.build(twice, folder, helpers.Teacher())
    tree: dict[str, bytes] = helpers.file_tree(folder)
    return tree


def test_two_builds_at_once_share_the_work(
    twice: DetectionSource, reference_of_twice: dict[str, bytes], tmp_path: Path, helpers: SimpleNamespace
) -> None:
    """Each region goes through one teacher, also where equal regions lie in shards of both."""
    table = RegionTable.build(twice)
    with Builds(twice, tmp_path / "cache", {}, {}) as builds:
        reports = [builds.report(number) for number in range(2)]
    shards = -(-len(table) // 32)
    assert sum(report.embedded for report in reports) == table.num_distinct == 169
    assert sum(report.computed_shards for report in reports) == shards == 12
    assert all(report.computed_shards > 0 for report in reports)
    assert [(report.missing_shards, report.dim) for report in reports] == [(0, 8), (0, 8)]
    seen = Counter(builds.embedded(0) + builds.embedded(1))
    assert len(seen) == 169
    assert set(seen.values()) == {1}
    assert helpers.file_tree(tmp_path / "cache") == reference_of_twice


def test_when_one_of_two_builds_is_killed_the_other_does_all_that_is_left(
    large: DetectionSource, reference: dict[str, bytes], tmp_path: Path, helpers: SimpleNamespace
) -> None:
    with Builds(large, tmp_path / "cache", {}, {}) as builds:
        victim, deadline = builds.processes[0], time.monotonic() + 60
        while len(builds.embedded(0)) < 8 or not builds.done():  # in the middle, and something is committed
            assert victim.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        victim.kill()
        victim.join()
        assert victim.exitcode == -9
        committed = builds.done()
        assert len(committed) < 6
        report = builds.report(1)
    assert (report.missing_shards, report.dim) == (0, 8)
    tree = helpers.file_tree(tmp_path / "cache")
    left = {name for name in tree if ".partial" in name}  # half a file of the killed one, swept when it is old
    assert {name: content for name, content in tree.items() if name not in left} == reference
    names = helpers.region_rows(large)
    again = {names[name] // 32 for name in set(builds.embedded(0)) & set(builds.embedded(1))}
    assert not again & committed, "a committed shard was embedded again"
    assert set(builds.embedded(0)) | set(builds.embedded(1)) == set(names)


class Claims:
    """Everything is free but what another build is at."""

    def __init__(self, *taken: int) -> None:
        self.taken, self.mine = set(taken), set[int]()

    def take(self, shard: int) -> bool:
        self.mine |= {shard} - self.taken
        return shard not in self.taken

    def release(self, shard: int) -> None:
        self.mine -= {shard}


def finish(folder: Path, shard: int) -> None:
    for name in ("hidden", "visual"):
        path = shard_path(folder / name, shard)
        path.touch()
        cache = RegionCache.open(folder)
        os.truncate(path, shard_size(cache.plan, shard, cache.spec.arrays[name]))  # which takes no room


@pytest.fixture
def needy(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> SimpleNamespace:
    """An empty cache of six shards, the last four of which need earlier ones."""
    twice = helpers.repeated(source)
    table = RegionTable.build(twice)
    cache = open_or_create(tmp_path / "cache", table, helpers.spec, 32)
    assert earlier_shards(table, cache.plan) == [set(), set(), {0}, {0, 1}, {0, 1}, {1, 2}]
    return SimpleNamespace(cache=cache, table=table, folder=tmp_path / "cache")


def test_a_shard_waits_for_those_that_it_copies_from(needy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_order, "POLL_SECONDS", 0)
    claims, waited, given = Claims(0), list[int](), list[int | None]()

    def other_build(pending: int) -> None:
        waited.append(pending)
        finish(needy.folder, 0)

    for shard in claimed_shards(needy.cache, needy.table, claims, None, other_build):  # type: ignore[arg-type]
        given.append(shard)
        if shard is not None:
            finish(needy.folder, shard)
    # First what needs nothing of shard 0, then the rest when the other build has written it.
    assert given == [1, None, None, 2, 3, 4, 5, None]
    assert waited == [5]


def test_what_a_dead_build_held_is_taken_over(needy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_order, "POLL_SECONDS", 0)
    claims, given = Claims(0, 1), list[int | None]()

    def dies(_: int) -> None:
        claims.taken.clear()

    for shard in claimed_shards(needy.cache, needy.table, claims, None, dies):  # type: ignore[arg-type]
        given.append(shard)
        if shard is not None:
            finish(needy.folder, shard)
    assert given == [None, 0, 1, 2, 3, 4, 5, None]


def test_a_shard_that_was_finished_since_the_listing_is_given_back(needy: SimpleNamespace) -> None:
    class Late(Claims):
        def take(self, shard: int) -> bool:
            if shard == 1:
                finish(needy.folder, 1)  # and its holder let go
            return super().take(shard)

    claims, given = Late(), list[int | None]()
    for shard in claimed_shards(needy.cache, needy.table, claims, None, print):  # type: ignore[arg-type]
        given.append(shard)
        if shard is not None:
            finish(needy.folder, shard)
    assert given == [0, 2, 3, 4, 5, None]
    assert 1 not in claims.mine


def test_parts_in_two_processes_make_the_whole(
    large: DetectionSource, reference: dict[str, bytes], tmp_path: Path, helpers: SimpleNamespace
) -> None:
    with Builds(large, tmp_path / "cache", {"part": (0, 2)}, {"part": (1, 2)}, delay=0.01) as builds:
        reports = [builds.report(number) for number in range(2)]
    assert [(report.embedded, report.computed_shards) for report in reports] == [(96, 3), (73, 3)]
    assert 8 in [report.dim for report in reports], "the one that wrote the last shard derives"
    assert helpers.file_tree(tmp_path / "cache") == reference


def test_a_part_that_ends_while_another_writes_the_last_shard_says_what_it_saw(
    large: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of this part's work and its report the other one has its shards, and not yet its targets."""
    folder, leave = tmp_path / "cache", ShardClaims.__exit__

    def others_finish(claims: ShardClaims, *error: Any) -> None:
        leave(claims, *error)
        with monkeypatch.context() as patch:
            patch.setattr(ShardClaims, "__exit__", leave)
            patch.setattr(build_module, "derive_targets", stopped)
            with pytest.raises(InterruptedError):
                helpers.build(large, folder, helpers.Teacher(), part=(1, 2))

    def stopped(*_: Any, **__: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(ShardClaims, "__exit__", others_finish)
    report = helpers.build(large, folder, helpers.Teacher(), part=(0, 2))
    assert (report.computed_shards, report.missing_shards, report.dim) == (3, 3, None)


def test_a_part_does_its_shards_and_says_what_is_left(
    large: DetectionSource, reference: dict[str, bytes], tmp_path: Path, helpers: SimpleNamespace
) -> None:
    folder = tmp_path / "cache"
    first = helpers.build(large, folder, helpers.Teacher(), part=(1, 4))
    assert done_shards(folder / "hidden") == {1, 5}
    assert (first.computed_shards, first.skipped_shards, first.missing_shards, first.dim) == (2, 0, 4, None)
    again = helpers.build(large, folder, None, part=(1, 4))
    assert (again.computed_shards, again.skipped_shards, again.missing_shards) == (0, 2, 4)
    teacher = helpers.Teacher()
    last = helpers.build(large, folder, teacher)
    assert (last.computed_shards, last.skipped_shards, last.missing_shards, last.dim) == (4, 2, 0, 8)
    assert sum(teacher.calls) == 128
    assert helpers.file_tree(folder) == reference


def test_the_part_that_finds_all_shards_there_derives_the_targets(
    large: DetectionSource, reference: dict[str, bytes], tmp_path: Path, helpers: SimpleNamespace
) -> None:
    folder = tmp_path / "cache"
    dims = [helpers.build(large, folder, helpers.Teacher(), part=(index, 3)).dim for index in (2, 0, 1)]
    assert dims == [None, None, 8]
    assert helpers.file_tree(folder) == reference


def test_a_part_never_waits_for_another(
    twice: DetectionSource, reference_of_twice: dict[str, bytes], tmp_path: Path, helpers: SimpleNamespace
) -> None:
    """What stands in a shard of another part it embeds itself; the bits are the same."""
    for index in (1, 0):
        helpers.build(twice, tmp_path / "cache", helpers.Teacher(), part=(index, 2))
    assert RegionCache.open(tmp_path / "cache").is_complete
    assert helpers.file_tree(tmp_path / "cache") == reference_of_twice


def test_more_parts_than_shards_leave_the_last_ones_without_work(
    large: DetectionSource, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    report = helpers.build(large, tmp_path / "cache", None, part=(9, 10))
    assert (report.computed_shards, report.missing_shards) == (0, 6)


def test_the_bar_of_a_part_counts_its_own_regions(
    large: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    helpers.build(large, tmp_path / "cache", helpers.Teacher(), part=(1, 2), progress=True)
    shown = capfd.readouterr().err
    assert "73/73" in shown
    assert "169" not in shown
