"""The whole pipeline at toy size with its real parts: miniature world and teacher, a tiny YOLO, every stage."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from mocha_pipe.pipeline.distillation import distill_from
from mocha_pipe.pipeline.errors import StageMismatchError
from mocha_pipe.pipeline.run.inputs import cache_digest, last_distillation
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import (
    build_teacher_cache,
    distill_inputs,
    distill_student,
    pretrain_base,
    run_demo,
)
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.teacher_cache.sharing import pull, push
from mocha_pipe.teacher_cache.store.cache import RegionCache


def test_the_report_follows_its_contract(finished: RunConfig) -> None:
    report = json.loads((finished.root / "report.json").read_text())
    assert [result["shots"] for result in report["results"]] == [1, 2]
    for result in report["results"]:
        assert (result["benchmark"], result["episodes"], result["seed"]) == ("miniature", 2, 0)
        assert list(result["methods"]) == ["histogram", "yolo", "mocha", "teacher"]
        for figures in result["methods"].values():
            assert list(figures) == ["map50_95", "map50", "accuracy", "image_accuracy", "region_accuracy"]
            for figure in figures.values():
                low, high = figure["ci95"]
                assert 0 <= low <= figure["mean"] <= high <= 100
        for metric in ("map50_95", "accuracy", "region_accuracy"):
            difference = result["methods"]["mocha"][metric]["mean"] - result["methods"]["yolo"][metric]["mean"]
            assert result["gain"][metric]["mean"] == pytest.approx(difference, abs=1e-6)
        assert list(result["confusion"]) == list(result["unknown"]["methods"]) == list(result["methods"])
        assert set(result["confusion"]["mocha"]["mug"]) == {
            "objects", "taken_for", "elsewhere", "unknown", "missed", "shares",
        }  # fmt: skip
        assert result["unknown"]["held_out"] == 8
    assert set(report["seconds"]) == {"miniature", "cache", "base", "distill", "fewshot"}
    assert {"torch", "ultralytics", "zarr"} <= set(report["versions"])
    assert {"student", "benchmark", "cache"} <= set(report["inputs"])
    assert set(report["detection"]) == {"base", "student"}


def test_the_page_is_self_contained_and_says_that_the_data_is_synthetic(finished: RunConfig) -> None:
    page = (finished.root / "report.html").read_text()
    assert "synthetic" in page
    for outside in ('src="http', 'href="http', "url(http", "@import"):
        assert outside not in page


def test_cache_and_student_lie_where_the_stages_say(finished: RunConfig) -> None:
    cache = RegionCache.open(finished.root / "cache")
    assert cache.is_complete
    assert cache.spec.model == "miniature"
    student = load_student(last_distillation(finished.root) / "student")
    assert student.translation is not None
    assert student.embedding_dim == cache.targets().dim
    assert load_student(finished.root / "base/train/weights/best.pt").translation is None


def test_a_second_run_skips_everything_and_moves_no_file(finished: RunConfig) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*.*") if path.suffix != ".json"}
    assert [done.skipped for done in run_demo(finished)] == [True] * 5
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_are_refused_and_nothing_is_lost(finished: RunConfig) -> None:
    longer = replace(finished, distill=replace(finished.distill, epochs=2))
    with pytest.raises(StageMismatchError, match="epochs"):
        distill_student(longer)
    other_base = replace(finished, pretrain=replace(finished.pretrain, seed=7))
    with pytest.raises(StageMismatchError, match="seed"):
        pretrain_base(other_base)
    assert distill_student(finished).skipped


def test_a_cache_that_lost_a_shard_is_mended_to_the_same_bytes(finished: RunConfig, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.root / "cache", tmp_path / "cache"))
    shard = next((folder / "hidden").glob("c*0"))
    content = shard.read_bytes()
    shard.unlink()
    assert not build_teacher_cache(replace(finished, cache=replace(finished.cache, folder=folder))).skipped
    assert shard.read_bytes() == content


def test_a_student_learns_from_the_same_by_a_cache_behind_a_url(finished: RunConfig, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket/toy"
    push(finished.root / "cache", url)
    elsewhere = replace(finished, root=tmp_path, cache=replace(finished.cache, url=url, folder=tmp_path / "none"))
    here, there = distill_inputs(finished), distill_inputs(elsewhere)
    assert there.cache.path.parent == tmp_path / "remote"
    assert not list((there.cache.path / "hidden").glob("c.*")), "what distillation does not need stays where it is"
    rows = np.arange(len(here.table))
    np.testing.assert_array_equal(there.targets.lookup(rows), here.targets.lookup(rows))
    assert cache_digest(there.cache) == cache_digest(here.cache)
    assert (there.model, there.table.digest, there.shards) == (here.model, here.table.digest, ())
    assert distill_from(there, finished, flag="--run").skipped, "and so it is the same distillation"


@pytest.mark.usefixtures("no_page")
def test_without_the_projection_the_oracle_is_left_out_with_a_note(
    finished: RunConfig, tmp_path: Path, command: Callable[..., Result]
) -> None:
    pull(str(finished.root / "cache"), tmp_path / "targets", targets_only=True)
    marker = json.loads((finished.root / "distill/complete.json").read_text())
    links = {"base": finished.root / "base/train/weights/best.pt", "cache": tmp_path / "targets", "base_run": None}
    shutil.copytree(finished.root / "distill/student", tmp_path / "run/student")
    marker["outputs"] |= {name: path and str(path) for name, path in links.items()}
    (tmp_path / "run/complete.json").write_text(json.dumps(marker))
    run = ("--run", tmp_path / "run", "--benchmark", finished.root / "miniature/benchmark", "--out", tmp_path / "out")
    result = command("fewshot", *run, "--episodes", 2, "--json")
    assert result.exit_code == 0, result.stderr
    (shown,) = json.loads(result.stdout)["results"]
    assert shown["episodes"] == 2
    assert "teacher" not in shown["methods"]
    assert "projection" in next(line for line in result.stderr.splitlines() if line.startswith("note: "))
    assert json.loads(command("cache", "info", finished.root / "cache", "--json").stdout)["complete"] is True
