"""Answers that are searched for as the paper's reference does: drawn, without repeated n-grams, all beams pooled.

Regions are asked one at a time. In a batch the other regions would decide how many numbers are drawn before a region's
own, and how long its beams go on; alone, an answer follows from its region and the seed.

Letters: L tokens of a prompt, B beams, D width of a hidden state.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessorList, NoRepeatNGramLogitsProcessor

from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.pooling import answer_states


def is_one_at_a_time(spec: TeacherSpec) -> bool:
    """Whether a teacher's answers are searched for here."""
    return spec.sampling_seed is not None or spec.no_repeat_ngram > 0 or spec.all_beams


def searched_states(
    model: Any,
    inputs: Mapping[str, Any],
    ids_1L: Tensor,
    crop: NDArray[np.uint8],
    spec: TeacherSpec,
    *,
    layer: int | None,
    pad_id: int,
) -> Tensor:  # (1, D) float32
    """Let a model answer by transformers' own search, and pool the states of the generated steps.

    The first and the last step do not count where there are at least three.

    Args:
        model: any that generates; what it wraps as `model.model` returns the states.
        inputs: of one region, as `generate` takes them.
        ids_1L: the prompt's tokens.
        crop: the region's pixels, which decide its seed together with the prompt.
        spec: the teacher's.
        layer: index of the hidden state that is pooled; None is the last one, after the final norm.
        pad_id: token that fills up shorter beams.
    """
    processors = LogitsProcessorList()
    if spec.no_repeat_ngram:
        unseen_1L = ids_1L if "inputs_embeds" in inputs else ids_1L[:, :0]
        processors.append(_NoRepeats(spec.no_repeat_ngram, unseen_1L))
    device = model.device
    with (
        answer_states(model, layer) as steps,  # each (B, D)
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        if spec.sampling_seed is not None:
            torch.manual_seed(region_seed(spec.sampling_seed, crop, ids_1L))
        found = model.generate(
            **inputs,
            do_sample=spec.sampling_seed is not None,
            num_beams=spec.num_beams,
            max_new_tokens=spec.max_new_tokens,
            logits_processor=processors,
            pad_token_id=pad_id,
            return_dict_in_generate=True,
            output_hidden_states=layer is not None,
            disable_compile=True,
        )
    if not spec.all_beams:
        beams = found.beam_indices[0].tolist() if spec.num_beams > 1 else [0] * len(steps)
        steps = [step[beam : beam + 1] for step, beam in zip(steps, beams, strict=False) if beam >= 0]
    kept = steps[1:-1] if len(steps) >= 3 else steps
    return torch.cat(kept).mean(dim=0, keepdim=True)


def region_seed(seed: int, crop: NDArray[np.uint8], ids_1L: Tensor) -> int:
    """Seed of one region's answer: of the same pixels and the same prompt it is the same, wherever they stand."""
    state = hashlib.blake2b(f"{seed} ".encode(), digest_size=7)
    state.update(np.ascontiguousarray(crop).tobytes())
    state.update(ids_1L.cpu().numpy().astype("<i8").tobytes())
    return int.from_bytes(state.digest(), "little")


class _NoRepeats(NoRepeatNGramLogitsProcessor):
    """Transformers' ban on repeated n-grams, over the prompt too where `generate` has only its embeddings."""

    def __init__(self, size: int, unseen_1L: Tensor) -> None:
        super().__init__(size)
        self._unseen_1L = unseen_1L

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """As transformers'."""
        prompt_BL = self._unseen_1L.expand(len(input_ids), -1)
        banned: Tensor = super().__call__(torch.cat([prompt_BL, input_ids], dim=1), scores)
        return banned
