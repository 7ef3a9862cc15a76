"""A tiny YOLOE in place of the smallest published one."""

from pathlib import Path

import pytest
import yaml

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split
import ultralytics


@pytest.fixture(scope="session")
def tiny_yoloe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Description of a YOLOE of half a million parameters."""
    shipped = Path(ultralytics.__file__).parent / "cfg/models/v8/yoloe-v8.yaml"
    told = yaml.safe_load(shipped.read_text())
    del told["scales"]
    path = tmp_path_factory.mktemp("model") / "yoloe-tiny.yaml"
    path.write_text(yaml.safe_dump({**told, "depth_multiple": 0.33, "width_multiple": 0.0625}))
    return path
