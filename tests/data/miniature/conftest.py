from pathlib import Path

import pytest

from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.miniature import make_miniature

SMALL = WorldSize(train_scenes=6, val_scenes=3, objects_per_shape=2, scenes_per_object=2)
TINY = WorldSize(train_scenes=1, val_scenes=1, objects_per_shape=2, scenes_per_object=1)


@pytest.fixture(scope="session")
def small() -> WorldSize:
    return SMALL


@pytest.fixture(scope="session")
def tiny() -> WorldSize:
    return TINY


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the small size and seed 4; read by every test, changed by none."""
    root = tmp_path_factory.mktemp("miniature") / "world"
    make_miniature(root, SMALL, seed=4, progress=False)
    return root


@pytest.fixture(scope="session")
def content() -> object:
    """content(root) -> bytes of every file by its name below the root."""

    def read(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    return read
