"""The soak on a small scale, with real processes and real kills."""

import json
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.soak import __main__ as soak
from bench.soak import killing
from bench.soak.__main__ import SoakReport, app, run_soak
from bench.soak.damage import Damage
from bench.soak.killing import Moment, make_world, start_build, strike
from mocha_pipe.teacher_cache.store.layout import done_shards


def test_three_kills_leave_no_damage(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    result = CliRunner().invoke(app, ["--kills", "3", "--scenes", "44", "--root", str(tmp_path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())["figures"]
    found = {name: (figure["value"], figure["target"], figure["better"]) for name, figure in figures.items()}
    assert found.pop("kills")[1:] == (3, "higher")
    assert found == dict.fromkeys(("lost", "duplicated", "torn", "recomputed_committed", "destroyed"), (0, 0, "lower"))
    assert figures["kills"]["value"] >= 3
    assert [path.name for path in tmp_path.iterdir()] == ["soak.json"]


@pytest.mark.parametrize("moment", ["projection", "targets"])
def test_a_build_is_struck_where_it_is_wanted(moment: Moment, tmp_path: Path) -> None:
    world = make_world(tmp_path / "world", 44)
    build = start_build(world, tmp_path / "cache", tmp_path / "log")
    strike(build, moment, tmp_path / "cache", world.plan, np.random.default_rng(0))
    assert build.exitcode in (-signal.SIGKILL, 0)
    assert killing.committed(tmp_path / "cache") == set(range(len(world.plan)))
    if moment == "targets":
        assert done_shards(tmp_path / "cache" / "targets")


def test_damage_ends_the_command_with_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = SoakReport(kills=4, caches=2, phases=Counter(embedding=4), damage=Damage(torn=1))
    monkeypatch.setattr(soak, "run_soak", lambda *_args, **_options: report)
    result = CliRunner().invoke(app, ["--kills", "4", "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert json.loads((tmp_path / "soak.json").read_text())["figures"]["torn"]["value"] == 1


def test_too_few_kills_miss_the_target() -> None:
    assert not SoakReport(kills=3).figures(4)["kills"].is_met


def test_a_build_that_fails_by_itself_is_no_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, scenes: int) -> killing.World:
        world = make_world(folder, scenes)
        (world.source.records[3].path).unlink()
        return world

    monkeypatch.setattr(soak, "make_world", broken)
    monkeypatch.setattr(soak, "regions_by_name", lambda _world: {})
    with pytest.raises(RuntimeError, match=r"exit code 1:\n(.|\n)*no such image"):
        run_soak(tmp_path, kills=1, scenes=44)


def test_a_build_that_hangs_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path / "world", 20)
    monkeypatch.setattr(killing, "DEADLINE", 0.0)
    build = start_build(world, tmp_path / "cache", tmp_path / "log")
    with pytest.raises(TimeoutError, match="a build hangs: end did not come in 0 s"):
        strike(build, "end", tmp_path / "cache", world.plan, np.random.default_rng(0))
    build.kill()
    build.join()
