"""A vision-language model without its weights: checkpoint, processor, device, and the spec that follows from them."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoProcessor

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.checkpoint import Checkpoint, find_checkpoint
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.pooling import POOLING_NAMES
from mocha_pipe.teacher_cache.teachers.prompt import Limits, check_layout
from mocha_pipe.teacher_cache.teachers.visual import TOWER, clip_dim
from mocha_pipe.teacher_cache.teachers.vlm.questions import FAULTS, Questions
from mocha_pipe.teacher_cache.teachers.vlm.sizes import choose_size
from mocha_pipe.teacher_cache.teachers.weights import pick_device, pick_dtype

_BROKEN = {"llama4": "its forward pass fails in transformers 5.24"}
"""Types of models that are as they should be and do not run, by what was seen."""


@dataclass(frozen=True, slots=True, eq=False)
class VlmDescription:
    """What a `TeacherConfig` that names a vision-language model means on this machine."""

    spec: TeacherSpec
    checkpoint: Checkpoint
    visual: Checkpoint | None
    """The CLIP checkpoint that gives `visual`; None where the teacher's own picture does."""
    questions: Questions
    model_class: Any
    device: torch.device
    dtype: torch.dtype


def describe_vlm(config: TeacherConfig, *, weights: bool = False) -> VlmDescription:
    """Find and check everything but the weights.

    Args:
        config: which teacher, and how it embeds.
        weights: download the weights of a hub id too, to be loaded next.

    Raises:
        TeacherError: a checkpoint is missing or not of the right kind, needs another package, or device, dtype, layer
            or budget do not exist.
    """
    device = pick_device(config.device)
    checkpoint = find_checkpoint(config.model, revision=config.revision, weights=weights, flag="--teacher")
    dtype = pick_dtype(config.dtype, device, checkpoint.settings)
    model = _blank_model(checkpoint)
    text: Any = model.config.get_text_config()
    require_layer(config.layer, text.num_hidden_layers)
    visual, visual_dim = find_visual(config, text.hidden_size, weights=weights)
    processor = load_processor(checkpoint)
    if processor.chat_template is None:
        raise TeacherError(
            f"a teacher is asked in its chat format; '{checkpoint.name}' of type '{model.config.model_type}' has no "
            "chat template; name a checkpoint that was tuned to chat with --teacher, or add its chat_template.jinja"
        )
    asking = {"name": checkpoint.name, "image_token_id": model.config.image_token_id}
    plain, tiling = (Questions(processor, config.question, tiled=tiled, **asking) for tiled in (False, True))
    size = choose_size(plain, tiling, config.image_tokens, checkpoint.name)
    questions = tiling if size.tiled else plain
    prompts = [questions.ids(name, size.side) for name in ("object", "thing")]
    vocabulary = model.get_input_embeddings().num_embeddings
    check_layout(prompts, questions.image_token_id, Limits.of(config, text, vocabulary))
    spec = asked_spec(
        config, checkpoint, visual, pooled="picture", crop_size=size.side, dtype=dtype, hidden_dim=text.hidden_size,
        visual_dim=visual_dim, sees=size.words, image_tokens=size.image_tokens,
    )  # fmt: skip
    return VlmDescription(spec, checkpoint, visual, questions, type(model), device, dtype)


def find_visual(config: TeacherConfig, own_width: int, *, weights: bool) -> tuple[Checkpoint | None, int]:
    """The CLIP checkpoint that gives `visual`, None where the teacher's own picture does, and the width of it.

    Raises:
        TeacherError: the checkpoint is missing, or is no CLIP.
    """
    if config.visual == TOWER:
        return None, own_width
    visual = find_checkpoint(config.visual, revision=None, weights=weights, flag="--visual")
    return visual, clip_dim(visual)


def asked_spec(
    config: TeacherConfig,
    checkpoint: Checkpoint,
    visual: Checkpoint | None,
    *,
    pooled: str,
    crop_size: int,
    dtype: torch.dtype,
    hidden_dim: int,
    visual_dim: int,
    sees: str = "",
    image_tokens: int = 0,
) -> TeacherSpec:
    """The spec of a teacher that is asked about its crops.

    Args:
        config: which teacher, and how it embeds.
        checkpoint: the teacher's.
        visual: as `find_visual` has it.
        pooled: the name in `POOLING_NAMES` of what the teacher's own `visual` is a mean of.
        crop_size: field of the spec, as are all that follow.
        dtype: what the model computes in.
        hidden_dim: field of the spec.
        visual_dim: field of the spec.
        sees: field of the spec.
        image_tokens: field of the spec.
    """
    generates = config.mode == "generate"
    read = "beams" if generates and config.all_beams else config.mode
    return TeacherSpec(
        model=checkpoint.name,
        revision=checkpoint.revision,
        prompt=config.question,
        mode=config.mode,
        layer=config.layer,
        pooling=f"{POOLING_NAMES[read]}; {POOLING_NAMES[pooled if visual is None else 'clip']}",
        crop_margin=float(config.crop_margin),
        crop_size=crop_size,
        dtype=str(dtype).removeprefix("torch."),
        visual=TOWER if visual is None else visual.name,
        visual_revision="" if visual is None else visual.revision,
        max_new_tokens=config.max_new_tokens if generates else 0,
        num_beams=config.num_beams if generates else 1,
        hidden_dim=hidden_dim,
        visual_dim=visual_dim,
        sees=sees,
        image_tokens=image_tokens,
        sampling_seed=config.sampling_seed if generates else None,
        no_repeat_ngram=config.no_repeat_ngram if generates else 0,
        all_beams=generates and config.all_beams,
    )


def require_layer(layer: int, layers: int) -> None:
    """Refuse a layer that the language model does not have.

    Raises:
        TeacherError: it has none of that index.
    """
    if not -layers - 1 <= layer <= layers:
        raise TeacherError(
            f"the layer must be one that the teacher has, {-layers - 1}..{layers}; found {layer}; pass --layer -1"
        )


def load_processor(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own processor of texts and pictures; no code of the checkpoint's runs.

    Raises:
        TeacherError: it is not there, is one of texts alone, or needs a package that is not installed.
    """
    loader: Any = AutoProcessor  # its methods are not typed
    try:
        processor = loader.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except (ImportError, *FAULTS) as error:
        _name_missing_package(checkpoint, error)
        raise TeacherError(
            f"a teacher's folder must hold its processor and tokenizer; those of '{checkpoint.name}' cannot be loaded "
            f"({first_line(error)}); fetch the files again or correct --teacher"
        ) from error
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise TeacherError(
            f"a teacher's folder must hold a processor of pictures and texts; that of '{checkpoint.name}' is a "
            f"{type(processor).__name__}; fetch its processor_config.json or preprocessor_config.json, or correct "
            "--teacher"
        )
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token  # masked wherever it stands
    return processor


def _blank_model(checkpoint: Checkpoint) -> Any:
    """The checkpoint's model without weights, on the device `meta`."""
    kind = str(checkpoint.settings.get("model_type"))
    classes: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING  # its items are typed as tuples
    problem = None
    if kind not in CONFIG_MAPPING:
        problem = "which this version of transformers does not have; code that comes with a checkpoint is never run"
    elif CONFIG_MAPPING[kind] not in classes:
        problem = "which does not answer to pictures"
    elif kind in _BROKEN:
        problem = _BROKEN[kind]
    if problem:
        raise not_a_teacher(checkpoint, problem)
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        if config.is_encoder_decoder:
            raise not_a_teacher(checkpoint, "whose text is read by an encoder, away from the answer's states")
        with torch.device("meta"):
            model = classes[type(config)](config)
    except (ImportError, *FAULTS) as error:
        if isinstance(error, TeacherError):
            raise
        _name_missing_package(checkpoint, error)
        raise TeacherError(
            f"config.json of a teacher must describe a model that transformers can make; that of '{checkpoint.name}' "
            f"does not ({first_line(error)}); fetch it again or correct --teacher"
        ) from error
    if not hasattr(model, "model") or getattr(model.config, "image_token_id", None) is None:
        raise not_a_teacher(checkpoint, "which does not put pictures among the tokens of a language model")
    return model


def not_a_teacher(checkpoint: Checkpoint, problem: str) -> TeacherError:
    """The error for a checkpoint of the wrong type."""
    return TeacherError(
        "the teacher must be a vision-language model that chats about pictures, or an image encoder; "
        f"'{checkpoint.name}' is of type '{checkpoint.settings.get('model_type')}', {problem}; name another with "
        "--teacher, such as llava-hf/llava-1.5-7b-hf"
    )


def _name_missing_package(checkpoint: Checkpoint, error: Exception) -> None:
    """Transformers says which package a family needs beside it, in words of its own."""
    if isinstance(error, ImportError) and (found := re.search(r"pip install ([\w.-]+)", str(error))):
        raise TeacherError(
            f"a teacher of type '{checkpoint.settings.get('model_type')}' needs the package {found[1]}; "
            f"'{checkpoint.name}' is one and it is not installed; install it with: pip install {found[1]}"
        ) from error
