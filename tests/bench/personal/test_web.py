"""The measurement of the page, at its smallest, in a real browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.chromium import missing
from bench.personal import web
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.web.runtime import VERSION
from mocha_pipe.student.environment import own_folder

CACHE = own_folder() / "web"  # of the user: tests fetch nothing


def test_all_figures_are_measured(
    toy_copy: RunConfig, tiny_detector: Path, in_this_process: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if lack := missing():
        pytest.skip(lack)
    if not (CACHE / f"onnxruntime-web-{VERSION}").is_dir():
        pytest.skip("onnxruntime-web is not kept here: make browser")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / f"onnxruntime-web-{VERSION}").symlink_to(CACHE / f"onnxruntime-web-{VERSION}")
    monkeypatch.setattr(web, "_cache", lambda: cache)
    monkeypatch.setattr(web, "in_a_process", in_this_process)
    monkeypatch.setattr(web, "OPENINGS", 1)
    figures = web.measure(tmp_path, config=toy_copy, pictures=2, rounds=1, model=str(tiny_detector))
    assert set(figures) == {
        "web_detect_vs_native", "web_enrol_ms_vs_detect", "web_first_result_s", "web_bytes", "web_equal",
    }  # fmt: skip
    assert all(figure.value > 0 for figure in figures.values())
    assert figures["web_equal"].value == 2
    assert figures["web_bytes"].is_met


def test_a_machine_without_a_browser_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "missing", lambda: "Chromium is not installed: apt install chromium")
    with pytest.raises(RuntimeError, match="apt install chromium"):
        web.measure(tmp_path)
