"""Which hidden states count for a region, and their mean.

Letters: N regions, L tokens of a padded prompt, T steps of a padded answer, D width of a hidden state.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mocha_pipe.teacher_cache.teachers.batches import send

if TYPE_CHECKING:
    from transformers import GenerationConfig

POOLING_NAMES = {
    "prompt": "hidden: mean over the text after the image",
    "generate": "hidden: mean over the generated steps, first and last left out",
    "beams": "hidden: mean over the generated steps of all beams, first and last step left out",
    "tower": "visual: mean over the tower's last patch states after post_layernorm",
    "picture": "visual: mean over the picture's tokens as the language model receives them",
    "clip": "visual: projected image embedding, unit norm",
}
"""What the spec says about pooling, by mode and by visual encoder."""


def pooled_layer(layer: int, layers: int) -> int | None:
    """Index of the hidden state that is pooled, of a model with so many layers; None for the last, always returned."""
    return None if layer in (-1, layers) else layer


def states_of(output: Any, layer: int | None) -> Tensor:  # (N, L, D)
    """Hidden states of a layer in what a model returned; None is the last one, after the final norm."""
    states: Tensor = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return states


@contextmanager
def answer_states(model: Any, layer: int | None) -> Iterator[list[Tensor]]:
    """A list that gets, within the block, the states of each step of `generate` that choose the next token.

    Args:
        model: any that generates; what it wraps as `model.model` returns the states.
        layer: as for `states_of`.
    """
    steps: list[Tensor] = []  # each (N, D) float32, one row for each beam

    def keep(_module: Any, _arguments: Any, output: Any) -> None:
        steps.append(states_of(output, layer)[:, -1].to(torch.float32))

    hook = model.model.register_forward_hook(keep)
    try:
        yield steps
    finally:
        hook.remove()


def pad_rows(
    rows: Sequence[Sequence[int]], *, pad_id: int, side: Literal["left", "right"]
) -> tuple[Tensor, Tensor]:  # (N, L) int64, (N, L) int64
    """Token ids as one rectangle, and the attention mask that is 1 where a token is real."""
    length = max(map(len, rows))
    ids_NL = np.full((len(rows), length), pad_id, np.int64)
    mask_NL = np.zeros((len(rows), length), np.int64)
    for index, row in enumerate(rows):
        columns = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids_NL[index, columns] = row
        mask_NL[index, columns] = 1
    return torch.from_numpy(ids_NL), torch.from_numpy(mask_NL)


def positions(mask_NL: Tensor) -> Tensor:  # (N, L) -> (N, L)
    """Position of every real token in its own row: padding on the left counts for nothing."""
    return (mask_NL.cumsum(dim=1) - 1).clamp(min=0)


def text_after_image(ids_NL: Tensor, mask_NL: Tensor, image_token_id: int) -> Tensor:  # (N, L) bool
    """True at the real tokens that follow the last image token of their row."""
    images_from_here_on = (ids_NL == image_token_id).flip(1).cumsum(dim=1).flip(1)
    return (images_from_here_on == 0) & (mask_NL == 1)


def end_tokens(config: "GenerationConfig") -> list[int]:
    """Ids that end an answer."""
    ids = config.eos_token_id
    return [int(index) for index in (ids if isinstance(ids, list) else [ids]) if index is not None]


def answer_lengths(answers_NT: Tensor, end_ids: Sequence[int]) -> Tensor:  # (N,)
    """Tokens of each answer: up to its first end token, which counts, or all where there is none."""
    steps = answers_NT.shape[1]
    ends = torch.isin(answers_NT, torch.tensor(list(end_ids), dtype=answers_NT.dtype, device=answers_NT.device))
    before_end = (ends.cumsum(dim=1) == 0).sum(dim=1)
    return (before_end + 1).clamp(max=steps)


def answer_steps(lengths_N: Tensor, *, prompt_length: int, steps: int) -> Tensor:  # (N, prompt_length + steps) bool
    """True where the hidden state of a generated step stands, in left-padded prompts followed by their answers.

    Step t is the pass that chose token t of the answer. Its hidden state stands on the token before: that of step 0 on
    the last token of the prompt. The last step chose the end token. An answer of three steps or more is pooled without
    its first and its last step, a shorter one whole.
    """
    step = torch.arange(-(prompt_length - 1), steps + 1, device=lengths_N.device)[None]
    trimmed = lengths_N[:, None] >= 3
    first = torch.where(trimmed, 1, 0)
    last = torch.where(trimmed, lengths_N[:, None] - 2, lengths_N[:, None] - 1)
    return (step >= first) & (step <= last)


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Which states count in the mean of each row. Every row has some.

    They are made of a mask on the CPU and then sent: who looks at a mask on a GPU waits for all that the GPU has to do.
    """

    start: int
    """First column that counts in any row: most columns are the picture's, and need no conversion."""
    weights: Tensor  # (N, T, 1) float32
    """1 where a state counts, from that column on."""
    counts: Tensor  # (N, 1)

    @classmethod
    def of(cls, mask_NL: Tensor) -> "Marks":
        """Marks at the places where a mask is true, on its device."""
        counts_N1 = mask_NL.sum(dim=1, keepdim=True)
        assert bool((counts_N1 > 0).all()), "a row without marked tokens has no mean"
        start = int(mask_NL.any(dim=0).int().argmax())
        return cls(start, mask_NL[:, start:, None].to(torch.float32), counts_N1)

    def to(self, device: torch.device) -> "Marks":
        """The same on a device."""
        return Marks(self.start, send(self.weights, device), send(self.counts, device))

    def mean(self, states_NLD: Tensor) -> Tensor:  # (N, D) float32
        """Mean of the states that count, taken in float32 whatever their type."""
        return (states_NLD[:, self.start :].to(torch.float32) * self.weights).sum(dim=1) / self.counts


def masked_mean(states_NLD: Tensor, mask_NL: Tensor) -> Tensor:  # (N, D) float32
    """Mean of the states of each row where a mask on the same device is true; each row has such a place."""
    return Marks.of(mask_NL).mean(states_NLD)
