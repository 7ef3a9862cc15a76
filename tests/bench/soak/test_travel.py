"""Caches that travel under kills: what is chosen, struck and counted."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.soak import travel
from bench.soak.damage import Damage
from bench.soak.killing import ROWS_PER_SHARD, World
from bench.soak.travel import Journey, Operation, Target
from mocha_pipe.teacher_cache.store.cache import RegionCache


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, reference: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Journey:
    operation, target = request.param
    monkeypatch.setattr(travel, "OPERATIONS", (operation,))
    monkeypatch.setattr(travel, "TARGETS", {target: 1.0})
    return travel.prepare(tmp_path, reference, np.random.default_rng(0))


JOURNEYS: list[tuple[Operation, Target]] = [("push", "nothing"), ("merge", "part"), ("pull", "big-endian")]


@pytest.mark.parametrize("chosen", JOURNEYS, indirect=True, ids="-".join)
def test_a_journey_under_a_kill_ends_without_damage(
    chosen: Journey, world: World, reference: Path, tmp_path: Path
) -> None:
    before, generator, damage = travel.watched(chosen), np.random.default_rng(1), Damage()
    travel.strike(travel.start(chosen, tmp_path / "log"), chosen, generator)
    process = travel.start(chosen, tmp_path / "log")
    process.join(60)
    said = (tmp_path / "log.stderr").read_text()
    assert process.exitcode == (travel.REFUSED if chosen.is_foreign else 0), said
    assert travel.destroyed(before) == 0
    if not chosen.is_foreign:
        travel.arrived(chosen, world, reference, damage)
        assert damage == Damage()
        (chosen.folder / "visual/c.0.0").unlink()
        travel.arrived(chosen, world, reference, damage)
        assert damage.lost >= ROWS_PER_SHARD


@pytest.mark.parametrize("chosen", [("push", "foreign")], indirect=True)
def test_a_shard_beside_a_foreign_layout_counts_as_destroyed(chosen: Journey, reference: Path) -> None:
    before = travel.watched(chosen)
    assert RegionCache.open(chosen.folder).missing_teacher_shards() == (0,)
    shutil.copy(reference / "hidden/c.0.0", chosen.folder / "hidden/c.0.0")
    assert travel.destroyed(before) > 0
