"""An object that a device enrols from a drawn box is the one that `mocha-pipe personalize --box` learns."""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import torch
from PIL import Image
from typer.testing import Result

from mocha_pipe.data.images import read_image
from mocha_pipe.student.fewshot.strangers import save_strangers
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.student_files import save_student
from mocha_pipe.student.personal.profile import Profile
from tests.shared import ROOT

BOXES = {"wide.png": (10.0, 20.0, 55.5, 60.0), "tall.png": (0.0, 3.0, 37.0, 96.25)}
"""Corners of the object in each photo."""


def test_a_drawn_box_gives_the_embedding_that_personalize_learns(
    command: Callable[..., Result], tiny_detector: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = DistillModel(str(tiny_detector), num_classes=2, features="deep", target_dim=16)
    model.names = {0: "mug", 1: "boot"}
    folder = save_student(model, tmp_path / "student", image_size=64, meta={})
    save_strangers(folder, np.linspace(-1, 0.5, 999))
    device = tmp_path / "device"
    assert command("export", "--student", folder, "--out", device / "student.onnx").exit_code == 0
    for number, (name, (left, top, right, bottom)) in enumerate(BOXES.items()):
        width, height = (150, 70) if name == "wide.png" else (37, 101)
        blocks = np.random.default_rng(number).integers(0, 255, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(tmp_path / name)
        box = f"{left},{top},{right - left},{bottom - top}"
        told = ("--box", box, "--class", "mug", "--student", folder, "--profile", device / "profile.safetensors")
        assert command("personalize", f"thing {number}", tmp_path / name, *told).exit_code == 0
    learnt = Profile.load(device / "profile.safetensors").learner
    np.save(device / "frame.npy", read_image(tmp_path / "wide.png"))
    program: dict[str, Any] = {}
    first = re.findall(r"```python\n(.*?)```", (ROOT / "docs/onnx.md").read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    with contextlib.chdir(device), contextlib.redirect_stdout(io.StringIO()):
        exec(first, program)
    for number, (name, box) in enumerate(BOXES.items()):
        (drawn,) = program["detect"](read_image(tmp_path / name), regions=[box])[-1]
        drawn = drawn / np.linalg.norm(drawn) if learnt.unit_length else drawn
        np.testing.assert_allclose(drawn, learnt.prototypes_[number], rtol=0, atol=1e-4)
    assert np.abs(learnt.prototypes_[0] - learnt.prototypes_[1]).max() > 1e-3
