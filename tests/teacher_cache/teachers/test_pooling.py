"""Pooling against index arithmetic in plain Python."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocha_pipe.teacher_cache.teachers.pooling import (
    Marks,
    answer_lengths,
    answer_steps,
    masked_mean,
    pad_rows,
    positions,
    text_after_image,
)

IMAGE, PAD, END = 7, 0, 2

prompts = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 6)).map(
        lambda parts: [3] * parts[0] + [IMAGE] * parts[1] + [4] * parts[2]
    ),
    min_size=1,
    max_size=4,
)


def test_rows_are_padded_on_either_side() -> None:
    ids, mask = pad_rows([[5, 6, 7], [8]], pad_id=PAD, side="left")
    assert ids.tolist() == [[5, 6, 7], [PAD, PAD, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    ids, mask = pad_rows([[5, 6, 7], [8]], pad_id=PAD, side="right")
    assert ids.tolist() == [[5, 6, 7], [8, PAD, PAD]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("side", ["left", "right"])
@given(rows=prompts)
def test_padding_moves_neither_positions_nor_text(side: str, rows: list[list[int]]) -> None:
    ids, mask = pad_rows(rows, pad_id=PAD, side=side)
    text = text_after_image(ids, mask, IMAGE)
    place = positions(mask)
    for index, row in enumerate(rows):
        real = mask[index] == 1
        assert place[index][real].tolist() == list(range(len(row)))
        last_image = max(column for column, token in enumerate(row) if token == IMAGE)
        assert place[index][text[index]].tolist() == list(range(last_image + 1, len(row)))


def test_padding_that_looks_like_text_is_not_pooled() -> None:
    ids, mask = pad_rows([[IMAGE, 4], [IMAGE, 4, 4]], pad_id=4, side="right")
    assert text_after_image(ids, mask, IMAGE).tolist() == [[False, True, False], [False, True, True]]


answers = st.lists(st.lists(st.sampled_from([3, 4, END, 9]), min_size=6, max_size=6), min_size=1, max_size=4)


@given(rows=answers, prompt_length=st.integers(1, 5))
def test_steps_of_an_answer_follow_the_definition(rows: list[list[int]], prompt_length: int) -> None:
    lengths = answer_lengths(torch.tensor(rows), [END, 9])
    marked = answer_steps(lengths, prompt_length=prompt_length, steps=6)
    assert marked.shape == (len(rows), prompt_length + 6)
    for row, length, marks in zip(rows, lengths.tolist(), marks_of(marked), strict=True):
        ends = [step for step, token in enumerate(row) if token in (END, 9)]
        assert length == (ends[0] + 1 if ends else 6)
        steps = list(range(length))
        kept = steps[1:-1] if length >= 3 else steps
        assert marks == [prompt_length - 1 + step for step in kept]


def marks_of(mask: torch.Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in mask]


def test_a_model_without_end_token_answers_to_the_limit() -> None:
    assert answer_lengths(torch.tensor([[3, 4, 5]]), []).tolist() == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mean_is_taken_in_float32(dtype: torch.dtype) -> None:
    states = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    found = masked_mean(states, mask)
    assert found.dtype == torch.float32
    for row, state, marks in zip(found, states, mask, strict=True):
        torch.testing.assert_close(row, torch.stack([state[i].float() for i in marks.nonzero().flatten()]).mean(0))


def test_states_outside_the_mask_do_not_count() -> None:
    states = torch.ones(1, 3, 2)
    states[0, 0] = 1e30
    assert masked_mean(states, torch.tensor([[False, True, True]])).tolist() == [[1, 1]]


def test_a_mean_does_not_look_at_the_states_device() -> None:
    """On the device `meta` there is nothing to look at, as there is nothing yet on a GPU that is still computing."""
    marks = Marks.of(torch.tensor([[False, True], [True, True]])).to(torch.device("meta"))
    assert marks.mean(torch.empty(2, 2, 3, device="meta")).shape == (2, 3)


def test_a_row_without_marks_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="without marked tokens"):
        masked_mean(torch.ones(1, 2, 2), torch.zeros(1, 2, dtype=torch.bool))
