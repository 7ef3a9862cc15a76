"""Student folders: written whole, read without trusting them, and usable without this package."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import pytest
import torch

from mocha_pipe.student.errors import StudentModelError, StudentModelNotFoundError
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import GRID, RegionFeatures
from mocha_pipe.student.network.student_files import load_checkpoint, load_student, save_student

NAMES = {0: "mug", 1: "ball", 2: "boot"}


def make_model(config: str, **settings: Any) -> DistillModel:
    torch.manual_seed(0)
    model = DistillModel(config, **{"num_classes": 3, "features": "fine", "target_dim": 8, **settings})
    model.names = NAMES
    return model


@pytest.fixture
def folder(tiny_models: dict[str, str], tmp_path: Path) -> Path:
    return save_student(make_model(tiny_models["v8"]), tmp_path / "student", image_size=96, meta={"cache": "abc"})


@pytest.mark.parametrize("family", ["v8", "11", "26"])
def test_what_is_saved_is_loaded(tiny_models: dict[str, str], tmp_path: Path, family: str) -> None:
    model = make_model(tiny_models[family]).eval()
    student = load_student(save_student(model, tmp_path / "a" / "b", image_size=96, meta={"cache": "abc"}))
    assert student.features == "fine"
    assert student.class_names == ("mug", "ball", "boot")
    assert student.image_size == 96
    assert student.meta == {"cache": "abc"}
    assert student.embedding_dim == 8
    assert student.translation is not None
    assert not any(module.training for part in (student.detector, student.translation) for module in part.modules())
    image, dims = torch.rand(1, 3, 64, 64), model.translation.dims
    features = RegionFeatures(torch.randn(4, dims.means), torch.randn(4, dims.patches, GRID, GRID))
    assert torch.equal(student.translation(features), model.translation(features))
    half = model.half().float()
    torch.testing.assert_close(student.detector(image)[0], half(image)[0])
    assert isinstance(half, DistillModel)


def test_saving_twice_gives_equal_bytes(tiny_models: dict[str, str], tmp_path: Path) -> None:
    folders = [
        save_student(make_model(tiny_models["v8"]), tmp_path / name, image_size=64, meta={}) for name in ("a", "b")
    ]
    for name in ("student.pt", "translation.safetensors", "student.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    assert sorted(path.name for path in folders[0].iterdir()) == [
        "student.json",
        "student.pt",
        "translation.safetensors",
    ]


def test_the_checkpoint_names_nothing_of_this_machine(tiny_models: dict[str, str], tmp_path: Path) -> None:
    model = make_model(tiny_models["v8"])
    model.pt_path = str(tmp_path / "last.pt")
    model.args = {"save_dir": str(tmp_path), "data": str(tmp_path / "data.yaml"), "imgsz": 64}
    folder = save_student(model, tmp_path / "student", image_size=96, meta={})
    content = (folder / "student.pt").read_bytes()
    models = str(Path(tiny_models["v8"]).parent)
    for secret in (str(tmp_path), models, str(Path.home()), str(Path.cwd()), "DistillModel", "student."):
        assert secret.encode() not in content, secret


def test_a_plain_pt_is_a_student_without_translation(tiny_models: dict[str, str], tmp_path: Path) -> None:
    model = make_model(tiny_models["11"])
    folder = save_student(model, tmp_path, image_size=64, meta={})
    student = load_student(folder / "student.pt")
    assert student.translation is None
    assert student.features == "paper"
    assert student.embedding_dim == model.translation.dims.means
    assert student.image_size == 64


def test_a_missing_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(StudentModelNotFoundError) as error:
        load_student(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: a student folder holds student.json, none found; run `mocha-pipe distill`, or name a .pt file."
    )


@pytest.mark.parametrize("name", ["student.pt", "translation.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(StudentModelNotFoundError) as error:
        load_student(folder)
    assert str(error.value).startswith(f"{folder / name}: no such file; ")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"features": "coarse"}, "features"),
        ({"format": 7}, "format"),
        ({"target_dim": "8"}, "target_dim"),
        ({"class_names": None, "image_size": None}, "class_names, image_size"),
    ],
)
def test_a_damaged_card_names_its_fields(folder: Path, change: dict[str, Any], found: str) -> None:
    path = folder / "student.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(StudentModelError) as error:
        load_student(folder)
    assert str(error.value) == f"{path}: unusable ({found}); run `mocha-pipe distill` again."


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_card_that_is_no_card_is_refused(folder: Path, text: str) -> None:
    (folder / "student.json").write_text(text, encoding="utf-8")
    with pytest.raises(StudentModelError, match=r"student\.json: unusable \(.+\); run `mocha-pipe distill` again\.$"):
        load_student(folder)


def test_files_of_two_students_are_told_apart(tiny_models: dict[str, str], folder: Path, tmp_path: Path) -> None:
    other = make_model(tiny_models["11"])
    save_student(other, tmp_path / "other", image_size=96, meta={})
    (tmp_path / "other" / "student.pt").replace(folder / "student.pt")
    mismatch = r"student\.pt does not belong to student\.json \(features \[\d+, \d+, 0\] and \["
    with pytest.raises(StudentModelError, match=mismatch):
        load_student(folder)


@pytest.mark.parametrize("content", [b"", b"no tensors"])
def test_a_damaged_translation_is_refused(folder: Path, content: bytes) -> None:
    path = folder / "translation.safetensors"
    in_dims = json.loads((folder / "student.json").read_text(encoding="utf-8"))["feature_dims"]
    path.write_bytes(content)
    with pytest.raises(StudentModelError) as error:
        load_student(folder)
    assert str(error.value) == (
        f"{path}: must hold a translation module {in_dims} to 8 wide; run `mocha-pipe distill` again."
    )


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"a": 1}, protocol=2)])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(StudentModelError) as error:
        load_checkpoint(path)
    assert str(error.value).startswith(f"{path}: must be a checkpoint that ultralytics 8.")
    assert "\n" not in str(error.value)


class Trap:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch trapped",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Trap()}, "trap.pt")
    with pytest.raises(StudentModelError):
        load_student(Path("trap.pt"))
    assert not Path("trapped").exists()


def test_a_model_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "linear.pt")
    with pytest.raises(StudentModelError) as error:
        load_student(tmp_path / "linear.pt")
    assert str(error.value) == (
        f"{tmp_path / 'linear.pt'}: the student must be a YOLO detector that needs no text (v3, v5, v6, v8, v9, v10, "
        "11, 12 or 26), this is another kind of model (another purpose; its last layer is Linear); name the weights of "
        "a detector, such as yolov8n.pt."
    )


def test_saving_leaves_the_model_as_it_is(tiny_models: dict[str, str], tmp_path: Path) -> None:
    model = make_model(tiny_models["v8"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_student(model, tmp_path, image_size=64, meta={})
    assert type(model) is DistillModel
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
