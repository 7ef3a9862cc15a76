"""A benchmark's coarse classes, found by name among those of a detector or data set."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.names import longest_ending, one_spelling
from mocha_pipe.data.types import PersonalBenchmark


def with_coarse_classes(
    benchmark: PersonalBenchmark, class_names: Sequence[str], who: str, remedy: str
) -> PersonalBenchmark:
    """The benchmark with the classes of a detector or data set as its coarse classes, found by name.

    An object whose class nobody said has the longest class name that ends its own.

    Raises:
        DatasetError: the benchmark has a coarse class that is not among them.
    """
    ids = {one_spelling(name).casefold(): number for number, name in enumerate(class_names)}
    found = [benchmark.coarse_names[coarse] for coarse in benchmark.coarse_of]
    guessed = sorted(benchmark.by_name)
    for personal in guessed:
        found[personal] = longest_ending(benchmark.source.class_names[personal], class_names) or found[personal]
    only_guessed = set(benchmark.coarse_of[guessed].tolist()) - set(np.delete(benchmark.coarse_of, guessed).tolist())
    said = [name for coarse, name in enumerate(benchmark.coarse_names) if coarse not in only_guessed]
    wanted = dict.fromkeys([*said, *(found[personal] for personal in guessed)])
    if lacking := [name for name in wanted if one_spelling(name).casefold() not in ids]:
        raise DatasetError(
            f"{who} must know all coarse classes of the benchmark {benchmark.name}, but lacks {_listed(lacking)}; it "
            f"knows {_listed(class_names)}: {remedy}"
        )
    coarse_of = np.array([ids[one_spelling(name).casefold()] for name in found], np.int64)
    return replace(benchmark, coarse_names=tuple(class_names), coarse_of=coarse_of, by_name=frozenset())


def _listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:4]) + (f" ... ({len(names)})" if len(names) > 4 else "")
