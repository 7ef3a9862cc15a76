"""A miniature world that the commands read and nobody changes."""

from pathlib import Path

import pytest

from mocha_pipe.data.miniature import WorldSize, make_miniature


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training scenes, two validation scenes, and a benchmark of 16 objects in one scene each."""
    root = tmp_path_factory.mktemp("commands") / "miniature"
    size = WorldSize(train_scenes=6, val_scenes=2, objects_per_shape=2, scenes_per_object=1)
    make_miniature(root, size, seed=0, progress=False)
    return root
