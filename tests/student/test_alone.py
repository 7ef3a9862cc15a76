"""Phase 2 in a process of its own: offline, without the teacher's packages, and its student without this package."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared import ROOT

VARIABLES = {"YOLO_OFFLINE", "YOLO_AUTOINSTALL", "YOLO_CONFIG_DIR", "ULTRALYTICS_SAFE_LOAD", "OMP_NUM_THREADS"}
"""What the environment sets."""

ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"transformers", "tokenizers"} or name.startswith("mocha_pipe.teacher_cache"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Absent())
def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        raise RuntimeError(f"network: {event} {arguments}")
sys.addaudithook(refuse)
"""

OFFLINE_QUIET_AND_RESTRICTED = """
import mocha_pipe.student.environment
assert "torch" not in sys.modules and "ultralytics" not in sys.modules
import torch
import ultralytics
from ultralytics.utils import ONLINE, SAFE_LOAD, AUTOINSTALL, checks
assert not ONLINE and SAFE_LOAD and not AUTOINSTALL
on = [name for name, value in ultralytics.settings.items() if value is True]
assert on == [], on
for font in ("Arial.ttf", "Arial.Unicode.ttf"):
    assert str(checks.check_font(font)).startswith(str(ultralytics.utils.USER_CONFIG_DIR)), font
assert torch.get_num_threads() == mocha_pipe.student.environment.cpu_threads()
"""

DISTILS = """
from pathlib import Path
from tests.student import conftest as scenes
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.trainer import distill
train = scenes.make_source(Path("scenes"), images=8, split="train", seed=1)
val = scenes.make_source(Path("scenes"), images=4, split="val", seed=2)
distill(
    DistillSettings(train_arguments={"epochs": 1, "imgsz": 64, "batch": 8}),
    model=sys.argv[1],
    train=train,
    val=val,
    targets=scenes.random_targets(train),
    first_row=scenes.first_rows(train),
    run=Path("run"),
)
assert "transformers" not in sys.modules
"""


def run_alone(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {*VARIABLES, "MKL_NUM_THREADS"}}
    environment |= {
        "XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "cache"), "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", ALONE + script, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_phase_2_runs_offline_without_transformers_and_writes_only_its_run(
    tiny_models: dict[str, str], tmp_path: Path
) -> None:
    done = run_alone(OFFLINE_QUIET_AND_RESTRICTED + DISTILS, tmp_path, tiny_models["v8"])
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "scenes", "run"}
    assert (tmp_path / "cache" / "mocha-pipe" / "Ultralytics" / "settings.json").is_file()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"train", "student"}
    assert (tmp_path / "run/train/results.png").is_file()
    assert "Epoch" in done.stdout + done.stderr  # the table of epochs shows
    assert "engine/trainer" not in done.stdout + done.stderr  # and the list of arguments does not


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import transformers", "transformers is blocked"),
        ("import mocha_pipe.teacher_cache", "mocha_pipe.teacher_cache is blocked"),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "network: socket."),
    ],
)
def test_the_proof_above_can_fail(tmp_path: Path, script: str, reason: str) -> None:
    done = run_alone(script, tmp_path)
    assert done.returncode != 0
    assert reason in done.stderr


def test_plain_yolo_loads_a_student_without_this_package(distilled: Callable[[str], Path], tmp_path: Path) -> None:
    script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mocha_pipe":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Absent())
import numpy as np
from ultralytics import YOLO
model = YOLO(sys.argv[1])
result = model.predict(np.zeros((64, 64, 3), dtype=np.uint8), imgsz=64, verbose=False, save=False)
assert result[0].names == {0: "square", 1: "tall", 2: "wide"}
assert model.overrides["imgsz"] == 64
try:
    import mocha_pipe.student
except ModuleNotFoundError:
    print("ok")
"""
    environment = os.environ | {"ULTRALYTICS_SAFE_LOAD": "1", "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(distilled("v8") / "student/student.pt")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("ok\n")
