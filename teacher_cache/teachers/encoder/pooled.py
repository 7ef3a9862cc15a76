"""The image encoders of transformers, and the vector that each of them makes of a picture.

Letters: N pictures, T tokens, D width of a state.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.checkpoint import Checkpoint

_TIMM = "timm_wrapper"
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
"""How models call the parameter that stands before the patches."""


def is_encoder(settings: dict[str, Any]) -> bool:
    """Whether a config.json is of a model that takes pictures and writes no text, as far as transformers knows it."""
    kind = _kind(settings)
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return False
    model_class = MODEL_MAPPING.get(CONFIG_MAPPING[kind], None)
    return hasattr(model_class, "get_image_features") or getattr(model_class, "main_input_name", "") == "pixel_values"


def blank_model(checkpoint: Checkpoint) -> tuple[Any, dict[str, Any]]:
    """A checkpoint's model without weights, on the device `meta`, and what `from_pretrained` needs to make the same.

    ViT's pooler, a dense layer over the class token, is left out: many checkpoints do not have it, and then it would be
    random.

    Raises:
        TeacherError: it cannot be made of the config.json, or needs a package that is not installed.
    """
    if _kind(checkpoint.settings) == _TIMM and find_spec("timm") is None:
        raise TeacherError(
            f"a teacher of timm needs the package timm; '{checkpoint.name}' is one and it is not installed; "
            "install it with: pip install timm"
        )
    loader: Any = AutoModel  # its methods are not typed
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model, options = loader.from_config(config, trust_remote_code=False, dtype=torch.float32), {}
            if hasattr(getattr(model, "pooler", None), "dense"):
                options = {"add_pooling_layer": False}
                model = type(model)(config, **options)
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise TeacherError(
            f"config.json of a teacher must describe a model that transformers can make; that of '{checkpoint.name}' "
            f"does not ({first_line(error)}); fetch it again or correct --teacher"
        ) from error
    return model.eval(), options


def pool(model: Any, pixels: Tensor) -> tuple[Tensor, str]:  # (N, 3, S, S) -> (N, D) float32
    """One vector for each picture, and the rule that made it: the first of these that the model offers.

    1. `get_image_features`: CLIP's and SigLIP's embedding, which is compared with texts; the text tower does not run;
    2. `pooler_output`: the model's own pooling, such as DINOv2's class token after its norm or ConvNeXt's mean;
    3. the class token of the last states, where the model has one;
    4. the mean over the last states, patches or cells of a map.

    Raises:
        ValueError: the model offers none of them.
    """
    has_features = hasattr(model, "get_image_features")
    output = model.get_image_features(pixel_values=pixels) if has_features else model(pixel_values=pixels)
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        rule = "get_image_features" if has_features else "pooler_output"
        pooled = pooled.flatten(2).mean(dim=2) if pooled.ndim > 2 else pooled  # (N, D, 1, 1) of convolutions
        return pooled.to(torch.float32), f"visual: {rule}"
    states = getattr(output, "last_hidden_state", None)
    if states is None or states.ndim not in (3, 4):
        raise ValueError("it gives neither pooler_output nor last_hidden_state")
    if states.ndim == 4:
        return states.to(torch.float32).mean(dim=(2, 3)), "visual: mean over the cells of the last map"
    if any(name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in model.named_parameters()):
        return states[:, 0].to(torch.float32), "visual: class token of the last states"
    return states.to(torch.float32).mean(dim=1), "visual: mean over the patches' last states"


def _kind(settings: dict[str, Any]) -> str:
    """The `model_type`; timm's own files name none."""
    return str(settings.get("model_type", _TIMM if "pretrained_cfg" in settings else ""))
