"""Greedy descriptions, pooled while they are written: no second pass, and finished rows leave the batch.

Letters: N regions still at it, L tokens of a padded prompt, D width of a hidden state, V size of the vocabulary.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from mocha_pipe.teacher_cache.teachers.pooling import end_tokens, positions, states_of


def greedy_answers(
    model: Any, inputs_NLD: Tensor, mask_NL: Tensor, *, layer: int | None, max_new_tokens: int
) -> tuple[Tensor, list[list[int]]]:  # (N, D) float32, ...
    """Answers of one batch, and the mean of the states that chose their tokens.

    The first and the last step do not count where at least three steps leave something (see `pooling.answer_steps`).

    Args:
        model: a `LlavaForConditionalGeneration`.
        inputs_NLD: embedded prompts with their pictures, padded on the left.
        mask_NL: 1 where a token is real.
        layer: index of the hidden state that is pooled; None is the last one, after the final norm.
        max_new_tokens: length limit of an answer.

    Returns:
        Pooled states of all rows in their order, and the tokens of their answers, end token included.
    """
    device, num_rows = inputs_NLD.device, len(inputs_NLD)
    result = torch.zeros(num_rows, inputs_NLD.shape[2], dtype=torch.float32, device=device)
    answers: list[list[int]] = [[] for _ in range(num_rows)]
    end = torch.tensor(end_tokens(model.generation_config), dtype=torch.int64, device=device)
    cache = DynamicCache(config=model.config.text_config)
    rows = torch.arange(num_rows, device=device)
    position_N1 = positions(mask_NL)[:, -1:]
    remembered = {_cache_argument(model.model): cache}
    states_ND, logits_NV = _step(model, inputs_NLD, mask_NL, positions(mask_NL), remembered, layer)
    sum_ND, middle_ND = states_ND, torch.zeros_like(states_ND)
    for step in range(1, max_new_tokens + 1):
        tokens_N = logits_NV.argmax(dim=1)
        for row, token in zip(rows.tolist(), tokens_N.tolist(), strict=True):
            answers[row].append(token)
        is_done = torch.isin(tokens_N, end) | (step == max_new_tokens)
        done = is_done.nonzero()[:, 0]
        if len(done):
            result[rows[done]] = middle_ND[done] / (step - 2) if step >= 3 else sum_ND[done] / step
            if len(done) == len(rows):
                break
            going = (~is_done).nonzero()[:, 0]
            cache.batch_select_indices(going)
            rows, tokens_N, mask_NL, position_N1 = (x[going] for x in (rows, tokens_N, mask_NL, position_N1))
            states_ND, sum_ND, middle_ND = (x[going] for x in (states_ND, sum_ND, middle_ND))
        if step >= 2:
            middle_ND = middle_ND + states_ND  # a later step follows: this one is not the last
        mask_NL = torch.cat([mask_NL, torch.ones_like(mask_NL[:, :1])], dim=1)
        position_N1 = position_N1 + 1
        inputs = model.get_input_embeddings()(tokens_N[:, None])
        states_ND, logits_NV = _step(model, inputs, mask_NL, position_N1, remembered, layer)
        sum_ND = sum_ND + states_ND
    return result, answers


def _cache_argument(model: Any) -> str:
    """How this version of transformers calls the argument: `past_key_values`, which goes in 5.40, or `cache`."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _step(
    model: Any,
    inputs_NLD: Tensor,
    mask_NL: Tensor,
    position_NL: Tensor,
    remembered: dict[str, DynamicCache],
    layer: int | None,
) -> tuple[Tensor, Tensor]:  # (N, D) float32, (N, V)
    """The pooled layer's state at the last position, and the logits there."""
    output = model.model(
        inputs_embeds=inputs_NLD,
        attention_mask=mask_NL,
        position_ids=position_NL,
        use_cache=True,
        output_hidden_states=layer is not None,
        **remembered,
    )
    return states_of(output, layer)[:, -1].to(torch.float32), model.lm_head(output.last_hidden_state[:, -1])
