"""What the stages refuse, word for word, and what an interruption says."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.types import DetectionSource, PersonalBenchmark
from mocha_pipe.pipeline import distillation
from mocha_pipe.pipeline.errors import ConfigError, StageMissingError
from mocha_pipe.pipeline.evaluation import methods
from mocha_pipe.pipeline.markers import Completion
from mocha_pipe.pipeline.run import datasets
from mocha_pipe.pipeline.settings.sections import FewshotConfig, RunConfig
from mocha_pipe.teacher_cache.errors import CacheIncompleteError


def run_with(**outputs: Any) -> Completion:
    return Completion(
        stage="distill", folder=Path("work/distill"), config={}, inputs={}, outputs=outputs, versions={}, seconds=1.0
    )


def test_an_interruption_is_one_line_and_exit_code_130(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_config: RunConfig) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "make_world", interrupt)
    result = command("data", "miniature", "world")
    assert result.exit_code == 130
    assert result.stderr == "stopped; the same command goes on where this one was\n"


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, "error: a/b cannot be written (No space left on device): free some space and run the same "
         "command again\n"),
        (errno.ENOENT, "error: a/b cannot be used (No such file or directory): name another place for it; --root names "
         "the folder for whatever has no place of its own\n"),
        (errno.EROFS, "error: a/b cannot be used (Read-only file system): name another place for it; --root names the "
         "folder for whatever has no place of its own\n"),
    ],
)  # fmt: skip
def test_what_a_disk_refuses_is_one_line(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, number: int, line: str
) -> None:
    def refuse(_config: RunConfig) -> None:
        raise OSError(number, os.strerror(number), "a/b")

    monkeypatch.setattr(datasets, "make_world", refuse)
    result = command("data", "miniature", "world")
    assert (result.exit_code, result.stderr) == (2, line)
    assert isinstance(command("--debug", "data", "miniature", "world").exception, OSError)


def test_an_error_that_no_disk_is_at_fault_for_is_not_hidden(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_config: RunConfig) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(datasets, "make_world", fail)
    assert isinstance(command("data", "miniature", "world").exception, OSError)


def test_the_command_that_completes_a_cache_names_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def lack() -> None:
        raise CacheIncompleteError("cache c has no targets yet; complete it with `mocha-pipe cache build --cache c`")

    monkeypatch.setattr(distillation, "find_model", lambda model: model)
    monkeypatch.setattr(distillation, "distill_data", lambda config: (None, None, None, ()))
    monkeypatch.setattr(distillation, "seen_in_training", lambda train, val: None)
    monkeypatch.setattr(distillation.RegionCache, "open", lambda *_, **__: SimpleNamespace(targets=lack))
    config = RunConfig()
    with pytest.raises(CacheIncompleteError, match=r"`mocha-pipe cache build --cache c --data d\.yaml`$"):
        distillation.open_inputs(replace(config, data=replace(config.data, path=Path("d.yaml"))), Path("c"), "m.yaml")


def test_a_folder_with_other_things_is_not_overwritten_by_a_world(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    config = RunConfig()
    config = replace(config, miniature=replace(config.miniature, folder=tmp_path)).resolved()
    with pytest.raises(DatasetError) as refused:
        datasets.make_world(config)
    assert str(refused.value) == (
        f"{tmp_path}: must be a new or empty folder, found something there; name another with --root"
    )
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_student_from_random_weights_needs_a_base_by_name() -> None:
    with pytest.raises(ConfigError) as refused:
        methods.base_weights(FewshotConfig(), run_with(base=None))
    assert str(refused.value) == (
        "work/distill was distilled from random weights, so there is no base detector to compare with: "
        "name one with --base weights.pt"
    )


def test_a_base_that_is_gone_is_asked_for_and_a_named_one_wins(tmp_path: Path) -> None:
    with pytest.raises(StageMissingError) as missing:
        methods.base_weights(FewshotConfig(), run_with(base="../base/gone.pt"))
    assert str(missing.value) == (
        "the base detector work/base/gone.pt is not there: name its weights with --base weights.pt"
    )
    (tmp_path / "mine.pt").touch()
    found = methods.base_weights(FewshotConfig(base=str(tmp_path / "mine.pt")), run_with(base="../base/gone.pt"))
    assert found == tmp_path / "mine.pt"


def test_the_student_must_know_the_coarse_classes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = DetectionSource(root=tmp_path, split="test", class_names=("my mug",), records=())
    benchmark = PersonalBenchmark(
        name="desk", source=source, coarse_names=tuple("abcde"), coarse_of=np.zeros(1, np.int64)
    )
    other = SimpleNamespace(class_names=("mug", "ball"))
    monkeypatch.setattr(methods, "load_student", lambda _path: other)
    monkeypatch.setattr(methods, "replace", lambda student, **_changes: student)
    monkeypatch.setattr(methods, "base_weights", lambda _settings, _run: tmp_path)
    other.image_size = 64
    with pytest.raises(DatasetError) as refused:
        methods.pool_passes(FewshotConfig(), run_with(student="student", base="b.pt"), benchmark)
    assert str(refused.value) == (
        "student must know all coarse classes of the benchmark desk, but lacks a, b, c, d ... (5); it knows mug, ball: "
        "mend its coarse classes in data.yaml or coarse.yaml, or name another benchmark with --benchmark, or student "
        "with --run"
    )
