"""A folder of pictures, sound unless a test bends it."""

from collections.abc import Callable
from pathlib import Path

import pytest

WriteImage = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, write_image: WriteImage) -> Path:
    """Four pictures in two folders, of two formats."""
    root = tmp_path / "pictures"
    for seed, name in enumerate(("b.jpg", "a.png", "deep/c.JPG", "deep/er/d.webp")):
        write_image(root / name, 100 + seed, 60, seed=seed)
    return root
