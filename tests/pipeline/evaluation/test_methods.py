"""What the methods of the few-shot stage are evaluated with."""

from dataclasses import replace
from pathlib import Path

import pytest

from mocha_pipe.pipeline.evaluation import methods
from mocha_pipe.pipeline.evaluation.methods import with_learner
from mocha_pipe.pipeline.settings.sections import RunConfig


def test_the_learner_is_the_students_where_nobody_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, student = RunConfig().resolved().fewshot, tmp_path / "student.pt"
    assert settings.learner is None
    assert with_learner(settings, student).learner == "conditional"
    monkeypatch.setattr(methods, "default_learner", lambda features: {"paper": "simpleshot"}[features])
    assert with_learner(settings, student).learner == "simpleshot"
    assert with_learner(replace(settings, learner="gallery"), student).learner == "gallery"
