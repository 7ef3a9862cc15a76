"""Several builds of one cache: real processes at once, one of them killed, and builds that each do a part."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mocha_pipe.data.images import read_image
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building import build as build_module
from mocha_pipe.teacher_cache.building import shard_order as schedule
from mocha_pipe.teacher_cache.building.build import open_or_create
from mocha_pipe.teacher_cache.building.shard_order import claimed_shards, earlier_shards
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.claims import ShardClaims
from mocha_pipe.teacher_cache.store.layout import done_shards

BUILD = """
images, folder, log, delay, options = arguments
source = helpers.make_source(Path(images), images=50)
options = json.loads(options)
if options.pop("repeated", False):
    source = helpers.repeated(source)
teacher = helpers.FakeTeacher(delay=float(delay), log=Path(log))
print("ready", flush=True)
sys.stdin.readline()
report = helpers.build(source, Path(folder), teacher, batch=1, **options)
print(json.dumps([report.embedded, report.computed_shards, report.missing_shards, report.dim]), flush=True)
"""
DELAY = 0.04  # a call of the teacher; four calls a shard


class Builds:
    """Processes that build the same cache and start together."""

    def __init__(self, helpers: SimpleNamespace, folder: Path, *options: dict[str, Any], delay: float = DELAY) -> None:
        root = folder.parent
        self.folder, self._stack = folder, ExitStack()
        self.logs = [root / f"{folder.name}-{number}.log" for number in range(len(options))]
        self.processes: list[subprocess.Popen[str]] = [
            self._stack.enter_context(
                helpers.start_process(BUILD, root / "images", folder, log, delay, json.dumps(option))
            )
            for log, option in zip(self.logs, options, strict=True)
        ]

    def __enter__(self) -> "Builds":
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        self._stack.close()

    def report(self, number: int) -> list[Any]:
        """Embedded regions, computed and missing shards, and width of the targets, when the process has ended well."""
        output, _ = self.processes[number].communicate(timeout=60)
        assert self.processes[number].returncode == 0
        return list(json.loads(output))

    def embedded(self, number: int) -> list[str]:
        """Names of the regions that its teacher saw."""
        return self.logs[number].read_text().splitlines() if self.logs[number].exists() else []

    def done(self) -> set[int]:
        return done_shards(self.folder / "hidden") & done_shards(self.folder / "visual")


@pytest.fixture
def large(tmp_path: Path, helpers: SimpleNamespace) -> DetectionSource:
    """169 regions: six shards."""
    source: DetectionSource = helpers.make_source(tmp_path / "images", images=50)
    assert source.num_regions == 169
    return source


@pytest.fixture
def reference(large: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> Iterator[dict[str, bytes]]:
    """What a single build leaves."""
    helpers.build(large, tmp_path / "reference", helpers.Teacher())
    return helpers.file_tree(tmp_path / "reference")


def test_two_builds_at_once_share_the_work(large: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    """Each region goes through one teacher, also where equal regions lie in shards of both."""
    twice = helpers.repeated(large)
    helpers.build(twice, tmp_path / "reference", helpers.Teacher())
    table = RegionTable.build(twice)
    with Builds(helpers, tmp_path / "cache", {"repeated": True}, {"repeated": True}) as builds:
        reports = [builds.report(number) for number in range(2)]
    shards = -(-len(table) // 32)
    assert sum(embedded for embedded, *_ in reports) == table.num_distinct == 169
    assert sum(computed for _, computed, *_ in reports) == shards == 12
    assert all(computed > 0 for _, computed, *_ in reports)
    assert [rest for _, _, *rest in reports] == [[0, 8], [0, 8]]
    seen = Counter(builds.embedded(0) + builds.embedded(1))
    assert len(seen) == 169
    assert set(seen.values()) == {1}
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(tmp_path / "reference")


def test_when_one_of_two_builds_is_killed_the_other_does_all_that_is_left(
    reference: dict[str, bytes], tmp_path: Path, helpers: SimpleNamespace
) -> None:
    with Builds(helpers, tmp_path / "cache", {}, {}) as builds:
        victim, deadline = builds.processes[0], time.monotonic() + 60
        while len(builds.embedded(0)) < 8 or not builds.done():  # in the middle, and something is committed
            assert victim.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        victim.kill()
        assert victim.wait() == -9
        committed = builds.done()
        assert len(committed) < 6
        *_, missing, dim = builds.report(1)
    assert (missing, dim) == (0, 8)
    tree = helpers.file_tree(tmp_path / "cache")
    left = {name for name in tree if ".partial" in name}  # half a file of the killed one, swept when it is old
    assert {name: content for name, content in tree.items() if name not in left} == reference
    names = region_names(tmp_path, helpers)
    again = {names[name] // 32 for name in set(builds.embedded(0)) & set(builds.embedded(1))}
    assert not again & committed, "a committed shard was embedded again"
    assert set(builds.embedded(0)) | set(builds.embedded(1)) == set(names)


def region_names(tmp_path: Path, helpers: SimpleNamespace) -> dict[str, int]:
    """Row of each region by the name that the teacher logs."""
    source = helpers.make_source(tmp_path / "images", images=50)
    table, names = RegionTable.build(source), {}
    for row, image in enumerate(table.image_of_rows(np.arange(len(table)))):
        crop = cut_crop(read_image(source.records[image].path), table.xyxy[row], 0.1, 16)
        names[helpers.region_name(crop, table.class_names[table.class_ids[row]])] = row
    return names


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
        (folder / name / f"c.{shard}.0").touch()


@pytest.fixture
def needy(source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> SimpleNamespace:
    """An empty cache of six shards, the last four of which need earlier ones."""
    twice = helpers.repeated(source)
    table = RegionTable.build(twice)
    cache = open_or_create(tmp_path / "cache", table, helpers.spec, 32)
    assert earlier_shards(table, cache.plan) == [set(), set(), {0}, {0, 1}, {0, 1}, {1, 2}]
    return SimpleNamespace(cache=cache, table=table, folder=tmp_path / "cache")


def test_a_shard_waits_for_those_that_it_copies_from(needy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0)
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
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0)
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
    reference: dict[str, bytes], tmp_path: Path, helpers: SimpleNamespace
) -> None:
    with Builds(helpers, tmp_path / "cache", {"part": (0, 2)}, {"part": (1, 2)}, delay=0.01) as builds:
        reports = [builds.report(number) for number in range(2)]
    assert [report[:2] for report in reports] == [[96, 3], [73, 3]]
    assert 8 in [dim for *_, dim in reports], "the one that wrote the last shard derives"
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


def test_a_part_never_waits_for_another(large: DetectionSource, tmp_path: Path, helpers: SimpleNamespace) -> None:
    """What stands in a shard of another part it embeds itself; the bits are the same."""
    twice = helpers.repeated(large)
    helpers.build(twice, tmp_path / "whole", helpers.Teacher())
    for index in (1, 0):
        helpers.build(twice, tmp_path / "cache", helpers.Teacher(), part=(index, 2))
    assert RegionCache.open(tmp_path / "cache").is_complete
    assert helpers.file_tree(tmp_path / "cache") == helpers.file_tree(tmp_path / "whole")


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
