"""Devices, number types, and weights that do not fit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.checkpoint import find_checkpoint
from mocha_pipe.teacher_cache.teachers.weights import load_weights, pick_device, pick_dtype


@pytest.fixture
def copy(small_llava: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may spoil."""
    return Path(shutil.copytree(small_llava, tmp_path / "my-llava"))


def load(folder: Path) -> Any:
    checkpoint = find_checkpoint(str(folder), revision=None, weights=True, flag="--teacher")
    cpu = torch.device("cpu")
    return load_weights(LlavaForConditionalGeneration, checkpoint, dtype=torch.float32, device=cpu, flag="--teacher")


def test_weights_arrive_unchanged(copy: Path) -> None:
    stored = load_file(copy / "model.safetensors")
    loaded = load(copy).state_dict()
    assert len(loaded) == len(stored)
    total = sum(value.double().sum() for value in loaded.values())
    assert torch.isclose(total, sum(value.double().sum() for value in stored.values()))


def test_a_missing_tensor_is_not_filled_with_noise(copy: Path) -> None:
    stored = load_file(copy / "model.safetensors")
    name = next(name for name in stored if name.endswith("layers.1.mlp.up_proj.weight"))
    del stored[name]
    save_file(stored, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TeacherError) as caught:
        load(copy)
    assert str(caught.value) == (
        "the weights of 'my-llava' must be complete; 1 tensors are missing, the first is "
        "model.language_model.layers.1.mlp.up_proj.weight; fetch the files again or correct --teacher"
    )


def test_a_truncated_file_is_named(copy: Path) -> None:
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        TeacherError, match=r"^the weights of 'my-llava' must fit its config.json; they cannot be loaded"
    ):
        load(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = (copy / "config.json").read_text().replace('"intermediate_size": 64', '"intermediate_size": 65')
    (copy / "config.json").write_text(config)
    with pytest.raises(
        TeacherError, match=r"^the weights of 'my-llava' must fit its config.json; they cannot be loaded"
    ):
        load(copy)


def test_auto_is_the_gpu_or_the_cpu_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    assert pick_dtype("auto", torch.device("cpu"), {"dtype": "bfloat16"}) == torch.float32
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": "float32", "text_config": {"dtype": "bfloat16"}}, torch.float32),
        ({"text_config": {"torch_dtype": "float16"}}, torch.float16),
        ({"dtype": "float8_e4m3fn"}, torch.bfloat16),
        ({}, torch.bfloat16),
    ],
)
def test_auto_on_a_gpu_is_what_the_checkpoint_is_kept_in(
    settings: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert pick_dtype("auto", torch.device("cuda"), settings) == dtype
    assert pick_dtype("float32", torch.device("cuda"), settings) == torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_named_type_is_used(name: Any) -> None:
    assert str(pick_dtype(name, torch.device("cpu"), {"dtype": "float32"})) == f"torch.{name}"


def test_a_device_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(TeacherError) as caught:
        pick_device("cuda:1")
    assert str(caught.value) == (
        "device must exist on this machine; asked for 'cuda:1', found 1 of type cuda; pass --device auto"
    )
    with pytest.raises(TeacherError) as caught:
        pick_device("gpu")
    assert str(caught.value) == "device must be auto or a torch device; found 'gpu'; pass --device auto"


@pytest.mark.parametrize("name", ["auto", "bfloat16"])
def test_an_old_gpu_is_told_to_use_float16(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    with pytest.raises(TeacherError) as caught:
        pick_dtype(name, torch.device("cuda"), {"dtype": "bfloat16"})
    assert str(caught.value) == f"this GPU cannot compute in bfloat16; found --dtype {name}; pass --dtype float16"
