"""The study of lossy archives, from intervals by hand and from real runs at toy size."""

import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import compact_study
from bench.compact_study import change_figure, measure
from bench.figures import Figure
from bench.synthetic import CheapTeacher
from mocha_pipe.pipeline.evaluation import fewshot
from mocha_pipe.pipeline.markers import read_json
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.student.fewshot.bootstrap import Interval
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from tests.bench.test_study import find_everything


@pytest.mark.parametrize(("mean", "is_met"), [(-0.4, True), (0.9, True), (-0.6, False)])
def test_a_change_is_met_where_its_interval_reaches_zero(mean: float, is_met: bool) -> None:
    figure = change_figure(Interval(mean=mean, low=mean - 0.5, high=mean + 0.5), [(48.0, 48.0 + mean)] * 3)
    assert figure.is_met == is_met
    assert figure.note.startswith("± 0.50; gain in mAP50-95 at 1 shot")


def test_one_seed_has_no_target() -> None:
    figure = change_figure(Interval(mean=-9, low=-math.inf, high=math.inf), [(48.0, 39.0)])
    assert figure.target is None
    assert figure.note.endswith("by seed: 39.0 and 48.0")


def test_students_on_rounded_targets_know_what_they_learnt_from(
    toy_copy: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RegionEmbedder, "embed_pool", find_everything)
    monkeypatch.setattr(LlavaTeacher, "embed", lambda teacher, *asked: CheapTeacher(teacher.spec).embed(*asked))
    monkeypatch.setattr(fewshot, "write_html", lambda path, *_, **__: path.touch())
    figures = measure(toy_copy, [0])
    assert set(figures) == {"compact_gain_change"}
    rounded, exact = (read_json(toy_copy.root / run / "complete.json") for run in ("compact/seed-0", "default/seed-0"))
    cache = RegionCache.open(toy_copy.root / "compact/cache")
    assert rounded["inputs"]["rounding"] == cache.spec.rounding
    assert "rounding" not in exact["inputs"]
    assert rounded["inputs"]["cache"] != exact["inputs"]["cache"]
    assert read_json(toy_copy.root / "compact/seed-0/student/student.json")["meta"]["rounding"] == cache.spec.rounding
    assert "teacher" in read_json(toy_copy.root / "compact/seed-0/fewshot/report.json")["results"][0]["methods"]
    assert measure(toy_copy, [0]) == figures


def test_the_command_keeps_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missed = {"compact_gain_change": Figure(value=-2.0, target=-1.0, better="higher")}
    monkeypatch.setattr(compact_study, "measure", lambda *_: missed)
    out = tmp_path / "study.json"
    result = CliRunner().invoke(compact_study.app, ["--root", str(tmp_path), "--out", str(out), "--seeds", "1"])
    assert result.exit_code == 1, result.output
    assert read_json(out)["figures"]["compact_gain_change"]["value"] == -2.0
