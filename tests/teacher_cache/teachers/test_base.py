"""Importing the protocol is cheap, and describing a teacher agrees with loading it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher
from tests.shared import DEVICE

LIGHT = [
    "mocha_pipe.teacher_cache.teachers.base",
    "mocha_pipe.teacher_cache.teachers.config",
    "mocha_pipe.teacher_cache.teachers.loading",
    "mocha_pipe.teacher_cache.crops",
]
PROBE = """
import sys
for module in sys.argv[1:]:
    __import__(module)
    print(module, sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))
"""


def test_light_modules_load_neither_torch_nor_transformers() -> None:
    command = [sys.executable, "-c", PROBE, *LIGHT, "tokenizers"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == [*(f"{module} []" for module in LIGHT), "tokenizers ['tokenizers']"]


def test_describing_equals_loading_and_reads_no_weights(
    small_llava: Path,
    toy_clip: Path,
    make_teacher: Callable[..., LlavaTeacher],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"visual": str(toy_clip), "crop_margin": 0.25}
    loaded = make_teacher(small_llava, **options).spec
    monkeypatch.setattr("transformers.LlavaForConditionalGeneration.from_pretrained", lambda *_, **__: 1 / 0)
    config = TeacherConfig(
        model=str(small_llava), device=DEVICE, dtype="float32", visual=str(toy_clip), crop_margin=0.25
    )
    assert describe_teacher(config) == loaded
