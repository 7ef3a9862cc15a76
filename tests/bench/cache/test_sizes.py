"""The measurements of archives, of verify, of ten million regions and of claims, at toy size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cache import claiming, compact, ten_million, verify
from bench.cache.claiming import Event, is_done_twice, read_events
from mocha_pipe.pipeline.settings.sections import RunConfig


def test_an_archive_has_its_figures(toy_copy: RunConfig, tmp_path: Path) -> None:
    figures = compact.measure(tmp_path / "bench", config=toy_copy)
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "compact_exact_bytes_vs_raw": (None, "lower"),
        "compact_bytes_vs_raw": (0.52, "lower"),
        "compact_min_cosine": (0.9999, "higher"),
    }
    assert figures["compact_min_cosine"].is_met
    assert figures["compact_bytes_vs_raw"].value < figures["compact_exact_bytes_vs_raw"].value
    assert list((tmp_path / "bench").iterdir()) == []


def test_verify_has_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "ROUNDS", 1)
    figures = verify.measure(tmp_path, images=20)
    assert figures["verify_vs_cat"].value > 0
    assert list(tmp_path.iterdir()) == []


def test_ten_million_regions_have_their_figures(
    tmp_path: Path, in_this_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.cache.million.in_a_process", in_this_process)
    monkeypatch.setattr(ten_million, "STEPS", 2)
    figures = ten_million.measure(tmp_path, images=600, rows_per_shard=64)
    assert {name: (figure.target, figure.better) for name, figure in figures.items()} == {
        "memory_1e7_vs_1e6": (1.3, "lower"),
        "open_1e7_s": (1.0, "lower"),
        "resume_scan_1e7_s": (60.0, "lower"),
        "plan_1e7_s": (None, "lower"),
        "fetch_1e7_ms": (None, "lower"),
        "verify_table_1e7_s": (None, "lower"),
    }
    assert all(figure.value > 0 for figure in figures.values())
    assert list(tmp_path.iterdir()) == []


def test_processes_that_are_killed_lose_no_shard(tmp_path: Path) -> None:
    figures = claiming.measure(tmp_path, processes=4, killed=2, shards=12)
    assert {name: figure.value for name, figure in figures.items()} == {"workers64_lost": 0, "workers64_twice": 0}
    assert "by 4 processes on one disk, 2 of them killed at work" in figures["workers64_lost"].note


@pytest.mark.parametrize(
    ("events", "is_twice"),
    [
        (["1 begun", "1 done"], False),
        (["9 begun", "1 begun", "1 done"], False),  # after it was killed
        (["2 begun", "1 begun", "1 done"], True),  # beside another
        (["9 begun", "9 done", "1 begun", "1 done"], True),
        (["1 begun", "1 done", "2 begun"], True),
    ],
)
def test_what_was_done_twice_is_counted(events: list[str], is_twice: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{event} 7\n" for event in events))
    found = read_events(log)
    assert list(found) == [7]
    assert found[7][0] == Event(int(events[0].split()[0]), "begun")
    assert is_done_twice(found[7], dead={9}) == is_twice
