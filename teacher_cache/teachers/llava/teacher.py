"""LlavaTeacher: LLaVA-1.5, the teacher of the paper, by a shorter way than `vlm/teacher.py` to the same embeddings.

Crops travel to the device as bytes and are rescaled there, a prompt is tokenized once for each class name, and rows
whose answer is complete leave the batch. Its caches are older than the general teacher: this way keeps their very bits
(that of the general one differs by rounding, tested), and `visual` is the state of CLIP's tower before the projector.

The vision tower sees every picture once; its states serve both the language model and `visual`. The language model's
head runs only where a description is generated, and there only at the last position.

Letters: N regions, L tokens of a padded prompt, T tokens that may be pooled, D width of a hidden state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings
from mocha_pipe.teacher_cache.teachers.batches import by_length, check_regions, embed_batches, send
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.describe import TeacherDescription, describe
from mocha_pipe.teacher_cache.teachers.llava.greedy import greedy_answers
from mocha_pipe.teacher_cache.teachers.pixels import PixelScaler
from mocha_pipe.teacher_cache.teachers.pooling import (
    answer_lengths,
    answer_steps,
    end_tokens,
    masked_mean,
    pad_rows,
    pooled_layer,
    positions,
    states_of,
    text_after_image,
)
from mocha_pipe.teacher_cache.teachers.search import is_one_at_a_time, searched_states
from mocha_pipe.teacher_cache.teachers.visual import ClipEncoder, mean_patch
from mocha_pipe.teacher_cache.teachers.vlm.answers import is_plain_greedy
from mocha_pipe.teacher_cache.teachers.weights import load_weights


@dataclass(frozen=True, slots=True, eq=False)
class PreparedBatch:
    """Regions of one forward pass. Tensors are on the device."""

    picks: list[int]
    """Places of these regions among those that were given."""
    crops: Sequence[NDArray[np.uint8]]
    pixels: Tensor  # (N, S, S, 3) uint8
    ids: Tensor  # (N, L)
    mask: Tensor | None  # (N, L)
    """1 where a token is real; None where all are."""
    text_start: int
    """First column that holds text after a picture in any row; states before this column are not pooled."""
    weights: Tensor  # (N, T)
    """Weight of each state from column `text_start` on in the mean of its row; 0 where a state does not count."""


class LlavaTeacher:
    """The teacher of the paper. See `Teacher` for the contract.

    The other regions of a batch move an embedding only by rounding: at most by 1e-4 of its norm in float32 and by 2e-2
    in bfloat16 (both tested). In `generate` mode rounding can also decide between two words of nearly equal score, and
    then the rest of the answer differs; this is rare in float32.
    """

    spec: TeacherSpec

    def __init__(self, described: TeacherDescription, model: Any, *, batch: int, compiled: bool = False) -> None:
        """A teacher of a model that is in memory already; `load` reads one from its checkpoint.

        Args:
            described: all but the weights, as `describe` finds it.
            model: a `LlavaForConditionalGeneration`, frozen, on the device.
            batch: regions per forward pass.
            compiled: compile the tower and the language model.
        """
        self.spec = described.spec
        self._model = model
        self._layer = pooled_layer(self.spec.layer, model.config.text_config.num_hidden_layers)
        self._batch = 1 if is_one_at_a_time(self.spec) else batch
        self._prompts = described.prompts
        self._scale_pixels = PixelScaler(described.processor.image_processor)
        self._pad_id: int = described.processor.tokenizer.pad_token_id or 0
        self._clip = None
        if described.visual is not None:
            self._clip = ClipEncoder(described.visual, device=described.device, dtype=described.dtype)
        if compiled:
            model.model.vision_tower.compile()
            model.model.language_model.compile()

    @classmethod
    def load(cls, config: TeacherConfig) -> "LlavaTeacher":
        """Load the checkpoint that a configuration names, from its folder or from the hub.

        Raises:
            TeacherError: the checkpoint cannot be found or read, is not LLaVA, or does not run here as configured.
        """
        described = describe(config, weights=True)
        model = load_weights(
            LlavaForConditionalGeneration,
            described.checkpoint,
            dtype=described.dtype,
            device=described.device,
            flag="--teacher",
        )
        return cls(described, model, batch=config.batch, compiled=config.compile)

    def tokens(self, class_name: str) -> int:
        """Tokens that the language model reads of one region."""
        return len(self._prompts.encode(class_name))

    def embed(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> RegionEmbeddings:
        """Embed regions; see `Teacher.embed`.

        Raises:
            TeacherError: a class name contains the image token, or a batch does not fit into the device's memory.
        """
        return embed_batches(self.prepare(crops, class_names), self.forward, len(crops), self.spec)

    def prepare(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> list[PreparedBatch]:
        """Batches for `forward`, each of regions whose prompts have about the same length.

        Raises:
            TeacherError: a class name contains the image token.
        """
        check_regions(crops, class_names, self.spec)
        prompts = [self._prompts.encode(name) for name in class_names]
        return [
            self._prepare_batch(picks, [crops[i] for i in picks], [prompts[i] for i in picks])
            for picks in by_length([len(prompt) for prompt in prompts], self._batch)
        ]

    def _prepare_batch(
        self, picks: list[int], crops: Sequence[NDArray[np.uint8]], prompts: Sequence[Sequence[int]]
    ) -> PreparedBatch:
        side: Literal["left", "right"] = "left" if self.spec.mode == "generate" else "right"
        ids_NL, mask_NL = pad_rows(prompts, pad_id=self._pad_id, side=side)
        text_NL = text_after_image(ids_NL, mask_NL, self._prompts.image_token_id)
        start = int(text_NL.any(dim=0).int().argmax())
        weights_NT = text_NL[:, start:].to(torch.float32)
        device = self._model.device
        return PreparedBatch(
            picks=picks,
            crops=crops,
            pixels=send(torch.from_numpy(np.stack(crops)), device),
            ids=send(ids_NL, device),
            # Attention has a faster path that takes no mask.
            mask=None if bool(mask_NL.all()) else send(mask_NL, device),
            text_start=start,
            weights=send(weights_NT / weights_NT.sum(dim=1, keepdim=True), device),
        )

    @torch.inference_mode()
    def forward(self, batch: PreparedBatch) -> tuple[Tensor, Tensor]:  # (N, Dh) float32, (N, Dv) float32
        """`hidden` and `visual` of one batch."""
        pixels = self._scale_pixels(batch.pixels, self._model.dtype)
        pictures = self._model.model.get_image_features(pixel_values=pixels)
        inputs_NLD = self._merge(batch.ids, torch.stack(list(pictures.pooler_output)))
        if self.spec.mode == "generate":
            mask_NL = torch.ones_like(batch.ids) if batch.mask is None else batch.mask
            hidden_ND = self._describe(batch, inputs_NLD, mask_NL)
        else:
            states_NTD = self._states(inputs_NLD, batch.mask)[:, batch.text_start :].to(torch.float32)
            hidden_ND = torch.einsum("nt,ntd->nd", batch.weights, states_NTD)
        if self._clip is None:
            return hidden_ND, mean_patch(self._model.model.vision_tower, pictures.last_hidden_state)
        return hidden_ND, self._clip.embed(batch.crops)

    def _merge(self, ids_NL: Tensor, pictures_NPD: Tensor) -> Tensor:  # (N, L, D)
        """Token embeddings of the prompts with each picture's tokens in its placeholders."""
        inputs_NLD: Tensor = self._model.get_input_embeddings()(ids_NL)
        placeholders_NL1 = (ids_NL == self._prompts.image_token_id)[..., None]
        return inputs_NLD.masked_scatter(placeholders_NL1, pictures_NPD.to(inputs_NLD.dtype))

    def _states(self, inputs_NLD: Tensor, mask_NL: Tensor | None) -> Tensor:  # (N, L, D)
        """Hidden states of the spec's layer, one pass, without the language model's head."""
        layer = self._layer
        output = self._model.model(
            inputs_embeds=inputs_NLD,
            attention_mask=mask_NL,
            position_ids=None if mask_NL is None else positions(mask_NL),
            use_cache=False,
            output_hidden_states=layer is not None,
        )
        return states_of(output, layer)

    def _describe(self, batch: PreparedBatch, inputs_NLD: Tensor, mask_NL: Tensor) -> Tensor:  # (N, D) float32
        """Let the model answer, and pool the states of the generated steps."""
        if is_one_at_a_time(self.spec):
            return searched_states(
                self._model, {"inputs_embeds": inputs_NLD, "attention_mask": mask_NL}, batch.ids, batch.crops[0],
                self.spec, layer=self._layer, pad_id=self._pad_id,
            )  # fmt: skip
        if self.spec.num_beams == 1 and is_plain_greedy(self._model.generation_config):
            limit = self.spec.max_new_tokens
            return greedy_answers(self._model, inputs_NLD, mask_NL, layer=self._layer, max_new_tokens=limit)[0]
        return self._describe_by_search(inputs_NLD, mask_NL)

    def _describe_by_search(self, inputs_NLD: Tensor, mask_NL: Tensor) -> Tensor:  # (N, D) float32
        """Any search that transformers knows, then one more pass over prompt and answer for the states."""
        answers_NT = self._model.generate(
            inputs_embeds=inputs_NLD,
            attention_mask=mask_NL,
            do_sample=False,
            num_beams=self.spec.num_beams,
            max_new_tokens=self.spec.max_new_tokens,
            pad_token_id=self._pad_id,
        )
        lengths_N = answer_lengths(answers_NT, end_tokens(self._model.generation_config))
        steps = answers_NT.shape[1]
        real_NT = torch.arange(steps, device=lengths_N.device)[None] < lengths_N[:, None]
        states_NLD = self._states(
            torch.cat([inputs_NLD, self._model.get_input_embeddings()(answers_NT)], dim=1),
            torch.cat([mask_NL, real_NT.to(mask_NL.dtype)], dim=1),
        )
        return masked_mean(states_NLD, answer_steps(lengths_N, prompt_length=mask_NL.shape[1], steps=steps))
