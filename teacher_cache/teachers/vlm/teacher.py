"""VlmTeacher: a vision-language model of Hugging Face transformers, unmodified, embeds regions in batches.

The model is asked as its authors meant it: one chat turn with the crop and the question, through the checkpoint's own
processor. All that the processor returns goes to the model and nothing else does: every family has its own way to count
positions and to mark the picture, and what is left out changes embeddings by up to a third without a word.

    crops, class names -> processor -> model: states of the text after the picture -> mean: `hidden`
                                              the picture as the language model receives it -> mean: `visual`

Letters: N regions, L tokens of a padded prompt, T steps of an answer, B all beams, P places of a picture, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings
from mocha_pipe.teacher_cache.teachers.batches import by_length, check_regions, embed_batches
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.pooling import (
    Marks,
    answer_lengths,
    answer_states,
    answer_steps,
    end_tokens,
    masked_mean,
    pooled_layer,
    states_of,
    text_after_image,
)
from mocha_pipe.teacher_cache.teachers.search import is_one_at_a_time, searched_states
from mocha_pipe.teacher_cache.teachers.visual import ClipEncoder
from mocha_pipe.teacher_cache.teachers.vlm.answers import LeavingRows, is_plain_greedy
from mocha_pipe.teacher_cache.teachers.vlm.describe import VlmDescription, describe_vlm
from mocha_pipe.teacher_cache.teachers.vlm.questions import FAULTS, to_device
from mocha_pipe.teacher_cache.teachers.weights import load_weights


@dataclass(frozen=True, slots=True, eq=False)
class AskedBatch:
    """Regions of one forward pass. Tensors are on the device."""

    picks: list[int]
    """Places of these regions among those that were given."""
    crops: Sequence[NDArray[np.uint8]]
    inputs: dict[str, Any]
    """What the processor made of them."""
    text: Marks
    """The text after the picture."""
    picture: Marks


class VlmTeacher:
    """A teacher of any family. See `Teacher` for the contract.

    The other regions of a batch move an embedding only by rounding: at most by 1e-5 of its norm in float32 (tested for
    each family in docs/teachers.md). In `generate` mode rounding can also decide between two words of nearly equal
    score, and then the rest of the answer differs; this is rare in float32.
    """

    spec: TeacherSpec

    def __init__(self, described: VlmDescription, model: Any, *, batch: int, compiled: bool = False) -> None:
        """A teacher of a model that is in memory already; `load` reads one from its checkpoint.

        Args:
            described: all but the weights, as `describe_vlm` finds it.
            model: of the class that it names, frozen, on the device.
            batch: regions per forward pass.
            compiled: compile the layers of the language model.
        """
        self.spec = described.spec
        self._model, self._questions = model, described.questions
        self._batch = 1 if is_one_at_a_time(described.spec) else batch
        self._layer = pooled_layer(self.spec.layer, model.config.get_text_config().num_hidden_layers)
        self._decoder = model.model.get_decoder()
        self._clip = None
        if described.visual is not None:
            self._clip = ClipEncoder(described.visual, device=described.device, dtype=described.dtype)
        if compiled:
            for layer in getattr(self._decoder, "layers", [self._decoder]):
                layer.compile()

    @classmethod
    def load(cls, config: TeacherConfig) -> "VlmTeacher":
        """Load the checkpoint that a configuration names, from its folder or from the hub.

        Raises:
            TeacherError: the checkpoint cannot be found or read, cannot be a teacher, or does not run here.
        """
        described = describe_vlm(config, weights=True)
        model = load_weights(
            described.model_class,
            described.checkpoint,
            dtype=described.dtype,
            device=described.device,
            flag="--teacher",
        )
        teacher = cls(described, model, batch=config.batch, compiled=config.compile)
        teacher._require_running()
        return teacher

    def tokens(self, class_name: str) -> int:
        """Tokens that the language model reads of one region."""
        return self._questions.length(class_name, self.spec.crop_size)

    def embed(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> RegionEmbeddings:
        """Embed regions; see `Teacher.embed`.

        Raises:
            TeacherError: a class name contains a special token, or a batch does not fit into the device's memory.
        """
        return embed_batches(self.prepare(crops, class_names), self.forward, len(crops), self.spec)

    def prepare(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> Iterator[AskedBatch]:
        """Batches for `forward`, each of regions whose prompts have about the same length.

        Raises:
            TeacherError: a class name contains a special token.
        """
        check_regions(crops, class_names, self.spec)
        # An answer goes on at the end of its prompt.
        side: Any = "left" if self.spec.mode == "generate" else "right"
        for picks in by_length([self.tokens(name) for name in class_names], self._batch):
            yield self._ask(picks, [crops[i] for i in picks], [class_names[i] for i in picks], side)

    def _ask(
        self, picks: list[int], crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str], side: Any = "right"
    ) -> AskedBatch:
        inputs, device = self._questions.ask(crops, class_names, side=side), self._model.device
        ids_NL, image_token_id = inputs["input_ids"], self._questions.image_token_id
        text = Marks.of(text_after_image(ids_NL, inputs["attention_mask"], image_token_id)).to(device)
        picture = Marks.of(ids_NL == image_token_id).to(device)
        return AskedBatch(picks, crops, to_device(inputs, device, self._model.dtype), text, picture)

    @torch.inference_mode()
    def forward(self, batch: AskedBatch) -> tuple[Tensor, Tensor]:  # (N, Dh) float32, (N, Dv) float32
        """`hidden` and `visual` of one batch."""
        answers = self.spec.mode == "generate"
        with self._seen_pictures(batch) as pictures:
            hidden_ND = self._describe(batch) if answers else self._read(batch)
        return hidden_ND, pictures[0] if self._clip is None else self._clip.embed(batch.crops)

    @torch.inference_mode()
    def _require_running(self) -> None:
        """One region, so that a model which does not work here is refused in words before the work begins."""
        blank = np.zeros((self.spec.crop_size, self.spec.crop_size, 3), np.uint8)
        batch = self._ask([0], [blank], ["object"])
        try:
            with self._seen_pictures(batch):
                self._read(batch)
        except FAULTS as error:
            raise TeacherError(
                f"a teacher must embed a picture; '{self.spec.model}' of type '{self._model.config.model_type}' fails "
                f"({first_line(error)}); name another with --teacher"
            ) from error

    def _read(self, batch: AskedBatch) -> Tensor:  # (N, D) float32
        """Mean of the states of the text after the picture: one pass, without the language model's head."""
        layer = self._layer
        output = self._model.model(**batch.inputs, use_cache=False, output_hidden_states=layer is not None)
        return batch.text.mean(states_of(output, layer))

    def _describe(self, batch: AskedBatch) -> Tensor:  # (N, D) float32
        """Let the model answer by transformers' own search, and pool the states that chose the answer's tokens.

        The first and the last step do not count where there are at least three.
        """
        inputs, layer, has_beams = batch.inputs, self._layer, self.spec.num_beams > 1
        if is_one_at_a_time(self.spec):
            return searched_states(
                self._model, inputs, inputs["input_ids"], batch.crops[0], self.spec, layer=layer,
                pad_id=self._questions.pad_id,
            )  # fmt: skip
        # Beams change places, and what changes scores (a penalty) may remember how many rows there were.
        leaving = None if has_beams or not is_plain_greedy(self._model.generation_config) else LeavingRows()

        with answer_states(self._model, layer) as steps:
            found = self._model.generate(
                **inputs,
                do_sample=False,
                num_beams=self.spec.num_beams,
                max_new_tokens=self.spec.max_new_tokens,
                pad_token_id=self._questions.pad_id,
                return_dict_in_generate=leaving is None,
                output_hidden_states=layer is not None,
                disable_compile=True,
                custom_generate=leaving,
            )
        sequences = found if leaving else found.sequences
        answers_NT = sequences[:, inputs["input_ids"].shape[1] :]
        lengths_N, length = answer_lengths(answers_NT, end_tokens(self._model.generation_config)), answers_NT.shape[1]
        if has_beams:
            beams_NT = found.beam_indices[:, :length].clamp(min=0)
            columns_NT = torch.arange(length, device=beams_NT.device)[None].expand_as(beams_NT)
            states_NTD = torch.stack(steps)[columns_NT, beams_NT]
        else:
            states_NTD = steps[0].new_zeros(len(answers_NT), length, steps[0].shape[1])
            for step, states in enumerate(steps[:length]):
                states_NTD[leaving.rows[step] if leaving else slice(None), step] = states
        # The states are those of the steps alone, as if the prompt were its last token.
        return masked_mean(states_NTD, answer_steps(lengths_N, prompt_length=1, steps=length)[:, :length])

    @contextmanager
    def _seen_pictures(self, batch: AskedBatch) -> Iterator[list[Tensor]]:
        """A list that gets, within the block, the mean of what the language model receives of each picture: (N, D).

        That is one pass of the vision tower for both embeddings, and exists in every family, whatever its tower and
        its projector return.
        """
        pictures: list[Tensor] = []

        def keep(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
            if pictures:
                return  # later steps of an answer see no picture
            # Mllama's language model reads the picture through cross-attention: at its token stands nothing of it.
            if (states := named.get("cross_attention_states")) is not None:
                tiles_NM = batch.inputs["aspect_ratio_mask"].flatten(1)  # 1 where the picture fills a tile
                states_NPD = states.unflatten(0, (-1, tiles_NM.shape[1])).flatten(1, 2)[:: self.spec.num_beams]
                pictures.append(masked_mean(states_NPD, tiles_NM.repeat_interleave(states.shape[1], dim=1) == 1))
            else:
                pictures.append(batch.picture.mean(named["inputs_embeds"][:: self.spec.num_beams]))

        hook = self._decoder.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            yield pictures
        finally:
            hook.remove()
