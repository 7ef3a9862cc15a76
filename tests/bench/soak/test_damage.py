"""Whatever goes wrong with a cache under kills is seen, and counted as what it is."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.soak.damage import Damage, Watch, regions_by_name
from bench.soak.killing import ROWS_PER_SHARD, World, committed, phase_of
from bench.synthetic import Look, read_log
from mocha_pipe.teacher_cache.store.layout import shard_path, write_shard
from mocha_pipe.teacher_cache.store.reader import ShardRows


@pytest.fixture
def watch(world: World, reference: Path, tmp_path: Path) -> Watch:
    """Over a finished copy that was looked at."""
    folder = Path(shutil.copytree(reference, tmp_path / "cache"))
    watch = Watch(world, folder, reference, Damage())
    watch.look()
    assert watch.damage == Damage()
    return watch


def finish(watch: Watch, looks: list[Look] | None = None, died: dict[int, int] | None = None) -> Damage:
    if looks is None:
        looks = read_log(watch.reference.parent / "log")
    watch.finish(looks, regions_by_name(watch.world), died or {})
    return watch.damage


def test_the_world_has_what_builds_stumble_over(world: World, reference: Path) -> None:
    assert sum(not record.readable for record in world.source.records) == 1
    assert world.table.num_distinct < len(world.table)
    assert len(world.plan) >= 3
    assert committed(reference) == set(range(len(world.plan)))


def test_an_undisturbed_build_has_no_damage(watch: Watch) -> None:
    assert finish(watch) == Damage()


def test_what_a_killed_write_leaves_behind_is_no_damage(watch: Watch) -> None:
    (watch.folder / "hidden" / ".c.1.77-abc.partial.0").write_bytes(b"half")
    assert finish(watch) == Damage()


def test_a_shard_that_goes_is_lost(watch: Watch) -> None:
    shard_path(watch.folder / "visual", 1).unlink()
    watch.look()
    assert watch.damage == Damage(lost=ROWS_PER_SHARD)
    watch.look()
    assert watch.damage.lost == ROWS_PER_SHARD, "counted once"


def test_a_shard_that_a_finished_cache_lacks_is_lost(watch: Watch) -> None:
    shard_path(watch.folder / "targets", 0).unlink()
    assert finish(watch) == Damage(lost=ROWS_PER_SHARD)


def rewrite(watch: Watch, name: str, shard: int, change: Callable[[np.ndarray], None]) -> None:
    rows = ShardRows(watch.folder / name, watch.world.plan)
    values = np.array(rows.block(*watch.world.plan.span(shard)))
    change(values)
    write_shard(watch.folder / name, watch.world.plan, shard, values)


def test_rows_with_another_regions_numbers_are_duplicated(watch: Watch) -> None:
    def repeat(values: np.ndarray) -> None:
        values[2:4] = values[8:10]

    rewrite(watch, "targets", 0, repeat)
    watch.look()
    assert watch.damage == Damage(duplicated=2)


def test_rows_with_numbers_that_nobody_wrote_are_torn(watch: Watch) -> None:
    def zero(values: np.ndarray) -> None:
        values[5:8] = 0

    rewrite(watch, "targets", 1, zero)
    watch.look()
    assert watch.damage == Damage(torn=3)


def test_a_file_in_part_is_torn(watch: Watch) -> None:
    path = shard_path(watch.folder / "targets", 0)
    path.write_bytes(path.read_bytes()[:-10])
    watch.look()
    assert watch.damage == Damage(torn=ROWS_PER_SHARD)


def test_another_projection_is_torn(watch: Watch) -> None:
    path = watch.folder / "projection.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert finish(watch).torn == len(watch.world.table)


def test_a_committed_shard_that_is_written_again_is_recomputed(watch: Watch) -> None:
    path = shard_path(watch.folder / "hidden", 0)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    watch.look()
    assert watch.damage == Damage(recomputed_committed=ROWS_PER_SHARD)


def test_a_region_of_a_committed_shard_that_is_embedded_again_is_recomputed(watch: Watch) -> None:
    looks = read_log(watch.reference.parent / "log")
    again = Look(time.monotonic_ns(), 77, looks[0].region)
    assert finish(watch, [*looks, again], died={looks[0].process: looks[-1].time_ns}) == Damage(recomputed_committed=1)


def test_a_region_that_two_builds_embed_side_by_side_is_recomputed(watch: Watch) -> None:
    first, *others = read_log(watch.reference.parent / "log")
    again = Look(first.time_ns + 1, 77, first.region)
    assert finish(watch, [first, again, *others]) == Damage(recomputed_committed=1)


def test_work_that_a_kill_destroyed_may_be_done_again(watch: Watch) -> None:
    first, *others = read_log(watch.reference.parent / "log")
    killed = Look(first.time_ns - 10, 77, first.region)
    assert finish(watch, [killed, first, *others], died={77: first.time_ns - 5}) == Damage()


def test_a_region_that_nobody_looked_at_is_lost(watch: Watch) -> None:
    looks = read_log(watch.reference.parent / "log")
    assert finish(watch, [look for look in looks if look.region != looks[0].region]) == Damage(lost=1)


def test_how_far_a_build_had_come(watch: Watch) -> None:
    plan, folder = watch.world.plan, watch.folder
    began = time.time() - 1
    found = [phase_of(folder, plan, began)]
    shard_path(folder / "targets", 1).unlink()
    found.append(phase_of(folder, plan, began))
    shutil.rmtree(folder / "targets")
    found.append(phase_of(folder, plan, began))
    shard_path(folder / "visual", 0).unlink()
    found.append(phase_of(folder, plan, began))
    (folder / "visual" / ".c.0.77-abc.partial.0").touch()
    found.append(phase_of(folder, plan, began))
    assert phase_of(folder, plan, time.time() + 1) == "embedding", "an earlier build left it"
    found.append(phase_of(folder.parent / "none", plan, began))
    assert found == ["end", "targets", "projection", "embedding", "writing", "start"]
