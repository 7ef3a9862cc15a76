"""What measurements run on at toy size, and a stand-in for the processes that they start."""

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
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
from mocha_pipe.pipeline.settings.recipes import demo
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_student
from tests.shared import made_once


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
def tiny_detector() -> Path:
    """Description of a YOLOv8 of a third of a million parameters."""
    return made_once("bench-detector", _describe_detector) / "tiny.yaml"


@pytest.fixture(scope="session")
def toy_config() -> RunConfig:
    """A demo at its smallest that was run up to the distillation, whose folder is called as a study calls it.

    Its root is only to be read. Nothing is learned in one epoch, so the few-shot settings count every detection.
    """
    return toy_config_in(made_once("bench-toy", _run_toy))


@pytest.fixture
def toy_copy(toy_config: RunConfig, tmp_path: Path) -> RunConfig:
    """The same in a root that a test may write to."""
    return toy_config_in(Path(shutil.copytree(toy_config.root, tmp_path / "demo")))


def _describe_detector(folder: Path) -> None:
    import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

    # isort: split
    from ultralytics.nn.tasks import yaml_model_load

    model = yaml_model_load("yolov8n.yaml")
    kept = {key: model[key] for key in ("nc", "backbone", "head")}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**kept, "depth_multiple": 0.33, "width_multiple": 0.0625}))


def toy_config_in(root: Path) -> RunConfig:
    config = demo(root)
    detector = made_once("bench-detector", _describe_detector) / "tiny.yaml"
    size = WorldSize(train_scenes=24, val_scenes=8, objects_per_shape=2, scenes_per_object=3)
    return replace(
        config,
        miniature=replace(config.miniature, size=size),
        pretrain=replace(config.pretrain, model=str(detector), epochs=1, image_size=64, device="cpu"),
        cache=replace(config.cache, dim=None),  # so few regions vary in fewer directions than the demo keeps
        distill=replace(config.distill, epochs=1, image_size=64, device="cpu", folder=root / "default" / "seed-0"),
        fewshot=replace(config.fewshot, shots=(1, 2), episodes=3, confidence=0.0001, device="cpu"),
    ).resolved()


def _run_toy(folder: Path) -> None:
    config = toy_config_in(folder)
    build_teacher_cache(config)
    distill_student(config)


@pytest.fixture(scope="session")
def in_this_process() -> Callable[..., Any]:
    """In place of `bench.runs.in_a_process`: no new interpreter, but what would travel to it and back is pickled."""

    def call(_name: str, work: Callable[..., object], *arguments: object) -> object:
        work, arguments = pickle.loads(pickle.dumps((work, arguments)))
        threads = torch.get_num_threads()
        with patch.dict(os.environ):
            found = work(*arguments)
        torch.set_num_threads(threads)
        return pickle.loads(pickle.dumps(found))

    return call
