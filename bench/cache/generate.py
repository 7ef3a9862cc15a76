"""Generate mode in batches, as a build runs it, against one box at a time with transformers' own `generate`."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.figures import Figure
from bench.inputs import BenchInputs, bench_inputs, shipped_teacher
from bench.teachers.one_by_one import describe_one, never_end
from bench.timing import seconds
from mocha_pipe.teacher_cache.building.feed import CropFeed
from mocha_pipe.teacher_cache.teachers.llava import teacher as llava
from mocha_pipe.teacher_cache.teachers.llava.greedy import greedy_answers
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

ROUNDS = 3
BATCH = 32
MAX_NEW_TOKENS = 32
"""Length of all answers: the miniature would stop after 4 to 11 tokens, a LLaVA of 7 billion weights says far more."""
Crops = list[NDArray[np.uint8]]


def measure(
    root: Path, *, rounds: int = ROUNDS, batches: int = 4, inputs: BenchInputs | None = None
) -> dict[str, Figure]:
    """The same regions, the same tokens: first compared, then timed."""
    inputs = inputs or bench_inputs(root)
    teacher = shipped_teacher(mode="generate", batch=BATCH, max_new_tokens=MAX_NEW_TOKENS)
    crops, names = _regions(inputs, teacher, BATCH * batches)
    own = _same_answers(teacher, crops, names)
    own_ratio = _ratio(teacher, crops, names, 1)
    never_end(teacher)
    _same_answers(teacher, crops, names)
    return {
        "generate_batched_vs_loop": Figure(
            value=_ratio(teacher, crops, names, rounds), target=8.0, better="higher",
            note=f"regions/s in batches of {BATCH} / one at a time by transformers' generate; {len(crops)} regions, "
            f"equal answers of {MAX_NEW_TOKENS} tokens, miniature teacher; with its own answers of "
            f"{min(map(len, own))} to {max(map(len, own))} tokens {own_ratio:.1f}",
        )
    }  # fmt: skip


def _ratio(teacher: LlavaTeacher, crops: Crops, names: list[str], rounds: int) -> float:
    few = slice(None, None, 8)  # the loop is slow
    ratios = []
    for _ in range(rounds):
        batched = seconds(lambda: teacher.embed(crops, names)) / len(crops)
        loop = seconds(lambda: _one_by_one(teacher, crops[few], names[few])) / len(crops[few])
        ratios.append(loop / batched)
    return statistics.median(ratios)


def _regions(inputs: BenchInputs, teacher: LlavaTeacher, number: int) -> tuple[Crops, list[str]]:
    """Crops and class names of the first regions."""
    table = inputs.table
    with CropFeed(inputs.source, table, teacher.spec) as feed:
        [window] = feed.windows(np.arange(min(number, len(table))), number)
    return [crop.required() for crop in window], [table.class_names[table.class_ids[crop.row]] for crop in window]


def _same_answers(teacher: LlavaTeacher, crops: Crops, names: list[str]) -> list[list[int]]:
    """The answers. They are checked to be the loop's, token by token, and so are their pooled states."""
    hidden = teacher.embed(crops, names).hidden
    answers = _answers(teacher, crops, names)
    compared = range(0, len(crops), 4)
    alone = _one_by_one(teacher, [crops[index] for index in compared], [names[index] for index in compared])
    for index, (answer, pooled) in zip(compared, alone, strict=True):
        assert answer == answers[index], f"region {index}: {answers[index]} in a batch, {answer} alone"
        difference = np.linalg.norm(pooled.numpy() - hidden[index])
        assert difference <= 1e-4 * np.linalg.norm(hidden[index]), f"region {index}: its states differ by {difference}"
    assert min(map(len, answers)) > 3, "answers that end at once prove nothing"
    return answers


def _one_by_one(teacher: LlavaTeacher, crops: Crops, names: list[str]) -> list[tuple[list[int], Tensor]]:
    return [describe_one(teacher, crop, name) for crop, name in zip(crops, names, strict=True)]


def _answers(teacher: LlavaTeacher, crops: Crops, names: list[str]) -> list[list[int]]:
    """What the teacher says in batches. It keeps only the pooled states, so the answers are caught on their way."""
    answers: list[list[int]] = [[] for _ in crops]
    for batch in teacher.prepare(crops, names):
        with _overheard() as said:
            teacher.forward(batch)
        for place, answer in zip(batch.picks, said, strict=True):
            answers[place] = answer
    return answers


@contextmanager
def _overheard() -> Iterator[list[list[int]]]:
    """A list that collects the answers of every batch that is described inside the block."""
    said: list[list[int]] = []

    def overhear(*arguments: Any, **options: Any) -> tuple[Tensor, list[list[int]]]:
        states_ND, answers = greedy_answers(*arguments, **options)
        said.extend(answers)
        return states_ND, answers

    with patch.object(llava, "greedy_answers", overhear):
        yield said
