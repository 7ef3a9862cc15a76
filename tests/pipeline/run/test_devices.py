"""Names of devices: one language for every command, checked before anything is computed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.run.devices import torch_device, trainer_device

NO_NAME = (
    "a device is auto, cpu, mps, cuda, cuda:1 or 1, and a training may take several, such as 0,1; found 'gpu': "
    "pass --device auto"
)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "of_torch", "of_trainer"),
    [
        ("", "cuda", ""), ("auto", "cuda", ""), ("cpu", "cpu", "cpu"), ("mps", "mps", "mps"), ("cuda", "cuda", "cuda"),
        ("cuda:1", "cuda:1", "1"), ("0", "cuda:0", "0"), ("01", "cuda:1", "1"),
    ],
)  # fmt: skip
def test_every_name_has_one_meaning(two_gpus: None, name: str, of_torch: str, of_trainer: str) -> None:
    assert torch_device(name) == of_torch
    assert trainer_device(name) == of_trainer


def test_a_training_takes_several(two_gpus: None) -> None:
    assert trainer_device("0,1") == trainer_device("cuda:0,cuda:1") == "0,1"


def test_without_a_gpu_it_is_the_cpu(no_gpu: None) -> None:
    assert torch_device("auto") == torch_device("") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "0,1", "-1", "None", "²", "cuda:1 "])
def test_other_names_are_none(two_gpus: None, name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        torch_device(name)
    assert str(refused.value) == NO_NAME.replace("'gpu'", repr(name))


@pytest.mark.parametrize(
    ("name", "found"), [("cuda", "0 cuda"), ("cuda:0", "0 cuda"), ("0", "0 cuda"), ("mps", "0 mps")]
)
def test_a_device_that_is_not_there_is_one_line(no_gpu: None, name: str, found: str) -> None:
    for check in (torch_device, trainer_device):
        with pytest.raises(ConfigError) as refused:
            check(name)
        assert str(refused.value) == f"this machine has {found} devices, asked for {name!r}: pass --device auto"


def test_every_one_of_several_is_there(two_gpus: None) -> None:
    for names in ("0,2", "0,gpu", "0,", "0,auto", "cpu,0"):
        with pytest.raises(ConfigError):
            trainer_device(names)


@pytest.mark.parametrize(
    "arguments",
    [
        "cache plan", "cache build", "cache verify x", "cache audit x", "pretrain", "distill", "fewshot", "sweep",
        "personalize mug photo.jpg --student x", "detect photo.jpg", "data regions album --crops 1 --out x",
    ],
)  # fmt: skip
def test_every_command_refuses_a_wrong_device_before_it_starts(command: Callable[..., Result], arguments: str) -> None:
    result = command(*arguments.split(), "--device", "gpu")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {NO_NAME}\n")


@pytest.mark.parametrize("arguments", ["cache build", "distill", "fewshot", "detect photo.jpg"])
def test_every_command_refuses_a_device_that_is_not_there(
    command: Callable[..., Result], no_gpu: None, arguments: str
) -> None:
    for name in ("0", "cuda:0"):
        result = command(*arguments.split(), "--device", name)
        assert (result.exit_code, result.stderr) == (
            2, f"error: this machine has 0 cuda devices, asked for {name!r}: pass --device auto\n"
        )  # fmt: skip


@pytest.mark.parametrize("section", ["teacher", "pretrain", "distill", "fewshot"])
def test_the_demo_refuses_the_device_of_its_last_stage_before_the_first(
    command: Callable[..., Result], no_gpu: None, tmp_path: Path, section: str
) -> None:
    (tmp_path / "run.toml").write_text(f'[{section}]\ndevice = "cuda:1"\n')
    result = command("demo", "--root", tmp_path / "work", "--config", tmp_path / "run.toml")
    assert (result.exit_code, result.stderr) == (
        2, "error: this machine has 0 cuda devices, asked for 'cuda:1': pass --device auto\n"
    )  # fmt: skip
    assert not (tmp_path / "work").exists()
