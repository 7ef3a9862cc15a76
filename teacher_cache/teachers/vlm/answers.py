"""Greedy answers of a batch by any model of transformers; rows whose answer has ended leave the batch.

The search is that of transformers (`_sample` with `do_sample=False`): its own inputs for each step and its own ends.
Only what belongs to rows that have ended is dropped. It is for plain greedy searches (`is_plain_greedy`): of the
processors of scores that a checkpoint's settings may ask for, some remember how many rows there were.

Letters: N regions, L tokens of a padded prompt, T steps of the longest answer.
"""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig

_NEUTRAL = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
}
"""Settings that change a greedy search unless they have this value or none."""


def is_plain_greedy(config: GenerationConfig) -> bool:
    """Whether a checkpoint's generation settings leave a greedy search alone: the next token is the likeliest one."""
    return all(getattr(config, name, None) in (None, neutral) for name, neutral in _NEUTRAL.items())


class LeavingRows:
    """A search for `generate(custom_generate=...)`, for one call of it."""

    def __init__(self) -> None:
        """Nothing was searched yet."""
        self.rows: list[Tensor] = []
        """Rows that were still at it, step by step."""

    def __call__(
        self, model: Any, input_ids: Tensor, stopping_criteria: Any, generation_config: Any, **state: Any
    ) -> Tensor:  # (N, L + T)
        """Prompts and their answers, padded on the right; arguments are those of transformers' own searches."""
        for name in ("logits_processor", "synced_gpus"):
            state.pop(name, None)
        prompts_NL, rows = input_ids, torch.arange(len(input_ids), device=input_ids.device)
        options = {"output_hidden_states": True} if generation_config.output_hidden_states else {}
        chosen: list[Tensor] = []
        while True:
            is_first = not chosen
            inputs = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=None if is_first else 1, is_first_iteration=is_first, **state
            )
            output = model(**{**inputs, **options}, return_dict=True)  # by version both may have it
            state = model._update_model_kwargs_for_generation(output, state, is_encoder_decoder=False)
            self.rows.append(rows)
            chosen.append(output.logits[:, -1].argmax(dim=1))
            input_ids = torch.cat([input_ids, chosen[-1][:, None]], dim=1)
            has_ended = stopping_criteria(input_ids, None)
            going = (~has_ended).nonzero()[:, 0]
            if len(going) == 0:
                break
            if len(going) < len(rows):
                rows, input_ids, state = rows[going], input_ids[going], _of_rows(model, state, going, len(rows))
        answers_NT = prompts_NL.new_full((len(prompts_NL), len(chosen)), int(generation_config.pad_token_id))
        for step, tokens in enumerate(chosen):
            answers_NT[self.rows[step], step] = tokens
        return torch.cat([prompts_NL, answers_NT], dim=1)


def _of_rows(model: Any, state: dict[str, Any], going: Tensor, count: int) -> dict[str, Any]:
    """What is kept from step to step, of some of the rows.

    Args:
        model: whose step it is.
        state: by the name of the argument of its `forward`.
        going: rows that stay.
        count: rows that there were.
    """
    kept = {}
    for name, value in state.items():
        if isinstance(value, Cache):
            # Every kind of layer has this, for beams; it may as well take fewer rows.
            value.reorder_cache(cast("torch.LongTensor", going))
        elif name == "position_ids" and value is not None:
            value = value.index_select(value.ndim - 2, going)  # in some families (3, N, L)
        elif isinstance(value, Tensor) and value.ndim and len(value) == count:
            value = value[going]
        kept[name] = value
    if getattr(model.model, "rope_deltas", None) is not None:  # Qwen-VL and GLM-V: how far positions lag behind tokens
        model.model.rope_deltas = model.model.rope_deltas[going]
    return kept
