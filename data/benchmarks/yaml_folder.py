"""A benchmark of one's own in YOLO layout: scenes with several objects, all boxes drawn."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.parsing import load_yaml, shown
from mocha_pipe.data.readers.class_names import check_names, names_as_written
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import PersonalBenchmark


def read_yaml_folder(folder: Path, *, progress: bool = False) -> PersonalBenchmark:
    """Read folder/data.yaml: YOLO layout whose `test:` split is the pool of scenes, with two keys more.

    `coarse_names: [mug, ball]` names the detector's classes; `coarse: [0, 0, 1]` gives the coarse id of each name in
    `names`, in the order of their ids.

    Raises:
        DatasetNotFoundError, DatasetError: As `open_source`, or a coarse key is missing or does not fit `names`.
    """
    data = folder / "data.yaml"
    source = open_source(data, "test", progress=progress)
    keys = load_yaml(data)
    names = keys.get("coarse_names")
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{data}: 'coarse_names:' must list the detector's classes, found {shown(names)}")
    return PersonalBenchmark(
        name=folder.resolve().name,
        source=source,
        coarse_names=_coarse_names(data, names),
        coarse_of=_coarse_of(data, keys.get("coarse"), len(source.class_names), len(names)),
    )


def _coarse_names(data: Path, names: list[object]) -> tuple[str, ...]:
    key = "coarse_names"
    return check_names(data, names_as_written(data, dict(enumerate(names)), key), key)


def _coarse_of(data: Path, ids: object, num_personal: int, num_coarse: int) -> NDArray[np.int64]:  # (P,)
    known = range(num_coarse)
    if not isinstance(ids, list) or len(ids) != num_personal or any(type(n) is not int or n not in known for n in ids):
        raise DatasetError(
            f"{data}: 'coarse:' must list an id of 'coarse_names:', 0 to {num_coarse - 1}, for each of the "
            f"{num_personal} 'names:', found {shown(ids)}"
        )
    return np.array(ids, dtype=np.int64)
