"""A LLaVA-1.5 without its weights: checkpoint, processor and device, and the spec that follows from them."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlavaConfig, LlavaProcessor

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.checkpoint import Checkpoint, find_checkpoint
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.pixels import image_settings_file, square_size
from mocha_pipe.teacher_cache.teachers.prompt import Limits, PromptEncoder
from mocha_pipe.teacher_cache.teachers.vlm.describe import asked_spec, find_visual, load_processor, require_layer
from mocha_pipe.teacher_cache.teachers.vlm.sizes import refuse_budget
from mocha_pipe.teacher_cache.teachers.weights import pick_device, pick_dtype


def is_llava(settings: dict[str, Any]) -> bool:
    """Whether a config.json is of a LLaVA with a CLIP tower, such as LLaVA-1.5; other towers go the general way."""
    tower = settings.get("vision_config", {}).get("model_type", "clip_vision_model")
    return settings.get("model_type") == "llava" and tower == "clip_vision_model"


@dataclass(frozen=True, slots=True, eq=False)
class TeacherDescription:
    """What a `TeacherConfig` means on this machine."""

    spec: TeacherSpec
    checkpoint: Checkpoint
    visual: Checkpoint | None
    """The CLIP checkpoint that gives `visual`; None where the teacher's own vision tower does."""
    processor: Any
    """The checkpoint's `LlavaProcessor`."""
    prompts: PromptEncoder
    device: torch.device
    dtype: torch.dtype


def describe(config: TeacherConfig, *, weights: bool = False) -> TeacherDescription:
    """Find and check everything but the weights.

    Args:
        config: which teacher, and how it embeds.
        weights: download the weights of a hub id too, to be loaded next.

    Raises:
        TeacherError: a checkpoint is missing or its files do not fit, or device, dtype, layer or budget do not exist.
    """
    device = pick_device(config.device)
    checkpoint = find_checkpoint(config.model, revision=config.revision, weights=weights, flag="--teacher")
    dtype = pick_dtype(config.dtype, device, checkpoint.settings)
    architecture = _read_architecture(checkpoint, config.layer)
    visual, visual_dim = find_visual(config, architecture.vision_config.hidden_size, weights=weights)
    processor = _load_processor(checkpoint)
    settings_file = image_settings_file(checkpoint.folder)
    crop_size = square_size(processor.image_processor, checkpoint.name, settings_file)
    image_tokens = _image_tokens(checkpoint.name, architecture, crop_size, settings_file)
    refuse_budget(config.image_tokens, image_tokens, checkpoint.name)
    prompts = PromptEncoder(
        processor,
        config.question,
        crop_size=crop_size,
        image_tokens=image_tokens,
        limits=Limits.of(config, architecture.text_config, architecture.text_config.vocab_size),
    )
    spec = asked_spec(
        config, checkpoint, visual, pooled="tower", crop_size=crop_size, dtype=dtype,
        hidden_dim=architecture.text_config.hidden_size, visual_dim=visual_dim,
    )  # fmt: skip
    return TeacherDescription(spec, checkpoint, visual, processor, prompts, device, dtype)


def _read_architecture(checkpoint: Checkpoint, layer: int) -> Any:
    """The model's `LlavaConfig`; refuses a layer that it does not have."""
    architecture: Any = LlavaConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    require_layer(layer, architecture.text_config.num_hidden_layers)
    return architecture


def _load_processor(checkpoint: Checkpoint) -> Any:
    processor = load_processor(checkpoint)
    if not isinstance(processor, LlavaProcessor) or processor.patch_size is None:
        raise TeacherError(
            f"a teacher needs LLaVA's processor with its patch_size; '{checkpoint.name}' has a "
            f"{type(processor).__name__} without; fetch its processor_config.json or correct --teacher"
        )
    return processor


def _image_tokens(name: str, architecture: Any, crop_size: int, settings_file: str) -> int:
    """Tokens that the model makes of one picture."""
    vision = architecture.vision_config
    if vision.image_size != crop_size:
        raise TeacherError(
            f"image processor and vision tower must agree on the picture's side; '{name}' has {crop_size} and "
            f"{vision.image_size} pixels; correct crop_size in its {settings_file}"
        )
    class_token = 0 if architecture.vision_feature_select_strategy == "default" else 1
    return int((crop_size // vision.patch_size) ** 2 + class_token)
