"""What the commands of the stages say at their end."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from mocha_pipe.pipeline.markers import Completion
from mocha_pipe.student.fewshot.strangers import save_strangers


@pytest.mark.parametrize(
    ("strangers", "said"),
    [
        (499, "0.05 for up to 25 competing objects; 0.002 is the lowest, for one object"),
        (6, "not 0.05: 0.14 is the lowest"),
    ],
)
def test_distill_says_which_rate_its_student_can_promise(
    command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strangers: int, said: str
) -> None:
    save_strangers(tmp_path / "student", np.linspace(-1, 0.5, strangers))
    done = Completion(
        stage="distill", folder=tmp_path, config={}, inputs={}, outputs={"student": "student"}, versions={}, seconds=1.0
    )
    monkeypatch.setattr("mocha_pipe.pipeline.stages.distill_student", lambda _: done)
    result = command("distill")
    assert result.exit_code == 0, result.output
    assert said in " ".join(result.stdout.split())
