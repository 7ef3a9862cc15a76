"""Figures over fresh casts and in shifted worlds, at toy size and by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import casts
from bench.casts import cast_figures, shift_figures, upscaled_accuracy
from bench.figures import Figure
from mocha_pipe.data.miniature.objects import Shift
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.pipeline.evaluation import fewshot
from mocha_pipe.pipeline.markers import read_json
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.pool_pass import PoolPass


def result(shots: int, gain: float, accuracy: float) -> dict[str, Any]:
    mocha = {name: {"mean": accuracy} for name in ("accuracy", "region_accuracy")}
    return {"shots": shots, "gain": {"map50_95": {"mean": gain}}, "methods": {"mocha": mocha}}


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of casts without a student."""

    def results(_config: RunConfig, _run: Path, shift: Shift, seed: int) -> list[dict[str, Any]]:
        less = 0 if shift == "none" else 20
        return [result(1, 40 + 2 * seed - less, 70), result(5, 60 + seed - less, 80)]

    monkeypatch.setattr(casts, "_results", results)
    monkeypatch.setattr(casts, "upscaled_accuracy", lambda *_: 55.0)
    monkeypatch.setattr(casts, "_world", lambda *_: Path())


@pytest.mark.usefixtures("by_hand")
def test_the_interval_is_over_casts(toy_config: RunConfig) -> None:
    figures = cast_figures(toy_config, Path(), [1, 2, 3, 4, 5])
    mean, low = figures["gain_casts_mean"], figures["gain_casts_low"]
    assert (mean.value, mean.target, low.target) == (46, 45, 40)
    half = 2.776 * np.std([42, 44, 46, 48, 50], ddof=1) / np.sqrt(5)  # 97.5 % quantile of t, four degrees of freedom
    assert low.value == pytest.approx(46 - half, abs=0.01)
    assert (figures["casts_gain_5shot"].value, figures["casts_accuracy_1shot"].value) == (63, 70)
    assert figures["casts_gain_1shot"].note.startswith(f"± {half:.1f}; ")


@pytest.mark.usefixtures("by_hand")
def test_one_cast_has_no_interval(toy_config: RunConfig) -> None:
    figures = cast_figures(toy_config, Path(), [1])
    assert "gain_casts_low" not in figures
    assert figures["casts_gain_1shot"].note.startswith("gain in mAP50-95, fresh casts, 1 shot")


@pytest.mark.usefixtures("by_hand")
def test_every_shift_has_its_figures(toy_config: RunConfig) -> None:
    figures = shift_figures(toy_config, Path(), [1, 2])
    assert {name.split("_")[1] for name in figures} == {"colours", "patterns", "small", "upscaled"}
    assert figures["shift_small_gain_1shot"].value == 23
    assert figures["shift_upscaled_region_accuracy_1shot"].value == 55


@pytest.mark.parametrize(("value", "code"), [(46.0, 0), (44.0, 1)])
def test_the_command_keeps_figures_and_fails_where_one_misses_its_target(
    value: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "last-distill.json").write_text('{"run": "distill"}')
    asked: list[tuple[Path, list[int]]] = []

    def instant(_config: RunConfig, run: Path, seeds: list[int]) -> dict[str, Figure]:
        asked.append((run, seeds))
        return {"gain_casts_mean": Figure(value=value, target=45, better="higher")}

    monkeypatch.setattr(casts, "cast_figures", instant)
    monkeypatch.setattr(casts, "shift_figures", lambda *_: pytest.fail("not asked for"))
    out = tmp_path / "study.json"
    arguments = ["--root", str(tmp_path), "--out", str(out), "--seeds", "3,1", "--no-shifts"]
    found = CliRunner().invoke(casts.app, arguments)
    assert found.exit_code == code, found.output
    assert asked == [(tmp_path / "distill", [3, 1])]
    assert read_json(out)["figures"]["gain_casts_mean"]["value"] == value


def test_a_real_cast_is_drawn_evaluated_and_kept(toy_copy: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewshot, "write_html", lambda path, *_, **__: path.touch())
    run = toy_copy.root / "default" / "seed-0"
    config = replace(toy_copy, fewshot=replace(toy_copy.fewshot, episodes=2, shots=(1,)))
    figures = cast_figures(config, run, [1, 2])
    assert set(figures) == {
        "gain_casts_mean", "gain_casts_low", "casts_accuracy_1shot", "casts_region_accuracy_1shot", "casts_gain_1shot",
    }  # fmt: skip
    report = config.root / "casts/none-1/fewshot/report.json"
    assert set(read_json(report)["results"][0]["methods"]) == {"histogram", "yolo", "mocha"}
    before = report.stat().st_mtime_ns
    assert cast_figures(config, run, [1, 2]) == figures
    assert report.stat().st_mtime_ns == before, "what is complete was evaluated again"


def test_an_upscaled_query_is_looked_at_larger_and_learnt_as_it_is(
    toy_copy: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    embed_pool = RegionEmbedder.embed_pool

    def watched(embedder: RegionEmbedder, source: DetectionSource, *, progress: bool) -> PoolPass:
        sizes.append(embedder.image_size)
        return embed_pool(embedder, source, progress=progress)

    monkeypatch.setattr(RegionEmbedder, "embed_pool", watched)
    run = toy_copy.root / "default" / "seed-0"
    world = casts._world(toy_copy, "none", 1)
    config = replace(toy_copy, fewshot=replace(toy_copy.fewshot, episodes=2, shots=(1,)))
    assert 0 <= upscaled_accuracy(config, run, world, 1) <= 100
    assert sizes == [64, 192]
