"""`mocha-pipe data regions`, and what the rest of the pipeline makes of its data set."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mocha_pipe.data.source import open_source

Command = Callable[..., Result]


@pytest.fixture
def pictures(world: Path, tmp_path: Path) -> Path:
    """The miniature's scenes without their labels."""
    return Path(shutil.copytree(world / "images", tmp_path / "my pictures"))


def test_it_prints_what_it_wrote_and_what_comes_next(command: Command, pictures: Path) -> None:
    result = command("data", "regions", pictures, "--out", "my regions", "--crops", "2", "--whole")
    assert result.exit_code == 0, result.stderr
    assert "boxes: crops" in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "see what the teacher would cost: mocha-pipe cache plan --data 'my regions/data.yaml'"
    )
    again = command("data", "regions", pictures, "--out", "my regions", "--crops", "2", "--whole", "--json")
    told = json.loads(again.stdout)
    assert told["already_complete"] is True
    assert told["data"] == "my regions/data.yaml"
    assert told["boxes"] == {"whole": 8, "crops": 16}
    assert (told["train"] + told["val"], told["linked"], told["duplicates"]) == (8, 8, 0)


def test_an_unreadable_picture_is_named_and_ends_with_exit_code_1(command: Command, pictures: Path) -> None:
    (pictures / "bad.jpg").write_bytes(b"no picture")
    for _ in range(2):  # written, then complete
        result = command("data", "regions", pictures, "--out", "out", "--crops", "1")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == (
            f"left out: {pictures}/bad.jpg: cannot be read as an image (no known image format); replace or remove the "
            "file"
        )
    assert command("data", "check", "out/data.yaml").exit_code == 0


def test_a_mistake_ends_in_one_line(command: Command, pictures: Path) -> None:
    result = command("data", "regions", pictures, "--out", "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: boxes come from --detector WEIGHTS.pt, --whole, --crops N")
    assert len(result.stderr.splitlines()) == 1


def test_a_data_set_keeps_its_boxes_and_splits(command: Command, world: Path) -> None:
    result = command("data", "regions", world / "data.yaml", "--out", "out", "--ground-truth", "--crops", "1", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["train"], told["val"]) == (6, 2)
    before, after = (open_source(data, "train") for data in (world / "data.yaml", Path("out/data.yaml")))
    assert after.class_names == (*before.class_names, "region")
    assert after.num_regions == before.num_regions + 6


def test_the_teacher_embeds_them(command: Command, pictures: Path) -> None:
    command("data", "regions", pictures, "--out", "out", "--crops", "4", "--val-share", "0.2")
    check = command("data", "check", "out/data.yaml")
    assert check.exit_code == 0, check.stdout
    settings = ("--data", "out/data.yaml", "--cache", "cache", "--device", "cpu")
    built = command("cache", "build", *settings, "--json")
    assert built.exit_code == 0, built.stderr
    train = open_source(Path("out/data.yaml"), "train")
    assert json.loads(built.stdout)["embedded"] == train.num_regions == 4 * len(train.records)
    verified = command("cache", "verify", "cache")
    assert verified.exit_code == 0, verified.stdout
