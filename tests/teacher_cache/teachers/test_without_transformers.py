"""transformers, which brings tokenizers, comes with the extra `[teacher]`: only what runs a teacher needs them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher

MESSAGE = "a teacher needs the package transformers; install it with: pip install 'mocha-pipe[teacher]'"


@pytest.mark.parametrize("use", [load_teacher, describe_teacher])
def test_the_missing_package_is_named(use: Callable[[TeacherConfig], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("describe", "llava", "vlm.describe", "vlm.teacher"):
        monkeypatch.delitem(sys.modules, f"mocha_pipe.teacher_cache.teachers.{name}", raising=False)
    with pytest.raises(TeacherError) as missing:
        use(TeacherConfig(model="none"))
    assert str(missing.value) == MESSAGE


def test_another_import_that_fails_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mocha_pipe.teacher_cache.teachers.llava.describe", None)
    with pytest.raises(ModuleNotFoundError, match="describe"):
        describe_teacher(TeacherConfig(model="none"))


# Every module but those that run a teacher, then commands, in one interpreter that cannot import the two packages.
CODE = """
import importlib, json, pkgutil, sys
import mocha_pipe

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "tokenizers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
needing = []
for module in pkgutil.walk_packages(mocha_pipe.__path__, "mocha_pipe."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        assert error.name == "transformers", error
        needing.append(module.name.partition("teachers.")[2])

from typer.testing import CliRunner
from mocha_pipe.pipeline.cli.main import app

answers = {}
for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(app, line.split())
    answers[line] = [result.exit_code, result.output]
print(json.dumps([needing, answers]))
"""


def test_all_else_runs_without_them(finished: Path, tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / "world" / kind).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "world" / "images" / "one.png")
    (tmp_path / "world" / "labels" / "one.txt").write_text("0 0.5 0.5 0.4 0.4\n0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "world" / "data.yaml").write_text("path: .\ntrain: images\nval: images\nnames: [mug]\n")
    lines = [
        "data check world/data.yaml",
        f"cache info {finished}",
        f"cache verify {finished}",
        f"cache push {finished} there",
        "cache pull there copy",
        "cache ls .",
        "cache build --data world/data.yaml",
        "cache plan --data world/data.yaml",
    ]
    done = subprocess.run(
        [sys.executable, "-c", CODE], input="\n".join(lines), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    needing, answers = json.loads(done.stdout.splitlines()[-1])
    assert needing == [
        "encoder.pooled", "encoder.teacher", "llava.describe", "llava.greedy", "llava.teacher", "search",
        "visual", "vlm.answers", "vlm.describe", "vlm.teacher",
    ]  # fmt: skip
    assert [code for code, _ in answers.values()] == [0, 0, 0, 0, 0, 0, 2, 2], answers
    for line in lines[-2:]:
        assert MESSAGE in answers[line][1].splitlines()[-1]
