"""What a detection is compared with and when it gets a name, in the browser and in Python."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mocha_pipe.student.fewshot.prototypes import LEARNERS
from mocha_pipe.student.fewshot.strangers import accept_above, certainty, shortfall
from mocha_pipe.student.personal.profile import Profile

NAMING = "async ([name, ...rest]) => (await import('/naming.js'))[name](...rest)"
STRANGERS = [np.linspace(-1, 0.9, count).astype(np.float32).tolist() for count in (0, 1, 30, 1999)]


@pytest.mark.parametrize("strangers", STRANGERS)
@pytest.mark.parametrize("rate", [0.001, 0.05, 0.29, 0.5])
@pytest.mark.parametrize("objects", [1, 3, 40])
def test_thresholds_and_what_is_said_of_them(
    call: Callable[..., Any], strangers: list[float], rate: float, objects: int
) -> None:
    known = np.array(strangers, np.float32)
    assert call(NAMING, ["acceptAbove", strangers, rate, objects]) == accept_above(known, rate, objects)
    assert call(NAMING, ["shortfall", len(strangers), rate, objects]) == (shortfall(len(known), rate, objects) or "")


def test_certainty(call: Callable[..., Any]) -> None:
    known = np.array(STRANGERS[2], np.float32)
    values = np.array([-1.5, -1.0, 0.1, float(known[7]), 0.9, 1.0])
    found = [call(NAMING, ["certainty", STRANGERS[2], value]) for value in values.tolist()]
    assert np.allclose(found, certainty(values, known), atol=1e-7)


@pytest.mark.parametrize("learner", LEARNERS)
def test_rows_and_how_many_compete(call: Callable[..., Any], learner: str) -> None:
    rng = np.random.default_rng(0)
    profile = Profile.empty("a" * 64, ["mug", "ball"], learner=learner)
    for name, coarse in (("mine", [0, 0, 1]), ("yours", [0]), ("theirs", [1, 1])):
        profile = profile.add(name, rng.standard_normal((len(coarse), 5)), np.array(coarse))
    rows = zip(*(column.tolist() for column in profile.learner.tensors().values()), strict=True)
    told = {
        "learner": learner, "names": list(profile.names),
        "prototypes": [dict(zip(("vector", "coarse", "personal", "count"), row, strict=True)) for row in rows],
    }  # fmt: skip
    code = """async ([profile, width]) => {
      const found = (await import("/naming.js")).compared(profile, width);
      return { ...found, prototypes: [...found.prototypes] };
    }"""
    found = call(code, [told, 5])
    assert np.allclose(np.reshape(found["prototypes"], (-1, 5)), profile.learner.compared(), atol=1e-6)
    assert found["coarse"] == profile.learner.coarse_.tolist()
    assert found["objects"] == profile.learner.personal_.tolist()
    assert found["compete"] == profile.learner.candidates(profile.learner.coarse_).tolist()
