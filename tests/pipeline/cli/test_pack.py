"""`mocha-pipe data pack` and what reads its shards."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mocha_pipe.pipeline.settings.loading import load_config

Command = Callable[..., Result]


@pytest.fixture
def data(world: Path) -> Path:
    return world / "data.yaml"


def test_pack_prints_what_it_wrote_and_how_to_name_it(command: Command, data: Path, tmp_path: Path) -> None:
    result = command("data", "pack", "--data", data, "--out", tmp_path / "s", "--shard-size", "0.03")
    assert result.exit_code == 0, result.stderr
    pattern = f"{tmp_path}/s/train-{{000000..000004}}.tar"
    assert result.stdout.splitlines()[-1] == f"train from them: mocha-pipe distill --data '{pattern}'"
    again = command("data", "pack", "--data", data, "--out", tmp_path / "s", "--shard-size", "0.03", "--json")
    train, val = json.loads(again.stdout)
    assert (train["split"], train["images"], train["shards"], train["written"]) == ("train", 6, 5, 0)
    assert (val["split"], val["images"], val["shards"]) == ("val", 2, 1)


def test_split_and_size_are_passed_on(command: Command, data: Path, tmp_path: Path) -> None:
    result = command("data", "pack", "--data", data, "--out", tmp_path / "s", "--split", "val", "--json")
    (only,) = json.loads(result.stdout)
    assert (only["split"], only["shards"]) == ("val", 1)


def test_shards_are_checked_like_any_data_set(command: Command, data: Path, tmp_path: Path) -> None:
    command("data", "pack", "--data", data, "--out", tmp_path)
    result = command("data", "check", tmp_path / "train-{000000..000000}.tar", "--json")
    assert result.exit_code == 0, result.stderr
    assert [split["images"] for split in json.loads(result.stdout)["splits"]] == [6, 2]
    tar = tmp_path / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    result = command("data", "check", tmp_path / "dataset.json")
    assert result.exit_code == 2
    assert "; copy it again, or pack again" in result.stdout
    assert "Traceback" not in result.stderr


def test_a_mistake_ends_in_one_line(command: Command, data: Path, tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").write_bytes(b"precious")
    result = command("data", "pack", "--data", data, "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}: holds something that `data pack` did not write (train-0000")
    assert len(result.stderr.splitlines()) == 1


def test_without_data_it_is_the_miniature_world(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(
        "[miniature.size]\ntrain_scenes = 2\nval_scenes = 1\nobjects_per_shape = 2\nscenes_per_object = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    result = command("data", "pack", "--out", "shards", "--config", toml, "--json")
    assert [split["images"] for split in json.loads(result.stdout)] == [2, 1]


def test_shards_of_the_miniature_world_keep_its_settings(command: Command, world: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(world, tmp_path / "world"))
    photographs = load_config(None, {"data": {"path": own / "data.yaml"}})
    (own / "complete.json").write_text('{"stage": "miniature"}')
    of_folder = load_config(None, {"data": {"path": own / "data.yaml"}})
    assert of_folder.distill != photographs.distill
    command("data", "pack", "--data", own / "data.yaml", "--out", tmp_path / "s")
    command("data", "pack", "--data", tmp_path / "s/dataset.json", "--out", tmp_path / "again")
    for folder in ("s", "again"):
        for name in ("dataset.json", "train-{000000..000000}.tar"):
            assert load_config(None, {"data": {"path": tmp_path / folder / name}}).distill == of_folder.distill
