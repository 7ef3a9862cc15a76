"""EncoderTeacher: an image encoder of Hugging Face transformers, unmodified, gives `visual` and nothing else.

A crop takes the way that the checkpoint's own image processor prescribes. What that cuts off the teacher does not see;
the spec says in `sees` what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings
from mocha_pipe.teacher_cache.teachers.batches import check_regions, forward_pass
from mocha_pipe.teacher_cache.teachers.checkpoint import Checkpoint, find_checkpoint
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.encoder.pooled import blank_model, pool
from mocha_pipe.teacher_cache.teachers.encoder.sight import measure, to_pixels
from mocha_pipe.teacher_cache.teachers.weights import load_weights, pick_device, pick_dtype

_QUESTION = {"mode": "prompt", "prompt": None, "layer": -1, "visual": "tower", "image_tokens": None}
"""Settings of a teacher with a language model, and the values that ask for nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderDescription:
    """What a `TeacherConfig` that names an image encoder means on this machine."""

    spec: TeacherSpec
    checkpoint: Checkpoint
    processor: Any
    """The checkpoint's image processor."""
    model_class: Any
    options: dict[str, Any]
    """What `from_pretrained` of that class is told."""
    device: torch.device
    dtype: torch.dtype


def describe_encoder(config: TeacherConfig, *, weights: bool = False) -> EncoderDescription:
    """Find and check everything but the weights.

    Args:
        config: which teacher, and how it embeds.
        weights: download the weights of a hub id too, to be loaded next.

    Raises:
        TeacherError: the checkpoint is missing or does not work, or settings ask for what it does not have.
    """
    device = pick_device(config.device)
    checkpoint = find_checkpoint(config.model, revision=config.revision, weights=weights, flag="--teacher")
    dtype = pick_dtype(config.dtype, device, checkpoint.settings)
    _refuse_questions(config, checkpoint)
    model, options = blank_model(checkpoint)
    processor = _load_processor(checkpoint)
    sight = measure(processor, checkpoint.name)
    pooled, rule = _run_blank(model, sight.side, checkpoint.name)
    spec = TeacherSpec(
        model=checkpoint.name,
        revision=checkpoint.revision,
        prompt="",
        mode="visual",
        layer=-1,
        pooling=rule,
        crop_margin=float(config.crop_margin),
        crop_size=sight.crop_size,
        dtype=str(dtype).removeprefix("torch."),
        visual="tower",
        visual_revision="",
        max_new_tokens=0,
        num_beams=1,
        hidden_dim=0,
        visual_dim=pooled.shape[1],
        sees=sight.words,
    )
    return EncoderDescription(spec, checkpoint, processor, type(model), options, device, dtype)


class EncoderTeacher:
    """A teacher without a language model. See `Teacher` for the contract; class names do not matter to it.

    The other regions of a batch move an embedding only by rounding.
    """

    spec: TeacherSpec

    def __init__(self, described: EncoderDescription, model: Any, *, batch: int, compiled: bool = False) -> None:
        """A teacher of a model that is in memory already; `load` reads one from its checkpoint.

        Args:
            described: all but the weights, as `describe_encoder` finds it.
            model: of the class that it names, frozen, on the device.
            batch: regions per forward pass.
            compiled: compile the model, or its vision tower.
        """
        self.spec = described.spec
        self._model, self._processor, self._batch = model, described.processor, batch
        if compiled:
            getattr(model, "vision_model", model).compile()

    @classmethod
    def load(cls, config: TeacherConfig) -> "EncoderTeacher":
        """Load the checkpoint that a configuration names, from its folder or from the hub.

        Raises:
            TeacherError: as `describe_encoder`, or the weights do not fit, or chance decides what the model says.
        """
        described = describe_encoder(config, weights=True)
        model = load_weights(
            described.model_class,
            described.checkpoint,
            dtype=described.dtype,
            device=described.device,
            flag="--teacher",
            options=described.options,
        )
        teacher = cls(described, model, batch=config.batch, compiled=config.compile)
        teacher._require_repeatable()
        return teacher

    @torch.inference_mode()
    def embed(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> RegionEmbeddings:
        """Embed regions; see `Teacher.embed`.

        Raises:
            TeacherError: a batch does not fit into the device's memory.
        """
        check_regions(crops, class_names, self.spec)
        done = [torch.empty(0, self.spec.visual_dim)]
        for start in range(0, len(crops), self._batch):
            pixels = to_pixels(self._processor, crops[start : start + self._batch])
            with forward_pass(len(pixels)):
                done.append(pool(self._model, pixels.to(self._model.device, self._model.dtype))[0])
        # A copy waits for the GPU, which works on one batch while the next one is made ready.
        visual = torch.cat([part.cpu() for part in done]).numpy()
        return RegionEmbeddings(np.zeros((len(crops), 0), np.float32), visual)

    def tokens(self, class_name: str) -> int:  # noqa: ARG002 (the protocol's)
        """None: there is no language model."""
        return 0

    def _require_repeatable(self) -> None:
        """Refuse a model that draws lots, such as ViT-MAE, which hides patches at random."""
        size = self.spec.crop_size
        noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
        first, second = (self.embed([noise], [""]).visual for _ in range(2))
        if np.linalg.norm(first - second) > 1e-3 * np.linalg.norm(first):
            raise TeacherError(
                f"a teacher must say the same of a picture whenever it is asked; '{self.spec.model}' does not; "
                "name another with --teacher"
            )


def _refuse_questions(config: TeacherConfig, checkpoint: Checkpoint) -> None:
    for name, silent in _QUESTION.items():
        if (value := getattr(config, name)) != silent:
            raise TeacherError(
                f"an image encoder is asked nothing; '{checkpoint.name}' is one, and found --{name.replace('_', '-')} "
                f"{value}; leave that out, or name a LLaVA: --teacher llava-hf/llava-1.5-7b-hf"
            )


def _load_processor(checkpoint: Checkpoint) -> Any:
    loader: Any = AutoImageProcessor  # its methods are not typed
    try:
        return loader.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TeacherError(
            f"a teacher's folder must hold its image processor; that of '{checkpoint.name}' cannot be loaded "
            f"({first_line(error)}); fetch its preprocessor_config.json or correct --teacher"
        ) from error


def _run_blank(model: Any, side: int, name: str) -> tuple[torch.Tensor, str]:
    """What the model without weights makes of a picture without content: the width of its vector, and the rule."""
    try:
        with torch.inference_mode():
            return pool(model, torch.empty(1, 3, side, side, device="meta"))
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise TeacherError(
            f"a teacher must make one vector of a picture; '{name}' does not of {side} x {side} pixels "
            f"({first_line(error)}); correct its preprocessor_config.json or --teacher"
        ) from error
