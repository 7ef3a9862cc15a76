import dataclasses

import numpy as np
import pytest

from mocha_pipe.student.network.pool_pass import PoolPass


def make_pass(**changes: np.ndarray) -> PoolPass:
    fields = {
        "detection_image": np.array([0, 0, 2]),
        "detection_xyxy": np.zeros((3, 4), np.float32),
        "detection_score": np.ones(3, np.float32),
        "detection_coarse": np.array([1, 0, 1]),
        "detection_embedding": np.zeros((3, 8), np.float32),
        "region_embedding": np.zeros((5, 8), np.float32),
    }
    return PoolPass(**(fields | changes))


def test_other_embeddings_keep_the_detections() -> None:
    pool_pass = make_pass()
    other = pool_pass.with_embeddings(np.ones((3, 2), np.float32), np.ones((5, 2), np.float32))
    for field in dataclasses.fields(PoolPass):
        same = getattr(other, field.name) is getattr(pool_pass, field.name)
        assert same == (not field.name.endswith("embedding"))


@pytest.mark.parametrize(
    "changes",
    [
        {"detection_image": np.zeros(2, int)},
        {"detection_coarse": np.zeros((3, 1), int)},
        {"detection_xyxy": np.zeros((3, 5))},
        {"region_embedding": np.zeros((5, 9))},
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(AssertionError):
        make_pass(**changes)
