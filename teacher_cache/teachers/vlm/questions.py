"""Regions as the checkpoint's own processor hands them to its model: one chat turn each, a picture and the question.

Letters: N regions, L tokens of a padded prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.batches import send
from mocha_pipe.teacher_cache.teachers.prompt import chat_text, refuse_special_tokens

FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What code of transformers raises when a checkpoint's files do not fit each other or its model."""
_NOT_FOR_THE_MODEL = "labels"
"""PaliGemma's processor returns these, for training: all of them say that nothing is to be learnt."""
TILING = ("crop_to_patches", "do_image_splitting")
"""What processors call the option that cuts a picture into tiles, each of which costs as much as a picture."""


class Questions:
    """Makes the inputs of a model. Whatever the processor returns is passed on, and nothing is added."""

    def __init__(self, processor: Any, question: str, *, name: str, image_token_id: int, tiled: bool = False) -> None:
        """Prepare to ask.

        Args:
            processor: of the checkpoint, with a chat template.
            question: text with `{label}`.
            name: of the checkpoint, for messages.
            image_token_id: what stands where the picture's states go.
            tiled: cut large pictures into tiles, where the processor does that.

        Raises:
            TeacherError: the question holds a special token.
        """
        refuse_special_tokens(processor, question, "a prompt", "pass another one with --prompt")
        self._processor, self._question, self._name = processor, question, name
        self.image_token_id = image_token_id
        self.pad_id: int = processor.tokenizer.pad_token_id
        # A processor's own default goes before that of its image processor, so the option is given with every call.
        options = [option for option in TILING if hasattr(processor.image_processor, option)]
        self.can_tile = bool(options)
        self._tiling = dict.fromkeys(options, tiled)
        self._texts: dict[str, str] = {}
        self._lengths: dict[str, int] = {}

    def ask(
        self,
        crops: Sequence[NDArray[np.uint8]],
        class_names: Sequence[str],
        *,
        side: Literal["left", "right"] = "right",
    ) -> dict[str, Tensor]:
        """Inputs of the model for N regions, padded on that side, on the CPU.

        Args:
            crops: (S, S, 3) uint8 RGB each.
            class_names: one for each.
            side: where shorter prompts are padded.

        Raises:
            TeacherError: a class name holds a special token, or the processor fails.
        """
        texts = [self._text(name) for name in class_names]
        start = self._processor.tokenizer.bos_token
        try:
            inputs = self._processor(
                # Of an array 1, 3 or 4 pixels high processors guess that its colours come first; of a picture never.
                images=[[Image.fromarray(crop)] for crop in crops],
                text=texts,
                padding=True,
                padding_side=side,
                add_special_tokens=not (start and texts[0].startswith(start)),  # a template may have written it
                return_tensors="pt",
                **self._tiling,
            )
        except FAULTS as error:
            raise TeacherError(
                f"a teacher's processor must take one picture and one question; that of '{self._name}' does not "
                f"({first_line(error)}); name another checkpoint with --teacher"
            ) from error
        return {key: value for key, value in inputs.items() if key != _NOT_FOR_THE_MODEL}

    def ids(self, class_name: str, crop_size: int) -> list[int]:
        """Token ids of the prompt about a square crop of that size.

        Raises:
            TeacherError: there is no picture among them, or as `ask`.
        """
        blank = np.zeros((crop_size, crop_size, 3), np.uint8)
        ids: list[int] = self.ask([blank], [class_name])["input_ids"][0].tolist()
        if self.image_token_id not in ids:
            raise TeacherError(
                f"processor and model must agree on the token of a picture; '{self._name}' has {self.image_token_id} "
                "in its config.json, and its processor makes none of it; correct image_token_id there or the chat "
                "template"
            )
        return ids

    def length(self, class_name: str, crop_size: int) -> int:
        """Tokens of the prompt about a crop of that size, counted once for each name."""
        if class_name not in self._lengths:
            self._lengths[class_name] = len(self.ids(class_name, crop_size))
        return self._lengths[class_name]

    def image_tokens(self, crop_size: int) -> int:
        """Tokens that a square picture of that size becomes."""
        return self.ids("object", crop_size).count(self.image_token_id)

    def _text(self, class_name: str) -> str:
        """The prompt of a class name in the chat format, made once."""
        if class_name not in self._texts:
            refuse_special_tokens(self._processor, class_name, "a class name", "rename the class in data.yaml")
            self._texts[class_name] = chat_text(self._processor, self._question, class_name)
        return self._texts[class_name]


def to_device(inputs: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Inputs on a device, numbers of pixels in the model's type."""
    moved = {key: send(value, device) if isinstance(value, Tensor) else value for key, value in inputs.items()}
    # Converted only there: on the way it would be done by the CPU, into memory that is not pinned.
    return {
        key: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in moved.items()
    }
