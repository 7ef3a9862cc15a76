"""A miniature world and its cache, which the commands read and nobody changes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.pipeline.cli.main import app


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training scenes, two validation scenes, and a benchmark of 16 objects in one scene each."""
    root = tmp_path_factory.mktemp("commands") / "miniature"
    size = WorldSize(train_scenes=6, val_scenes=2, objects_per_shape=2, scenes_per_object=1)
    make_miniature(root, size, seed=0, progress=False)
    return root


@pytest.fixture(scope="module")
def built(one_teacher: None, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the world, 8 wide."""
    folder = tmp_path_factory.mktemp("built") / "cache"
    arguments = ["cache", "build", "--data", world / "data.yaml", "--teacher", "miniature", "--cache", folder]
    result = CliRunner().invoke(app, [*map(str, arguments), "--dim", "8"])
    assert result.exit_code == 0, result.stderr
    return folder
