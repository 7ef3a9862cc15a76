"""The image embedding z of a region: from the teacher's own vision tower, or from a CLIP checkpoint beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor, CLIPConfig, CLIPModel

from mocha_pipe.teacher_cache.crops import squash
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.checkpoint import Checkpoint
from mocha_pipe.teacher_cache.teachers.pixels import PixelScaler, image_settings_file, square_size
from mocha_pipe.teacher_cache.teachers.weights import load_weights

TOWER = "tower"
"""The value of --visual that asks for the teacher's own picture."""


def mean_patch(tower: torch.nn.Module, states_NTD: Tensor) -> Tensor:  # (N, 1 + patches, D) -> (N, D) float32
    """Mean over the patches of a CLIP tower's last states after its final norm; the class token is left out."""
    # CLIP itself applies this norm to the class token alone. Its place in the module differs by transformers version.
    norm = next(module for name, module in tower.named_modules() if name.endswith("post_layernorm"))
    patches: Tensor = norm(states_NTD)[:, 1:]
    return patches.to(torch.float32).mean(dim=1)


class ClipEncoder:
    """Projected image embeddings of a CLIP checkpoint, unit norm (the reference takes them from ViT-B/32)."""

    def __init__(self, checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype) -> None:
        """Load a CLIP checkpoint.

        Raises:
            TeacherError: its weights cannot be read, or its image processor does not make squares.
        """
        loader: Any = AutoImageProcessor  # its methods are not typed
        self._processor = loader.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        self._size = square_size(self._processor, checkpoint.name, image_settings_file(checkpoint.folder))
        self._scale_pixels = PixelScaler(self._processor)
        self._model = load_weights(CLIPModel, checkpoint, device=device, dtype=dtype, flag="--visual")

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> Tensor:  # N x (S, S, 3) -> (N, dim) float32
        """Embed crops of any one size; they are squashed to CLIP's own."""
        pixels = torch.from_numpy(np.stack([squash(crop, self._size) for crop in crops])).to(self._model.device)
        states = self._model.vision_model(self._scale_pixels(pixels, self._model.dtype))
        embeddings_ND: Tensor = self._model.visual_projection(states.pooler_output)
        return torch.nn.functional.normalize(embeddings_ND.to(torch.float32), dim=1)


def clip_dim(checkpoint: Checkpoint) -> int:
    """Width of a CLIP checkpoint's projected embedding, from its config.json.

    Raises:
        TeacherError: config.json names another kind of model.
    """
    kind = checkpoint.settings.get("model_type")
    if kind != "clip":
        raise TeacherError(
            f"the visual encoder must be tower or a CLIP checkpoint; '{checkpoint.name}' is of type '{kind}'; "
            "pass --visual tower or --visual openai/clip-vit-base-patch32"
        )
    dim = CLIPConfig.from_dict(checkpoint.settings).projection_dim
    assert dim is not None, "CLIP has a default"
    return int(dim)
