"""What measurements run on at toy size, and a stand-in for the processes that they start."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

import bench
from bench.inputs import BenchInputs
from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a measurement starts find `bench`, which is not installed, whatever the working folder is.

    A fork server that does not find it would leave all imports to each of its children.
    """
    monkeypatch.setenv("PYTHONPATH", str(Path(bench.__path__[0]).parent), prepend=os.pathsep)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> BenchInputs:
    """A world of a few scenes."""
    folder = tmp_path_factory.mktemp("bench") / "world"
    size = WorldSize(train_scenes=24, val_scenes=1, objects_per_shape=2, scenes_per_object=1)
    make_miniature(folder, size, progress=False)
    source = open_source(folder / "data.yaml", "train")
    return BenchInputs(data=folder / "data.yaml", source=source, table=RegionTable.build(source))


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLOv8 of a third of a million parameters, from ultralytics' own description."""
    import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

    # isort: split
    from ultralytics.nn.tasks import yaml_model_load

    model = yaml_model_load("yolov8n.yaml")
    kept = {key: model[key] for key in ("nc", "backbone", "head")}
    path = tmp_path_factory.mktemp("model") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**kept, "depth_multiple": 0.33, "width_multiple": 0.0625}))
    return path


@pytest.fixture
def in_this_process() -> Iterator[Callable[..., Any]]:
    """In place of `bench.runs.in_a_process`: no new interpreter, but what would travel to it and back is pickled."""

    def call(_name: str, work: Callable[..., object], *arguments: object) -> object:
        work, arguments = pickle.loads(pickle.dumps((work, arguments)))
        return pickle.loads(pickle.dumps(work(*arguments)))

    threads = torch.get_num_threads()
    with patch.dict(os.environ):
        yield call
    torch.set_num_threads(threads)
