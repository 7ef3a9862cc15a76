"""A benchmark's coarse classes, found by name among those of a detector or data set."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.types import PersonalBenchmark


def with_coarse_classes(
    benchmark: PersonalBenchmark, class_names: Sequence[str], who: str, remedy: str
) -> PersonalBenchmark:
    """The benchmark with the classes of a detector or data set as its coarse classes, found by name.

    Raises:
        DatasetError: the benchmark has a coarse class that is not among them.
    """
    ids = {name.casefold(): number for number, name in enumerate(class_names)}
    if lacking := [name for name in benchmark.coarse_names if name.casefold() not in ids]:
        raise DatasetError(
            f"{who} must know all coarse classes of the benchmark {benchmark.name}, but lacks {_listed(lacking)}; it "
            f"knows {_listed(class_names)}: {remedy}"
        )
    ids_of_coarse = np.array([ids[name.casefold()] for name in benchmark.coarse_names], np.int64)
    return replace(benchmark, coarse_names=tuple(class_names), coarse_of=ids_of_coarse[benchmark.coarse_of])


def _listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:4]) + (f" ... ({len(names)})" if len(names) > 4 else "")
