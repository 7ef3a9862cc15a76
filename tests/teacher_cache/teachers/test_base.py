"""Importing the protocol is cheap, and describing a teacher agrees with loading it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava import LlavaTeacher
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher

PROBE = "import sys; import {module}; print(sorted({{'torch', 'transformers', 'tokenizers'}} & set(sys.modules)))"


def heavy_modules_after_import(module: str) -> str:
    command = [sys.executable, "-c", PROBE.format(module=module)]
    root = Path(__file__).parents[3]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.strip()


@pytest.mark.parametrize(
    "module",
    [
        "mocha_pipe.teacher_cache.teachers.base",
        "mocha_pipe.teacher_cache.teachers.config",
        "mocha_pipe.teacher_cache.crops",
    ],
)
def test_light_modules_load_neither_torch_nor_transformers(module: str) -> None:
    assert heavy_modules_after_import(module) == "[]"


def test_the_probe_sees_heavy_modules() -> None:
    assert heavy_modules_after_import("tokenizers") == "['tokenizers']"


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
        model=str(small_llava), device="cpu", dtype="float32", visual=str(toy_clip), crop_margin=0.25
    )
    assert describe_teacher(config) == loaded
