"""A LLaVA without its weights: checkpoint, processor and device, and the spec that follows from them."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoProcessor, LlavaConfig, LlavaProcessor

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.checkpoint import Checkpoint, find_checkpoint
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.pixels import square_size
from mocha_pipe.teacher_cache.teachers.pooling import POOLING_NAMES
from mocha_pipe.teacher_cache.teachers.prompt import PromptEncoder
from mocha_pipe.teacher_cache.teachers.visual import clip_dim
from mocha_pipe.teacher_cache.teachers.weights import pick_device, pick_dtype

TOWER = "tower"


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
        TeacherError: a checkpoint is missing or not of the right kind, or device, dtype or layer do not exist.
    """
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    checkpoint = find_checkpoint(config.model, revision=config.revision, weights=weights, flag="--teacher")
    architecture = _read_architecture(checkpoint, config.layer)
    visual, visual_dim = None, architecture.vision_config.hidden_size
    if config.visual != TOWER:
        visual = find_checkpoint(config.visual, revision=None, weights=weights, flag="--visual")
        visual_dim = clip_dim(visual)
    processor = _load_processor(checkpoint)
    crop_size = square_size(processor.image_processor, checkpoint.name)
    image_tokens = _image_tokens(checkpoint.name, architecture, crop_size)
    prompts = PromptEncoder(processor, config.question, crop_size=crop_size, image_tokens=image_tokens)
    generates = config.mode == "generate"
    _check_length(prompts, architecture, config.max_new_tokens if generates else 0)
    spec = TeacherSpec(
        model=checkpoint.name,
        revision=checkpoint.revision,
        prompt=config.question,
        mode=config.mode,
        layer=config.layer,
        pooling=f"{POOLING_NAMES[config.mode]}; {POOLING_NAMES['tower' if visual is None else 'clip']}",
        crop_margin=float(config.crop_margin),
        crop_size=crop_size,
        dtype=str(dtype).removeprefix("torch."),
        visual=TOWER if visual is None else visual.name,
        visual_revision="" if visual is None else visual.revision,
        max_new_tokens=config.max_new_tokens if generates else 0,
        num_beams=config.num_beams if generates else 1,
        hidden_dim=architecture.text_config.hidden_size,
        visual_dim=visual_dim,
    )
    return TeacherDescription(spec, checkpoint, visual, processor, prompts, device, dtype)


def _read_architecture(checkpoint: Checkpoint, layer: int) -> Any:
    """The model's `LlavaConfig`; refuses what is not a LLaVA with a CLIP tower, and a layer that it does not have."""
    kind = checkpoint.settings.get("model_type")
    tower = checkpoint.settings.get("vision_config", {}).get("model_type", "clip_vision_model")
    if kind != "llava" or tower != "clip_vision_model":
        with_tower = f" with a '{tower}' tower" if kind == "llava" else ""
        raise TeacherError(
            f"the teacher must be a LLaVA model with a CLIP vision tower, or an image encoder; '{checkpoint.name}' is "
            f"of type '{kind}'{with_tower}; pass --teacher llava-hf/llava-1.5-7b-hf"
        )
    architecture: Any = LlavaConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    layers = architecture.text_config.num_hidden_layers
    if not -layers - 1 <= layer <= layers:
        raise TeacherError(
            f"the layer must be one that the teacher has, {-layers - 1}..{layers}; found {layer}; pass --layer -1"
        )
    return architecture


def _check_length(prompts: PromptEncoder, architecture: Any, answer: int) -> None:
    """Refuse a question that leaves no room: beyond its positions a model goes on without a word, and says nonsense."""
    most, asked = getattr(architecture.text_config, "max_position_embeddings", None), len(prompts.encode("object"))
    if most is not None and asked + answer > most:
        with_answer = f", and {answer} of an answer (--max-new-tokens)" if answer else ""
        raise TeacherError(
            f"picture and question must fit into the {most} tokens that the teacher was made for; found {asked}"
            f"{with_answer}; shorten --prompt"
        )


def _load_processor(checkpoint: Checkpoint) -> Any:
    loader: Any = AutoProcessor  # its methods are not typed
    try:
        processor = loader.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TeacherError(
            f"a teacher's folder must hold its processor and tokenizer; those of '{checkpoint.name}' cannot be loaded "
            f"({first_line(error)}); fetch the files again or correct --teacher"
        ) from error
    if not isinstance(processor, LlavaProcessor) or processor.patch_size is None:
        raise TeacherError(
            f"a teacher needs LLaVA's processor with its patch_size; '{checkpoint.name}' has a "
            f"{type(processor).__name__} without; fetch its processor_config.json or correct --teacher"
        )
    return processor


def _image_tokens(name: str, architecture: Any, crop_size: int) -> int:
    """Tokens that the model makes of one picture."""
    vision = architecture.vision_config
    if vision.image_size != crop_size:
        raise TeacherError(
            f"image processor and vision tower must agree on the picture's side; '{name}' has {crop_size} and "
            f"{vision.image_size} pixels; correct crop_size in its preprocessor_config.json"
        )
    class_token = 0 if architecture.vision_feature_select_strategy == "default" else 1
    return int((crop_size // vision.patch_size) ** 2 + class_token)
