"""What stages make of settings and of the environment that a launcher gives them."""

from pathlib import Path

import pytest

import mocha_pipe.pipeline.run.inputs as inputs
from mocha_pipe.pipeline.cli.options import cache_place
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.run.inputs import is_first_rank, part_of, teacher_config
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig


@pytest.mark.parametrize(("text", "part"), [(None, None), ("0/1", (0, 1)), ("7/8", (7, 8)), ("02/10", (2, 10))])
def test_a_part_is_an_index_and_a_count(text: str | None, part: tuple[int, int] | None) -> None:
    assert part_of(text) == part


@pytest.mark.parametrize("text", ["8/8", "1", "/", "1/", "/2", "-1/2", "1/2/3", "0/0", "a/b", "²/3"])
def test_other_texts_are_no_part(text: str) -> None:
    with pytest.raises(ConfigError, match="a part is INDEX/COUNT, counted from 0; found"):
        part_of(text)


def test_each_process_of_a_job_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "torch_device", lambda _: "cuda")
    assert teacher_config(TeacherConfig(model="x")).device == "auto"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert teacher_config(TeacherConfig(model="x")).device == "cuda:3"
    assert teacher_config(TeacherConfig(model="x", device="cpu")).device == "cpu", "a named device stays"


def test_without_a_gpu_each_process_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "torch_device", lambda _: "cpu")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert teacher_config(TeacherConfig(model="x")).device == "auto"


def test_the_first_process_speaks_for_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_first_rank()
    monkeypatch.setenv("RANK", "1")
    assert not is_first_rank()


def test_a_cache_is_a_folder_or_a_url() -> None:
    assert cache_place(None) == {}
    assert cache_place("work/cache") == {"folder": Path("work/cache")}
    assert cache_place("s3://team/caches/coco") == {"url": "s3://team/caches/coco"}
