"""The student as files: what a distillation leaves behind, and what everything later reads.

    student.pt                stock ultralytics checkpoint; plain `YOLO("student.pt")` loads it without this package
    translation.safetensors   weights of the translation module
    student.json              features, widths, class names, image size and what it was made from; written last

Loading never unpickles code: `student.pt` goes through ultralytics' restricted loader; the rest is safetensors, json.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import ultralytics
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from ultralytics.nn.modules import Detect, v10Detect
from ultralytics.nn.tasks import DetectionModel, torch_safe_load

from mocha_pipe.data.files import atomic_path, write_json
from mocha_pipe.student.choices import FeatureSet
from mocha_pipe.student.errors import StudentModelError, StudentModelNotFoundError
from mocha_pipe.student.network.deep import last_stage
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import FeatureDims, feature_dims
from mocha_pipe.student.network.translation import TranslationModule

DETECTOR_FILE = "student.pt"
TRANSLATION_FILE = "translation.safetensors"
CARD_FILE = "student.json"


HEADS = frozenset({Detect.__name__, v10Detect.__name__})
"""Last layers of the models that can be students."""
_OTHER_HEADS = {
    "WorldDetect": "YOLO-World, which is asked by texts", "YOLOEDetect": "YOLOE, which is asked by texts",
    "RTDETRDecoder": "RT-DETR, a transformer", "Segment": "segmentation", "YOLOESegment": "segmentation",
    "Classify": "classification", "Pose": "poses", "OBB": "turned boxes",
}  # fmt: skip


def needs_detector(head: str) -> str:
    """The rule for a student, and what was found, by the name of its last layer."""
    kind = next((what for name, what in _OTHER_HEADS.items() if head.startswith(name)), "another purpose")
    return (
        "the student must be a YOLO detector that needs no text (v3, v5, v6, v8, v9, v10, 11, 12 or 26), this is "
        f"another kind of model ({kind}; its last layer is {head})"
    )


class _Card(BaseModel, strict=True):
    """What student.json holds."""

    format: Literal[1]
    features: FeatureSet
    feature_dims: list[int]
    target_dim: int
    class_names: list[str]
    image_size: int
    meta: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Student:
    """A frozen detector, and the translation module where it was distilled; on the CPU, in evaluation mode, float32."""

    detector: DetectionModel
    translation: TranslationModule | None
    """None for a base detector, whose region features are used as they are."""
    features: FeatureSet
    """What a region's features are made of."""
    class_names: tuple[str, ...]
    image_size: int
    """Pixels of the longer side that it was trained at."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What it was made from: digests and versions."""

    @property
    def embedding_dim(self) -> int:
        """Width of a region's embedding."""
        return self.translation.embedding_dim if self.translation else feature_dims(self.detector, self.features).means


def save_student(
    model: DistillModel,
    folder: Path,
    *,
    kept: tuple[DetectionModel, int] | None = None,
    image_size: int,
    meta: Mapping[str, Any],
) -> Path:
    """Writes the student folder; each file appears whole, the json last.

    The checkpoint holds float16 weights as ultralytics' own do, and no path, host or repository of this machine.

    Args:
        model: the distilled model (the averaged weights of a finished run).
        folder: created where missing.
        kept: what `read_detector` gave of a detector that stayed as it was, and is written so; None writes the model's.
        image_size: pixels of the longer side at training.
        meta: json-able facts to keep, such as digests of the inputs.

    Returns:
        The folder.
    """
    card = _Card(
        format=1,
        features=model.features,
        feature_dims=list(model.translation.dims),
        target_dim=model.translation.out_dim,
        class_names=list(class_names(model)),
        image_size=image_size,
        meta=dict(meta),
    )
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.translation.state_dict().items()}
    checkpoint = io.BytesIO()  # torch writes the name of the file that it saves to into the archive
    torch.save(_stock_checkpoint(*(kept or (model.stripped().half(), image_size))), checkpoint)
    with atomic_path(folder / DETECTOR_FILE) as path:
        path.write_bytes(checkpoint.getvalue())
    with atomic_path(folder / TRANSLATION_FILE) as path:
        save_file(weights, path)
    write_json(folder / CARD_FILE, card.model_dump())
    return folder


def load_student(path: Path) -> Student:
    """Reads a student folder, or a `.pt` of a plain detector as a student without translation, its features `paper`.

    Raises:
        StudentModelNotFoundError: the folder, one of its files or the `.pt` is missing.
        StudentModelError: a file is damaged, disagrees with the others, or is no detector.
    """
    if path.suffix == ".pt":
        detector, image_size = load_detector(path)
        return Student(
            detector=detector,
            translation=None,
            features="paper",
            class_names=class_names(detector),
            image_size=image_size,
        )
    card = _read_card(path)
    detector, _ = load_detector(path / DETECTOR_FILE)
    dims = feature_dims(detector, card.features)
    if dims != FeatureDims(*card.feature_dims) or list(class_names(detector)) != card.class_names:
        raise StudentModelError(
            f"{path}: {DETECTOR_FILE} does not belong to {CARD_FILE} (features {list(dims)} and "
            f"{card.feature_dims} wide, {len(class_names(detector))} and {len(card.class_names)} classes); "
            "run `mocha-pipe distill` again."
        )
    return Student(
        detector=detector,
        translation=_read_translation(path / TRANSLATION_FILE, dims, card, detector),
        features=card.features,
        class_names=tuple(card.class_names),
        image_size=card.image_size,
        meta=card.meta,
    )


def student_features(path: Path) -> FeatureSet:
    """What `load_student` would say of the features, without reading weights; errors as there."""
    return "paper" if path.suffix == ".pt" else _read_card(path).features


def load_detector(path: Path) -> tuple[DetectionModel, int]:
    """As `read_detector`, but in float32."""
    detector, image_size = read_detector(path)
    return detector.float(), image_size


def read_detector(path: Path) -> tuple[DetectionModel, int]:
    """Reads an ultralytics checkpoint by the restricted loader.

    Returns:
        The detector on the CPU, in evaluation mode, in the precision that its weights are stored in; and the image size
        that it was trained at.

    Raises:
        StudentModelNotFoundError: no such file.
        StudentModelError: not a readable checkpoint of a detector.
    """
    checkpoint = load_checkpoint(path)
    detector = checkpoint.get("ema") or checkpoint.get("model")
    layers = getattr(detector, "model", None)
    head = type(layers[-1] if isinstance(layers, torch.nn.Sequential) and len(layers) else detector).__name__
    if not isinstance(detector, DetectionModel) or head not in HEADS:
        raise StudentModelError(f"{path}: {needs_detector(head)}; name the weights of a detector, such as yolov8n.pt.")
    if isinstance(detector, DistillModel):
        detector = detector.stripped()
    detector.eval().requires_grad_(False)
    size = (checkpoint.get("train_args") or {}).get("imgsz", 640)  # ultralytics' default
    return detector, max(size) if isinstance(size, list | tuple) else int(size)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in an ultralytics checkpoint, rebuilt from known classes only; errors as in `load_detector`."""
    if not path.is_file():
        raise StudentModelNotFoundError(f"{path}: no such file; name an existing .pt file.")
    try:
        checkpoint, _ = torch_safe_load(path, safe_only=True)
    except Exception as error:  # the loader's own errors are of many kinds and several lines
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StudentModelError(
            f"{path}: must be a checkpoint that ultralytics {ultralytics.__version__} wrote or reads ({reason[:160]})."
        ) from error
    if not isinstance(checkpoint, dict):
        raise StudentModelError(f"{path}: must hold an ultralytics checkpoint, found a {type(checkpoint).__name__}.")
    return checkpoint


def _stock_checkpoint(model: DetectionModel, image_size: int) -> dict[str, Any]:
    """What ultralytics stores for a finished run, less everything that names this machine."""
    detector: Any = model.cpu().to(memory_format=torch.contiguous_format)
    detector.args = {"task": "detect", "imgsz": image_size}
    detector.criterion = None
    detector.yaml = {**detector.yaml, "yaml_file": Path(str(detector.yaml.get("yaml_file", ""))).name}
    detector.__dict__.pop("pt_path", None)
    detector.requires_grad_(False).eval()
    return {
        "epoch": -1,
        "model": detector,
        "ema": None,
        "optimizer": None,
        "train_args": {"task": "detect", "imgsz": image_size},
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }


def _read_card(folder: Path) -> _Card:
    path = folder / CARD_FILE
    if not path.is_file():
        raise StudentModelNotFoundError(
            f"{folder}: a student folder holds {CARD_FILE}, none found; run `mocha-pipe distill`, or name a .pt file."
        )
    try:
        return _Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        wrong = [str(fault["loc"][0]) if fault["loc"] else fault["msg"] for fault in error.errors()]
        raise StudentModelError(
            f"{path}: unusable ({', '.join(dict.fromkeys(wrong))}); run `mocha-pipe distill` again."
        ) from error


def _read_translation(path: Path, dims: FeatureDims, card: _Card, detector: DetectionModel) -> TranslationModule:
    """The translation module, in evaluation mode."""
    if not path.is_file():
        raise StudentModelNotFoundError(f"{path}: no such file; run `mocha-pipe distill` again.")
    stage = last_stage(detector) if card.features == "deep" else None
    translation = TranslationModule(dims, card.target_dim, stage, reference=card.features == "reference")
    try:
        translation.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise StudentModelError(
            f"{path}: must hold a translation module {list(dims)} to {card.target_dim} wide; "
            "run `mocha-pipe distill` again."
        ) from error
    return translation.eval().requires_grad_(False)


def class_names(detector: DetectionModel) -> tuple[str, ...]:
    """Class names in the order of their ids."""
    return tuple(detector.names[index] for index in sorted(detector.names))
