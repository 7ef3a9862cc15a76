"""`mocha-pipe fewshot` on a benchmark whose coarse classes the detectors learn first; students with random weights."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import torch

from bench.personal.random_student import make_student
from mocha_pipe.data.benchmarks.handheld import ICUBWORLD
from mocha_pipe.data.coarse import COARSE_NAMES
from mocha_pipe.pipeline.evaluation.heads import tune_heads
from mocha_pipe.pipeline.settings.loading import load_config
from mocha_pipe.pipeline.settings.sections import FewshotConfig
from mocha_pipe.student.network.student_files import Student, load_detector, load_student
from mocha_pipe.student.training import head_tuning
from tests.shared import DEVICE

Command = Callable[..., Result]
SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """iCubWorld in small: two images of every object under `train`, one under `val`."""
    root = tmp_path_factory.mktemp("icubworld")
    for number in range(len(ICUBWORLD)):
        for split, copies in (("train", 2), ("val", 1)):
            for copy in range(copies):
                image, label = (root / split / kind / f"{number:02}_{copy}" for kind in ("images", "labels"))
                image.parent.mkdir(parents=True, exist_ok=True)
                label.parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng([number, copy, split == "val"]).integers(0, 255, (48, 64, 3), np.uint8)
                Image.fromarray(noise).save(image.with_suffix(".png"))
                label.with_suffix(".txt").write_text(f"{number} 0.5 0.5 0.5 0.5\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_detector: Path, mark_distilled: Callable[[Path], None]) -> Path:
    """A completed distillation of a student with the 31 classes."""
    folder = tmp_path_factory.mktemp("run")
    make_student(folder / "student", str(tiny_detector), class_names=COARSE_NAMES, width=16)
    card = json.loads((folder / "student/student.json").read_text())
    (folder / "student/student.json").write_text(json.dumps({**card, "image_size": SIDE}))
    shutil.copy(folder / "student/student.pt", folder / "base.pt")
    mark_distilled(folder)
    return folder


@pytest.fixture
def detectors(run: Path) -> dict[str, tuple[Student, Path]]:
    base = replace(load_student(run / "base.pt"), image_size=SIDE)
    return {"mocha": (load_student(run / "student"), run / "student/student.pt"), "yolo": (base, run / "base.pt")}


def settings(folder: Path, **changes: Any) -> FewshotConfig:
    return FewshotConfig(
        benchmark=Path("icubworld"), benchmark_data=folder, folder=Path("out"), device=DEVICE, **changes
    )


def test_both_heads_learn_once_from_images_that_no_episode_is_about(
    detectors: dict[str, tuple[Student, Path]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, notes = tune_heads(settings(folder, head_epochs=2), detectors)
    (note,) = notes
    assert note.endswith("learnt the coarse classes for 2 epochs from 32 images that no episode is about")
    heads = sorted(Path("out/heads").iterdir())
    assert [one.name.split("-")[0] for one in heads] == ["mocha", "yolo"]
    for after, (before, _), head in zip(tuned, detectors.values(), heads, strict=True):
        assert after.class_names == COARSE_NAMES
        assert after.translation is before.translation
        kept, _ = load_detector(head / "train/weights/last.pt")
        branches = [detector.model[-1].cv3.state_dict() for detector in (after.detector, before.detector, kept)]
        assert any(not torch.equal(value, branches[1][name]) for name, value in branches[0].items())
        assert all(torch.equal(value, branches[2][name]) for name, value in branches[0].items())
    monkeypatch.setattr(head_tuning.SourceTrainer, "train", lambda _: pytest.fail("trained again"))
    tune_heads(settings(folder, head_epochs=2, learner="gallery"), detectors)
    assert sorted(Path("out/heads").iterdir()) == heads


@pytest.mark.usefixtures("no_page")
def test_detections_are_those_of_the_head_that_learnt_and_the_report_says_so(
    command: Command, run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them of one class, as a head says that knows nothing else."""
    detector, _ = load_detector(run / "base.pt")
    for level in detector.model[-1].cv3:
        torch.nn.init.zeros_(level[-1].weight)
        torch.nn.init.constant_(level[-1].bias, -20)
        level[-1].bias.data[COARSE_NAMES.index("mug")] = 0.0
    monkeypatch.setattr("mocha_pipe.pipeline.evaluation.heads.tune_classification", lambda *_: detector)
    seen: list[set[int]] = []

    def look(settings: object, run: object, benchmark: object) -> object:
        found = pool_passes(settings, run, benchmark)
        seen.extend(set(found[1][name].detection_coarse.tolist()) for name in ("mocha", "yolo"))
        return found

    from mocha_pipe.pipeline.evaluation.methods import pool_passes

    monkeypatch.setattr("mocha_pipe.pipeline.evaluation.fewshot.pool_passes", look)
    names = ("--run", run, "--no-teacher", "--episodes", 2, "--out", "out", "--device", "cpu")
    result = command("fewshot", *names, "--benchmark", "icubworld", "--data", folder)
    assert result.exit_code == 0, result.stderr
    assert seen == [{COARSE_NAMES.index("mug")}] * 2
    said = "learnt the coarse classes for 10 epochs from 32 images that no episode is about"
    assert said in result.stderr


def test_heads_that_are_left_alone(detectors: dict[str, tuple[Student, Path]], folder: Path) -> None:
    students, notes = tune_heads(settings(folder, head_epochs=0), detectors)
    assert [one is other for one, (other, _) in zip(students, detectors.values(), strict=True)] == [True, True]
    assert notes == []
    assert not Path("out/heads").exists()


def test_a_benchmark_without_such_images_is_refused(command: Command, run: Path, folder: Path) -> None:
    Image.new("RGB", (24, 16)).save(Path("x.png"))
    for name in ("red mug", "blue mug"):
        Path("mine", name).mkdir(parents=True)
        for copy in range(3):
            shutil.copy("x.png", Path("mine", name, f"{copy}.png"))
    result = command("fewshot", "--run", run, "--benchmark", "mine", "--head-epochs", 1)
    assert (result.exit_code, result.stderr) == (
        2,
        "error: --head-epochs needs images that no episode is about, which core50 and icubworld have, but --benchmark "
        "is mine; leave it out\n",
    )


def test_the_reference_s_epochs_are_the_default(tmp_path: Path) -> None:
    def epochs(**values: object) -> int | None:
        return load_config(None, {"fewshot": values}).fewshot.head_epochs

    assert epochs(benchmark=Path("core50"), benchmark_data=tmp_path) == 10
    assert epochs(benchmark=Path("core50"), benchmark_data=tmp_path, head_epochs=0) == 0
    assert epochs(benchmark=Path("pod"), benchmark_data=tmp_path) == 0
    assert epochs(benchmark=Path("core50")) == 0, "a folder of one's own that is called so"
