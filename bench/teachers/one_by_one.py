"""The usual way to describe regions: one at a time, by transformers' own `generate`. What measurements compare with."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from mocha_pipe.teacher_cache.teachers.pooling import answer_lengths, answer_steps, end_tokens, masked_mean
from mocha_pipe.teacher_cache.teachers.vlm.teacher import VlmTeacher


def never_end(teacher: LlavaTeacher | VlmTeacher) -> None:
    """Let every answer of this teacher go on to its length limit, so that a measurement knows how long they are."""
    teacher._model.generation_config.eos_token_id = None


@torch.inference_mode()
def describe_one(
    teacher: LlavaTeacher,
    crop: NDArray[np.uint8],
    class_name: str,
    *,
    num_beams: int = 1,
) -> tuple[list[int], Tensor]:  # (D,) float32
    """Tokens of the answer about one region, end token included, and their pooled states; no `visual`.

    Args:
        teacher: its model, prompt, pooling and length limit.
        crop: as for `Teacher.embed`.
        class_name: as for `Teacher.embed`.
        num_beams: of the search; 1 is greedy.
    """
    model: Any = teacher._model
    [batch] = teacher.prepare([crop], [class_name])
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": torch.ones_like(batch.ids),
        "pixel_values": teacher._scale_pixels(batch.pixels, model.dtype),
    }
    output = model.generate(
        **inputs,
        do_sample=False,
        num_beams=num_beams,
        max_new_tokens=teacher.spec.max_new_tokens,
        pad_token_id=teacher._pad_id,
        return_dict_in_generate=True,
        output_hidden_states=num_beams == 1,
    )
    answer_1T = output.sequences[:, batch.ids.shape[1] :]
    lengths_1 = answer_lengths(answer_1T, end_tokens(model.generation_config))
    answer_1T = answer_1T[:, : int(lengths_1)]
    if num_beams == 1:
        states_TD = torch.stack([states[teacher.spec.layer][0, -1] for states in output.hidden_states])
        steps_1T = answer_steps(lengths_1, prompt_length=1, steps=len(states_TD) - 1)
        return answer_1T[0].tolist(), masked_mean(states_TD[None], steps_1T)[0]
    # Beams change places on their way, so their states are not those of the answer: one more pass over all of it.
    inputs["input_ids"] = torch.cat([batch.ids, answer_1T], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    states_1LD = model(**inputs, output_hidden_states=True, logits_to_keep=1).hidden_states[teacher.spec.layer]
    steps_1L = answer_steps(lengths_1, prompt_length=batch.ids.shape[1], steps=answer_1T.shape[1])
    return answer_1T[0].tolist(), masked_mean(states_1LD, steps_1L)[0]
