"""A small report, and the whole pipeline run once at toy size for every test that looks at its results."""

import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from mocha_pipe.data.miniature import WorldSize
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.pipeline.run.datasets import make_validation_world
from mocha_pipe.pipeline.settings.recipes import demo
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import run_demo
from mocha_pipe.student.network.pool_pass import PoolPass
from tests.shared import DEVICE, made_once


@pytest.fixture(scope="session")
def mark_distilled() -> Callable[[Path], None]:
    """Makes a folder with `student/` and `base.pt` pass for a completed distillation whose cache is gone."""

    def mark(folder: Path) -> None:
        outputs = {"student": "student", "base": str(folder / "base.pt"), "base_run": None, "map50_95": 50.0}
        outputs |= {"curves": "results.csv", "cache": str(folder.parent / "gone")}
        marker = {"stage": "distill", "config": {}, "inputs": {"cache": "c" * 8}, "outputs": outputs, "versions": {}}
        (folder / "complete.json").write_text(json.dumps({**marker, "seconds": 1.0}))

    return mark


@pytest.fixture
def report(whole_report: dict[str, Any]) -> dict[str, Any]:
    """A report.json that a test may change."""
    return deepcopy(whole_report)


@pytest.fixture(scope="session")
def whole_report() -> dict[str, Any]:
    """A report.json with figures that no other part of a page shows by chance."""

    def figures(offset: float) -> dict[str, Any]:
        return {
            name: {"mean": mean + offset, "ci95": [mean + offset - 1.3, mean + offset + 1.4]}
            for name, mean in (
                ("map50_95", 31.7), ("map50", 42.2), ("accuracy", 53.6), ("image_accuracy", 64.4),
                ("region_accuracy", 75.8),
            )
        }  # fmt: skip

    def confusion(offset: int) -> dict[str, Any]:
        """Two mugs, one of which is mixed up, and a ball that is mostly missed."""
        share = {"mean": 60.4 + offset, "ci95": [58.1, 62.9]}
        mug = {"objects": ["red_mug", "my <mug>"], "taken_for": [[30 + offset, 8], [0, 37]], "elsewhere": [2, 0]}
        ball = {"objects": ["blue_ball"], "taken_for": [[1]], "elsewhere": [0], "unknown": [2], "missed": [7]}
        return {
            "mug": {**mug, "unknown": [0, 0], "missed": [0, 3], "shares": {"right": share}},
            "ball": {**ball, "shares": {"right": {"mean": 10.3, "ci95": [8.7, 12.2]}}},
        }

    def unknown(offset: float) -> dict[str, Any]:
        def share(mean: float) -> dict[str, Any]:
            return {"mean": mean + offset, "ci95": [mean + offset - 0.013, mean + offset + 0.014]}

        roc = {"false_accept": [0.0, 0.5, 1.0], "recall": [0.25, 0.875, 1.0]}
        measured = {
            name: {"auroc": share(0.6 + place / 10), "false_accept_at_95_recall": share(0.5 - place / 20), "roc": roc}
            for place, name in enumerate(methods)
        }
        calibrated = {"rate": 0.07, "false_accept": share(0.157), "recall": share(0.839)}
        return {"episodes": 31, "held_out": 9, "methods": measured, "calibrated": calibrated}

    methods = ("histogram", "yolo", "mocha", "teacher")
    gain = {"mean": 7.9, "ci95": [6.1, 9.8]}
    results = [
        {
            "benchmark": "miniature",
            "shots": shots,
            "episodes": 37,
            "seed": 5,
            "methods": {name: figures(shots + 3 * place) for place, name in enumerate(methods)},
            "gain": {"map50_95": gain, "accuracy": gain, "region_accuracy": gain},
            "confusion": {name: confusion(10 * shots + place) for place, name in enumerate(methods)},
            "unknown": unknown(shots / 1000),
        }
        for shots in (1, 5)
    ]
    return {
        "results": results,
        "detection": {"base": 61.23, "student": 60.87},
        "seconds": {"cache": 12.34, "distill": 98.76},
        "versions": {"python": "3.11.9", "mocha-pipe": "0.1.0", "torch": "2.99.1"},
        "inputs": {"student": "5d0f" * 8, "benchmark": "ab12" * 8},
    }


@pytest.fixture(scope="session")
def scene_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def command() -> Callable[..., Result]:
    """Run `mocha-pipe` with the given arguments in this process; stdout and stderr apart."""
    from mocha_pipe.pipeline.cli.main import app

    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def one_teacher() -> Iterator[None]:
    """The shipped teacher is described once and loaded once for all tests of a file."""
    from mocha_pipe.teacher_cache.teachers import loading

    with pytest.MonkeyPatch.context() as patch:
        for name in ("describe_teacher", "load_teacher"):
            patch.setattr(loading, name, cache(getattr(loading, name)))
        yield


def write_tiny_detector(path: Path) -> Path:
    """Describe a YOLOv8 of a third of a million parameters, made from ultralytics' own description."""
    from ultralytics.nn.tasks import yaml_model_load

    import mocha_pipe.student.environment  # noqa: F401

    model = yaml_model_load("yolov8n.yaml")
    kept = {key: model[key] for key in ("nc", "backbone", "head")}
    path.write_text(yaml.safe_dump({**kept, "depth_multiple": 0.33, "width_multiple": 0.0625}))
    return path


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `.yaml` of a tiny detector."""
    return write_tiny_detector(tmp_path_factory.mktemp("model") / "tiny.yaml")


@pytest.fixture(scope="session")
def random_student(tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny student that nothing was taught, with the classes mug and boot; to be read only."""
    import torch

    from mocha_pipe.student.fewshot.strangers import save_strangers
    from mocha_pipe.student.network.distill_model import DistillModel
    from mocha_pipe.student.network.student_files import save_student

    torch.manual_seed(0)
    model = DistillModel(str(tiny_detector), num_classes=2, features="fine", target_dim=16)
    model.names = {0: "mug", 1: "boot"}
    folder = save_student(model, tmp_path_factory.mktemp("distilled") / "student", image_size=64, meta={})
    save_strangers(folder, np.linspace(0, 1, 100))
    return folder


def toy(root: Path) -> RunConfig:
    """The demo's configuration under another root, with everything at its smallest."""
    config = demo(root)
    return replace(
        config,
        miniature=replace(
            config.miniature,
            size=WorldSize(train_scenes=16, val_scenes=4, objects_per_shape=2, scenes_per_object=3),
        ),
        pretrain=replace(config.pretrain, model=str(root / "tiny.yaml"), epochs=1, image_size=64, device=DEVICE),
        cache=replace(config.cache, dim=None),  # so few regions vary in fewer directions than the demo keeps
        distill=replace(config.distill, epochs=1, image_size=64, device=DEVICE),
        # Nothing is learned in one epoch: every detection counts, so that every method has some to name.
        fewshot=replace(config.fewshot, shots=(1, 2), episodes=2, confidence=0.0001, device=DEVICE),
    ).resolved()


_FEW_RESAMPLES = ("mocha_pipe.student.fewshot.bootstrap._RESAMPLES", 100)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has hundreds of intervals; their precision is tested where the bootstrap is."""
    monkeypatch.setattr(*_FEW_RESAMPLES)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves report.html empty: drawing takes most of the time of a toy evaluation."""
    monkeypatch.setattr("mocha_pipe.pipeline.evaluation.fewshot.write_html", lambda path, *_, **__: path.touch())


def _make_toy(root: Path) -> None:
    write_tiny_detector(root / "tiny.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*_FEW_RESAMPLES)
        assert [done.skipped for done in run_demo(toy(root))] == [False] * 5
    make_validation_world(toy(root))


@pytest.fixture(scope="session")
def finished() -> RunConfig:
    """The whole pipeline at toy size: world, cache, base detector, student, reports, and the validation world.

    It is made once, in another folder than the one where it lies now. Nobody changes it: a test that must works on
    `copied_toy`, or names a folder of its own for what it makes.
    """
    return toy(made_once("toy-pipeline", _make_toy))


@pytest.fixture
def copied_toy(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """The finished pipeline in a folder that the test may change."""
    return toy(Path(shutil.copytree(finished.root, tmp_path / "toy")))


@pytest.fixture(scope="session")
def find_everything() -> Callable[..., PoolPass]:
    """In place of `RegionEmbedder.embed_pool`: true boxes as detections, for benchmarks of two objects per shape.

    One epoch teaches no detector where things are.
    """
    from mocha_pipe.student.fewshot.episodes import source_regions
    from mocha_pipe.student.network.embedder import RegionEmbedder

    embed_pool = RegionEmbedder.embed_pool

    def find(embedder: RegionEmbedder, source: DetectionSource, *, progress: bool) -> PoolPass:
        found = embed_pool(embedder, source, progress=False)
        truth = source_regions(source)
        return PoolPass(
            detection_image=truth.image,
            detection_xyxy=truth.xyxy.astype(np.float32),
            detection_score=np.ones(len(truth.image), np.float32),
            detection_coarse=truth.personal // 2,
            detection_embedding=found.region_embedding,
            region_embedding=found.region_embedding,
        )

    return find
