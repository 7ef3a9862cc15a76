"""LlavaTeacher: a LLaVA checkpoint of Hugging Face transformers, unmodified, embeds regions in batches.

Per batch the vision tower sees every picture once; its states serve both the language model and `visual`. The language
model's head is applied only where a description is generated, and only at its last position.

Letters: N regions, L tokens of a padded prompt, T steps of a padded answer, D width of a hidden state.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from teacher_cache.config import TeacherConfig
from teacher_cache.errors import TeacherError
from teacher_cache.spec import TeacherSpec
from teacher_cache.teachers.base import RegionEmbeddings
from teacher_cache.teachers.describe import describe
from teacher_cache.teachers.pixels import pixel_values
from teacher_cache.teachers.pooling import (
    answer_lengths,
    answer_steps,
    masked_mean,
    pad_rows,
    positions,
    text_after_image,
)
from teacher_cache.teachers.visual import ClipEncoder, mean_patch
from teacher_cache.teachers.weights import load_weights


class LlavaTeacher:
    """The teacher of the paper. See `Teacher` for the contract.

    An embedding does not depend on its batch beyond rounding: a region embedded alone and in a batch differ by at most
    1e-4 of the embedding's norm in float32 and 2e-2 in bfloat16 (both tested). In `generate` mode rounding can also
    decide between two words of nearly equal score, and then the rest of the answer differs; rare in float32.
    """

    spec: TeacherSpec
    hidden_dim: int
    visual_dim: int

    def __init__(self, config: TeacherConfig) -> None:
        """Load the checkpoint, from its folder or from the hub.

        Raises:
            TeacherError: it cannot be found or read, is not LLaVA, or does not run on this machine as configured.
        """
        described = describe(config, weights=True)
        self.spec = described.spec
        self._processor = described.processor
        self._prompts = described.prompts
        self._batch = config.batch
        self._model = load_weights(
            LlavaForConditionalGeneration,
            described.checkpoint,
            dtype=described.dtype,
            device=described.device,
            flag="--teacher",
        )
        self._clip = None
        if described.visual is not None:
            self._clip = ClipEncoder(described.visual, device=described.device, dtype=described.dtype)
        self.hidden_dim = described.architecture.text_config.hidden_size
        tower_dim = described.architecture.vision_config.hidden_size
        self.visual_dim = tower_dim if self._clip is None else self._clip.dim
        tokenizer = self._processor.tokenizer
        self._pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def embed(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> RegionEmbeddings:
        """Embed regions; see `Teacher.embed`.

        Raises:
            TeacherError: a class name contains the image token, or a batch does not fit into the device's memory.
        """
        assert len(crops) == len(class_names), f"{len(crops)} crops, {len(class_names)} class names"
        square = (self.spec.crop_size, self.spec.crop_size, 3)
        assert all(crop.shape == square and crop.dtype == np.uint8 for crop in crops), f"crops must be uint8 {square}"
        hidden = np.empty((len(crops), self.hidden_dim), np.float32)
        visual = np.empty((len(crops), self.visual_dim), np.float32)
        prompts = [self._prompts.encode(name) for name in class_names]
        by_length = sorted(range(len(crops)), key=lambda index: len(prompts[index]))
        for start in range(0, len(crops), self._batch):
            picks = by_length[start : start + self._batch]
            try:
                hidden_ND, visual_ND = self._embed_batch([crops[i] for i in picks], [prompts[i] for i in picks])
            except torch.OutOfMemoryError as error:
                raise TeacherError(
                    f"a batch must fit into the device's memory; {len(picks)} regions do not; "
                    f"pass --batch {max(len(picks) // 2, 1)}"
                ) from error
            hidden[picks], visual[picks] = hidden_ND.cpu().numpy(), visual_ND.cpu().numpy()
        return RegionEmbeddings(hidden, visual)

    @torch.inference_mode()
    def _embed_batch(
        self, crops: Sequence[NDArray[np.uint8]], prompts: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:  # (N, Dh) float32, (N, Dv) float32
        """Embed one batch: pictures, then text, then pooling."""
        pixels = pixel_values(self._processor.image_processor, crops).to(self._model.device, self._model.dtype)
        pictures = self._model.model.get_image_features(pixel_values=pixels)
        side: Literal["left", "right"] = "left" if self.spec.mode == "generate" else "right"
        ids_NL, mask_NL = (part.to(pixels.device) for part in pad_rows(prompts, pad_id=self._pad_id, side=side))
        inputs_NLD = self._merge(ids_NL, torch.stack(list(pictures.pooler_output)))
        if self.spec.mode == "generate":
            hidden_ND = self._describe(inputs_NLD, mask_NL)
        else:
            text_NL = text_after_image(ids_NL, mask_NL, self._prompts.image_token_id)
            hidden_ND = masked_mean(self._states(inputs_NLD, mask_NL), text_NL)
        if self._clip is None:
            return hidden_ND, mean_patch(self._model.model.vision_tower, pictures.last_hidden_state)
        return hidden_ND, self._clip.embed(crops)

    def _merge(self, ids_NL: Tensor, pictures_NPD: Tensor) -> Tensor:  # (N, L, D)
        """Token embeddings of the prompts with each picture's tokens in its placeholders."""
        inputs_NLD: Tensor = self._model.get_input_embeddings()(ids_NL)
        placeholders_NL1 = (ids_NL == self._prompts.image_token_id)[..., None]
        return inputs_NLD.masked_scatter(placeholders_NL1, pictures_NPD.to(inputs_NLD.dtype))

    def _states(self, inputs_NLD: Tensor, mask_NL: Tensor) -> Tensor:  # (N, L, D)
        """Hidden states of the spec's layer, one pass, without the language model's head."""
        last = self.spec.layer in (-1, self._model.config.text_config.num_hidden_layers)
        output = self._model.model(
            inputs_embeds=inputs_NLD,
            attention_mask=mask_NL,
            position_ids=positions(mask_NL),
            use_cache=False,
            output_hidden_states=not last,
        )
        states_NLD: Tensor = output.last_hidden_state if last else output.hidden_states[self.spec.layer]
        return states_NLD

    def _describe(self, inputs_NLD: Tensor, mask_NL: Tensor) -> Tensor:  # (N, D) float32
        """Let the model answer, then pool the states of the generated steps in one pass over prompt and answer."""
        answers_NT = self._model.generate(
            inputs_embeds=inputs_NLD,
            attention_mask=mask_NL,
            do_sample=False,
            num_beams=self.spec.num_beams,
            max_new_tokens=self.spec.max_new_tokens,
            pad_token_id=self._pad_id,
        )
        end_ids = self._model.generation_config.eos_token_id
        end_ids = end_ids if isinstance(end_ids, list) else [end_ids]
        lengths_N = answer_lengths(answers_NT, [index for index in end_ids if index is not None])
        steps = answers_NT.shape[1]
        real_NT = torch.arange(steps, device=lengths_N.device)[None] < lengths_N[:, None]
        states_NLD = self._states(
            torch.cat([inputs_NLD, self._model.get_input_embeddings()(answers_NT)], dim=1),
            torch.cat([mask_NL, real_NT.to(mask_NL.dtype)], dim=1),
        )
        return masked_mean(states_NLD, answer_steps(lengths_N, prompt_length=mask_NL.shape[1], steps=steps))
