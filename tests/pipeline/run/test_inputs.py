"""What stages make of settings and of the environment that a launcher gives them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mocha_pipe.pipeline.run.inputs as inputs
from mocha_pipe.pipeline.errors import ConfigError, StageMismatchError
from mocha_pipe.pipeline.run.inputs import is_first_rank, teacher_config, teacher_of_cache
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from tests.shared import DEVICE


def test_each_process_of_a_job_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "torch_device", lambda name: "cuda" if name == "auto" else f"named {name}")
    assert teacher_config(TeacherConfig(model="x")).device == "auto"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert teacher_config(TeacherConfig(model="x")).device == "cuda:3"
    assert teacher_config(TeacherConfig(model="x", device="1")).device == "named 1", "a named device stays"


def test_without_a_gpu_each_process_chooses_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "torch_device", lambda _: "cpu")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert teacher_config(TeacherConfig(model="x")).device == "auto"


def test_the_first_process_speaks_for_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_first_rank()
    monkeypatch.setenv("RANK", "1")
    assert not is_first_rank()


def test_a_teacher_that_no_version_could_ask_for_is_one_line(tmp_path: Path) -> None:
    spec = SimpleNamespace(
        model="org/llava", revision="main", mode="prompt", prompt="What is the {label}?", layer=-1, crop_margin=0.0,
        visual="tower", dtype="float8", max_new_tokens=0, num_beams=1, sampling_seed=None,
        no_repeat_ngram=0, all_beams=False,
    )  # fmt: skip
    cache: Any = SimpleNamespace(spec=spec, path=tmp_path)
    with pytest.raises(ConfigError) as refused:
        teacher_of_cache(cache, None)
    assert str(refused.value) == (
        f"{tmp_path} was made by a teacher with dtype = 'float8', which this version does not know: use the version of "
        "mocha-pipe that wrote the cache"
    )
    spec.dtype = "float16"
    assert teacher_of_cache(cache, None, device=DEVICE).max_new_tokens == 1


@pytest.mark.parametrize("content", ["{}", '{"run of": "another program"}', "[]", "text"])
def test_a_note_of_another_program_is_not_replaced(tmp_path: Path, content: str) -> None:
    note = tmp_path / inputs.LAST_DISTILL
    note.write_text(content)
    with pytest.raises(StageMismatchError, match=r"last-distill\.json (was not written by mocha-pipe|cannot|must)"):
        inputs.require_own_note(tmp_path)
    assert note.read_text() == content
    note.unlink()
    inputs.require_own_note(tmp_path)
    inputs.remember_distillation(tmp_path, tmp_path / "distill")
    inputs.require_own_note(tmp_path)
