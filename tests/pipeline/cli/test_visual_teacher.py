"""The commands on a cache whose teacher is an image encoder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from mocha_pipe.pipeline.evaluation.methods import _load_oracle
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import shard_path
from tests.toy_encoders import toy_encoder  # noqa: F401

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(toy_encoder: Callable[[str], Path]) -> Path:  # noqa: F811
    return toy_encoder("dinov2")


@pytest.fixture(scope="module")
def built(world: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the world, 8 wide."""
    from typer.testing import CliRunner

    from mocha_pipe.pipeline.cli.main import app

    cache = tmp_path_factory.mktemp("built") / "cache"
    result = CliRunner().invoke(app, [*map(str, ["cache", "build", *on(world, folder, cache), "--dim", 8])])
    assert result.exit_code == 0, result.stderr
    return cache


def on(world: Path, teacher: Path, cache: Path) -> list[Any]:
    return ["--data", world / "data.yaml", "--teacher", teacher, "--cache", cache]


def test_the_plan_has_no_hidden_array(command: Command, world: Path, folder: Path, built: Path, tmp_path: Path) -> None:
    result = command("cache", "plan", *on(world, folder, tmp_path / "new"), "--dim", 8, "--sample", 8, "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert set(plan["bytes"]) == {"visual", "targets", "other"}
    assert plan["mode"] == "visual"
    assert {name: plan["bytes"][name] for name in ("visual", "targets")} == {
        name: shard_path(built / name, 0).stat().st_size for name in ("visual", "targets")
    }
    assert "visual mode" in command("cache", "plan", *on(world, folder, tmp_path / "new"), "--sample", 8).stdout


def test_info_says_what_the_teacher_sees_and_how_it_pools(command: Command, built: Path) -> None:
    lines = {line.split("  ")[0].strip(): line for line in command("cache", "info", built).stdout.splitlines()}
    assert "the middle 32 x 32 of 36 x 36 pixels, 88.9 % of each side" in lines["teacher's sees"]
    assert "visual: pooler_output" in lines["teacher's pooling"]
    assert "hidden" not in lines
    assert "teacher's hidden_dim" not in lines


def test_it_is_verified_repaired_and_audited(command: Command, world: Path, built: Path, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(built, tmp_path / "cache"))
    data = ["--data", world / "data.yaml"]
    assert command("cache", "verify", cache).stdout.endswith("shards: visual 1, targets 1: all sound\n")
    path = shard_path(cache / "visual", 0)
    path.write_bytes(path.read_bytes()[:-9])
    assert command("cache", "verify", cache).exit_code == 1
    result = command("cache", "verify", cache, "--repair", *data)
    assert result.exit_code == 0, result.stderr
    assert path.read_bytes() == shard_path(built / "visual", 0).read_bytes()
    result = command("cache", "audit", cache, "--rows", 6, *data)
    assert result.exit_code == 0, result.stderr
    assert "they agree" in result.stdout


def test_it_is_listed_without_hidden(command: Command, built: Path, tmp_path: Path) -> None:
    assert command("cache", "push", built, tmp_path / "share/coco").exit_code == 0
    row = next(line for line in command("cache", "ls", tmp_path / "share").stdout.splitlines() if "toy-dinov2" in line)
    assert row.split()[-6:-3] == ["-", "1/1", "1/1"] or " -  " in row
    assert command("cache", "pull", tmp_path / "share/coco", tmp_path / "mine").exit_code == 0
    assert not (tmp_path / "mine" / "hidden").exists()


def test_the_live_teacher_is_an_oracle_behind_the_projection(world: Path, built: Path) -> None:
    """The row `teacher` of the few-shot table."""
    from mocha_pipe.data.images import read_image
    from mocha_pipe.teacher_cache.crops import cut_crop

    describe, spec = _load_oracle(built)
    cache = RegionCache.open(built)
    image = read_image(world / "images/train" / Path(cache.table.image_names[0]).name)
    crop = cut_crop(image, cache.table.xyxy[0], spec.crop_margin, spec.crop_size)
    expected = cache.targets().lookup(np.array([0]))
    np.testing.assert_allclose(describe([crop], ["mug"]), expected, atol=2e-2)


def test_settings_of_a_language_model_are_one_line(command: Command, world: Path, folder: Path, tmp_path: Path) -> None:
    result = command("cache", "build", *on(world, folder, tmp_path / "new"), "--mode", "generate")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "error: an image encoder is asked nothing; 'toy-dinov2' is one, and found --mode generate; leave that "
        "out, or name a LLaVA: --teacher llava-hf/llava-1.5-7b-hf"
    )
    assert not (tmp_path / "new").exists()
