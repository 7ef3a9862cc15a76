"""What stages make of settings and of the environment that a launcher gives them."""

import pytest

import mocha_pipe.pipeline.run.inputs as inputs
from mocha_pipe.pipeline.run.inputs import is_first_rank, teacher_config
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig


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
